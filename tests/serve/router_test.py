"""A router with a real encoder in front of its policy."""

import dataclasses
import json
import pathlib
import shutil
import textwrap

import numpy as np
import pytest

from erp_jax import data, serve
from erp_jax.core import config, errors, runtime
from erp_jax.embed import embedder
from erp_jax.models import checkpoint
from erp_jax.probe import ridge
from erp_jax.route import artifact, policy

_EMBED = embedder.EmbedConfig(max_tokens=64)


@pytest.fixture(scope='module')
def rows():
  path = pathlib.Path(data.__path__[0]) / 'quickstart.jsonl'
  lines = path.read_text().splitlines()
  return [json.loads(line) for line in lines][::2]


@pytest.fixture(scope='module')
def texts(rows):
  return [row['prompt'] for row in rows]


@pytest.fixture(scope='module')
def folder(rows, texts, tmp_path_factory):
  """A router whose cheap arm can only do mathematics."""
  emb_NE = embedder.load(_EMBED).embed(texts).emb_NE
  is_math_N = np.array([row['category'] == 'math' for row in rows])
  reward_NM = np.column_stack([is_math_N, np.full(80, 0.9)])
  cfg = ridge.RidgeConfig(beta=0.3)
  train_N = np.arange(80) % 2 == 0
  train = emb_NE[train_N], reward_NM[train_N]
  probe = ridge.fit(*train, cfg)
  made = policy.calibrate(
    name=policy.ERP,
    arms=['cheap', 'dear'],
    cost_M=np.array([1.0, 4.0]),
    mean_M=train[1].mean(axis=0),
    bias_M=probe.bias_M,
    parts=[policy.ridge_part(probe, *train, cfg, 0.99)],
    emb_NE=emb_NE[~train_N],
  )
  encoder = {
    'embed': config.as_plain(_EMBED),
    'revision': checkpoint.open_checkpoint(_EMBED.encoder).revision,
  }
  path = tmp_path_factory.mktemp('router')
  artifact.save(path, artifact.Saved(made, encoder, {}, {}))
  return path


@pytest.fixture(scope='module')
def router(folder):
  return serve.Router.load(folder)


@pytest.mark.parametrize('price', [{'budget': 0.8}, {'lam': 0.1}])
def test_it_is_the_encoder_before_the_policy(router, texts, price):
  found = router.route(texts, **price)
  emb_NE = embedder.load(_EMBED).embed(texts).emb_NE
  expected = router.policy.decide(emb_NE, **price, prompt_ids=texts)
  for field in dataclasses.fields(policy.Decision):
    np.testing.assert_array_equal(
      getattr(found, field.name), getattr(expected, field.name)
    )
  assert set(found.arm_N) == {'cheap', 'dear'}


def test_a_batch_of_8_is_8_of_1(router, texts):
  """The encoder's vectors differ by up to 1e-6 over batches."""
  batch = router.route(texts[40:48], budget=0.8)
  for n in range(8):
    alone = router.route(texts[40 + n : 41 + n], budget=0.8)
    assert alone.arm_N[0] == batch.arm_N[n]
    for name in ('reward_NM', 'std_NM', 'win_NM'):
      np.testing.assert_allclose(
        getattr(alone, name)[0], getattr(batch, name)[n], rtol=0, atol=2e-5
      )


def test_lotteries_go_by_id_else_by_prompt(router, texts):
  """The budget is half way between two points, which one prompt divides."""
  points = router.policy.ladder
  reward_NM = router.route(texts, lam=0.0).reward_NM
  turn_N = (reward_NM[:, 1] - reward_NM[:, 0]) / 3.0  # The price of a switch.
  n = int(np.argsort(turn_N)[40])
  point = int((points.price_P < turn_N[n]).sum()) - 1
  budget = points.cost_P[point : point + 2].mean() / 4.0
  prompts = [texts[n]] * 60
  ids = [f'id {i}' for i in range(60)]
  arms = router.route(prompts, budget=budget, ids=ids).arm_N
  assert 15 < arms.count('cheap') < 45
  assert arms == router.route(prompts, budget=budget, ids=ids).arm_N
  assert len(set(router.route(prompts, budget=budget).arm_N)) == 1


def test_after_the_warm_up_nothing_is_compiled(folder, texts):
  router = serve.Router.load(folder)
  router.warm_up()
  counter = runtime.CompileCounter()
  for num_words in (*range(1, 66), 300):
    router.route(['word ' * num_words], budget=0.7)
  for num_prompts in (2, 3, 7, 12, 60):
    router.route(texts[:num_prompts], lam=0.1)
  router.route([text * (1 + n % 5) for n, text in enumerate(texts)], lam=0.1)
  assert counter.programs == 0


def test_the_encoder_may_lie_elsewhere_but_be_no_other(
  folder, router, texts, minilm_dir, tmp_path
):
  moved = tmp_path / 'moved'
  shutil.copytree(minilm_dir, moved)
  again = serve.Router.load(folder, encoder=str(moved))
  np.testing.assert_array_equal(
    again.route(texts[:9], lam=0.0).reward_NM,
    router.route(texts[:9], lam=0.0).reward_NM,
  )
  file = moved / 'tokenizer_config.json'
  file.write_text(file.read_text() + ' ')
  with pytest.raises(errors.UserError, match='embeddings with revision = '):
    serve.Router.load(folder, encoder=str(moved))


def test_what_it_refuses(router, folder, tmp_path):
  for prompts in ([''], ['a', ' \n'], [3]):
    with pytest.raises(errors.UserError, match='give a text that is not empty'):
      router.route(prompts, budget=1.0)
  with pytest.raises(errors.UserError, match='either a budget or lam'):
    router.route(['a'])
  with pytest.raises(errors.UserError, match='infeasible'):
    router.route(['a'], budget=0.1)
  with pytest.raises(ValueError, match='1 ids, 2 prompts'):
    router.route(['a', 'b'], budget=1.0, ids=['x'])
  with pytest.raises(errors.UserError, match='is not there'):
    serve.Router.load(tmp_path)


def test_no_prompts_no_decisions(router):
  assert len(router.route([], budget=1.0)) == 0


def test_the_example_of_the_docstring_runs(folder):
  lines = textwrap.dedent(serve.Router.__doc__.split(':\n\n')[1]).splitlines()
  program = '\n'.join(line for line in lines if line[:1] not in ('', ' '))
  names = {}
  exec(program.replace('runs/mine/router/verify', str(folder)), names)
  assert set(names['decision'].arm_N) <= {'cheap', 'dear'}
  assert names['decision'].std_NM.shape == (2, 2)
