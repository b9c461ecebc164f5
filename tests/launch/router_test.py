"""From a fitted run to decisions about new prompts, as a user would."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from erp_jax import serve
from erp_jax.data import embeddings
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from erp_jax.route import artifact

_PRICE = '--budget=1.0'


@pytest.fixture(scope='module')
def fitted(tiny, launch, tmp_path_factory):
  """A run up to its probes."""
  workdir = tmp_path_factory.mktemp('router') / 'run'
  for stage in ('sample', 'score', 'embed', 'fit'):
    done = launch(stage, *tiny.flags(workdir))
    assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture(scope='module')
def routers(fitted, tiny, launch):
  done = launch('export_router', *tiny.flags(fitted))
  assert done.returncode == 0, done.stderr
  return fitted / 'router'


@pytest.fixture
def prompts(tmp_path):
  file = tmp_path / 'prompts.jsonl'
  rows = [{'prompt': f'What is {i} plus {i}?', 'id': i} for i in range(20)]
  file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return file


def _rows(file):
  return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_reward_model_has_a_router(routers, fitted, tiny, launch):
  assert {folder.name for folder in routers.iterdir()} == {
    *('verify', 'relevance', 'judge')
  }
  files = sorted(file for file in routers.rglob('*') if file.is_file())
  assert len(files) == 6
  digest = lambda: [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
  before = digest()
  assert launch('export_router', *tiny.flags(fitted)).returncode == 0
  assert digest() == before
  text = (routers / 'verify' / 'router.json').read_text()
  assert str(fitted) not in text


def test_it_has_the_probes_of_the_run(routers, fitted, tiny):
  loaded = artifact.load(routers / 'verify')
  probe = fit_stage.load(fitted, 'verify', ('terse', 'steps'))
  np.testing.assert_array_equal(loaded.policy.parts[0].theta_EM, probe.theta_EM)
  ids = [row['id'] for row in _rows(tiny.prompts)]
  emb_NE = embeddings.read(fitted / 'embeddings' / 'encoder', ids)
  np.testing.assert_allclose(
    loaded.policy.decide(emb_NE, lam=0.0).reward_NM,
    ridge.predict(probe, emb_NE),
    rtol=0,
    atol=1e-12,
  )
  assert loaded.encoder['embed']['encoder'] == str(tiny.encoder)
  assert loaded.made_from['probes'].keys() == {'terse', 'steps'}


def test_prompts_are_routed_as_by_the_library(
  routers, launch, prompts, tmp_path
):
  output = tmp_path / 'out.jsonl'
  done = launch(
    'route_prompts',
    f'--router={routers / "judge"}',
    *(_PRICE, f'--input={prompts}', f'--output={output}', '--batch=8'),
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == ''
  assert 'route: 20 prompts in' in done.stderr
  lines = _rows(output)
  assert [line['id'] for line in lines] == list(range(20))
  router = serve.Router.load(routers / 'judge')
  texts = [row['prompt'] for row in _rows(prompts)]
  expected = router.route(texts, budget=1.0, ids=[str(i) for i in range(20)])
  assert [line['arm'] for line in lines] == expected.arm_N
  for n, line in enumerate(lines):
    for name, value_NM in (
      ('reward', expected.reward_NM),
      ('std', expected.std_NM),
      ('p_win', expected.win_NM),
    ):
      assert list(line[name]) == ['terse', 'steps']
      np.testing.assert_allclose(
        list(line[name].values()), value_NM[n], rtol=0, atol=1e-5
      )
    assert line['cost'] == pytest.approx(expected.cost_N[n])
    assert line['out_of_distribution'] == expected.ood_N[n]


def test_plain_text_from_stdin(routers):
  flags = (f'--router={routers / "verify"}', '--lam=0', '--text')
  done = subprocess.run(
    [sys.executable, '-m', 'launch.route_prompts', *flags],
    cwd=pathlib.Path(__file__).parents[2],
    input='What is 1?\n\nhello there\n',
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(lines) == 2
  assert 'id' not in lines[0]


@pytest.mark.parametrize(
  'flags, expected',
  [
    ((), 'give either a budget or lam'),
    (('--budget=0.01',), 'infeasible'),
    (('--lam=-1',), 'give a price of 0 or more'),
    ((_PRICE, '--input=none.jsonl'), '--input=none.jsonl is no file'),
    ((_PRICE, '--router=nowhere'), 'nowhere/router.json is not there'),
    ((_PRICE, '--encoder=package:minilm-l6-v2'), 'embeddings with revision ='),
  ],
)
def test_mistakes_end_in_one_line(routers, launch, flags, expected):
  done = launch('route_prompts', f'--router={routers / "verify"}', *flags)
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr, done.stderr
  assert expected in done.stderr.splitlines()[-1]


def test_a_bad_row_is_named(routers, launch, prompts):
  with prompts.open('a') as file:
    file.write('{"prompt": ""}\n')
  done = launch(
    *('route_prompts', f'--router={routers / "verify"}', _PRICE),
    f'--input={prompts}',
  )
  assert done.returncode == 1
  assert f'{prompts} line 21 has an empty' in done.stderr.splitlines()[-1]


def test_an_output_that_ends_early_is_one_line(routers, launch, prompts):
  flags = (f'--router={routers / "verify"}', '--lam=0', f'--input={prompts}')
  full = launch('route_prompts', *flags, '--output=/dev/full')
  assert 'cannot write /dev/full (No space left' in full.stderr.splitlines()[-1]
  gone = subprocess.run(
    f'{sys.executable} -m launch.route_prompts {" ".join(flags)} | true',
    shell=True,
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
  )
  assert 'cannot write <stdout> (Broken pipe)' in gone.stderr.splitlines()[-1]
  for stderr in (full.stderr, gone.stderr):
    assert 'Traceback' not in stderr and 'ignored' not in stderr


def test_the_input_is_not_written_over(routers, launch, prompts):
  before = prompts.read_bytes()
  same = prompts.parent / '.' / prompts.name
  done = launch(
    *('route_prompts', f'--router={routers / "verify"}', _PRICE),
    *(f'--input={prompts}', f'--output={same}'),
  )
  assert done.returncode == 1
  assert 'is the input too: name another' in done.stderr.splitlines()[-1]
  assert prompts.read_bytes() == before


@pytest.mark.slow
def test_policies_and_switches(fitted, tiny, launch, tmp_path):
  """Penalties by leave-one-out are fitted anew where the run has others."""
  workdir = tmp_path / 'run'
  shutil.copytree(fitted, workdir, ignore=shutil.ignore_patterns('router'))
  flags = (
    *('--policy=erp_loo', '--rewards=verify', '--max_points=2'),
    *('--out_of_distribution=static_mixture', '--leverage_quantile=0.5'),
  )
  done = launch('export_router', *tiny.flags(workdir), *flags)
  assert done.returncode == 0, done.stderr
  assert [folder.name for folder in (workdir / 'router').iterdir()] == [
    'verify'
  ]
  made = artifact.load(workdir / 'router' / 'verify').policy
  assert (made.name, made.out_of_distribution) == ('erp_loo', 'static_mixture')
  assert len(made.ladder.cost_P) <= 2
  # The same as a run that is fitted so to begin with, but for the quantile.
  shutil.rmtree(workdir / 'probes')
  loo = '--config.fit.ridge.selection=leave_one_out'
  assert launch('fit', *tiny.flags(workdir), loo).returncode == 0
  done = launch('export_router', *tiny.flags(workdir), loo, *flags[:-1])
  assert done.returncode == 0, done.stderr
  again = artifact.load(workdir / 'router' / 'verify').policy
  np.testing.assert_array_equal(made.parts[0].theta_EM, again.parts[0].theta_EM)
  # Leverage depends on the penalty: only at the same ones do limits compare.
  assert made.parts[0].posterior.limit < again.parts[0].posterior.limit


@pytest.mark.slow
@pytest.mark.parametrize(
  'flag, expected',
  [
    ('--policy=best', "policy is 'best'; allowed: erp, erp_loo, erp_guarded"),
    ('--out_of_distribution=x', "'x'; allowed: flag, static_mixture"),
    ('--max_points=1', 'max_points must be >= 2, got 1'),
    ('--leverage_quantile=0', 'leverage_quantile is 0'),
    ('--rewards=nobody', "reward model 'nobody' is not in the config"),
    ('--config.fit.ridge.beta=2.0', 'fit.ridge.beta = 1.0'),
  ],
)
def test_an_export_that_cannot_be(fitted, tiny, launch, flag, expected):
  done = launch('export_router', *tiny.flags(fitted), flag)
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr, done.stderr
  assert expected in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_guarded_policy_is_exported(fitted, tiny, launch, tmp_path):
  """On random rewards it reads no prompt, or keeps the best arm's."""
  workdir = tmp_path / 'run'
  shutil.copytree(fitted, workdir, ignore=shutil.ignore_patterns('router'))
  flags = ('--policy=erp_guarded', '--rewards=judge')
  done = launch('export_router', *tiny.flags(workdir), *flags)
  assert done.returncode == 0, done.stderr
  made = artifact.load(workdir / 'router' / 'judge').policy
  assert made.name == 'erp_guarded'
  ids = [row['id'] for row in _rows(tiny.prompts)]
  emb_NE = embeddings.read(workdir / 'embeddings' / 'encoder', ids)
  decision = made.decide(emb_NE, lam=0.0)
  assert (decision.choice_N == made.best_arm).mean() > 0.5
  assert np.isfinite(decision.std_NM).all()
