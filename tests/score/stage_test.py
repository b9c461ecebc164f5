"""The stage with each kind of reward model: rewards, counts, identity."""

import functools
import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.sample import stage as sample
from erp_jax.score import (
  bradley_terry,
  features,
  pairs,
  preference,
  preference_reward,
  rewards,
  stage,
  train_stage,
)

_PROMPTS = (
  prompts.Prompt('a', 'what is the capital of france', 'chat'),
  prompts.Prompt('b', 'write a line of verse about the sea at night', 'chat'),
)
_TEXTS = (
  ['paris', 'the capital of france is paris i think', ''],
  ['the sea is dark and the moon has gone to bed'],
)


@pytest.fixture(scope='module')
def trained(saved, tmp_path_factory):
  """A workdir in which a reward model was trained on a decoder's states."""
  path = tmp_path_factory.mktemp('trained')
  rows = [
    {'prompt': f'q{i}', 'chosen': f'yes {i}', 'rejected': f'no {i}'}
    for i in range(12)
  ]
  file = path / 'pairs.jsonl'
  file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  workdir = workdir_lib.Workdir(epath.Path(path / 'run'), {'versions': {}})
  train_stage.run(
    workdir,
    train_stage.TrainRewardConfig(
      pairs=preference.PairsConfig(path=str(file)),
      features=features.FeatureConfig(model=str(saved('Llama')[1])),
      train=bradley_terry.TrainConfig(epochs=2),
    ),
  )
  return path / 'run'


def test_the_stage_scores_counts_and_records_how(
  saved, deberta, trained, tmp_path, caplog
):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  arm = arms.Arm(model=str(saved('Qwen3')[1]))
  made = sample.artifact(workdir, 'x', arm, _PROMPTS, sample.SampleConfig())
  rows = [
    {'prompt_id': prompt.id, 'k': k, 'arm': 'x', 'text': text}
    for prompt, texts in zip(_PROMPTS, _TEXTS, strict=True)
    for k, text in enumerate(texts)
  ]
  with workdir.writer(made) as writer:
    writer.write_shard(0, pa.Table.from_pylist(rows))
    writer.finish()
  _, llama = saved('Llama')
  config = functools.partial(rewards.RewardConfig, kind='reward_model')
  cfgs = {
    'decoder': config(model=str(llama), dtype='float32', max_tokens=60),
    'pair': config(model=str(deberta), max_tokens=40),
    'trained': config(kind='preference', model=str(trained)),
  }
  with caplog.at_level(logging.WARNING, 'erp_jax'):
    stage.run(workdir, cfgs, {'x': arm}, _PROMPTS)
  texts = [prompt.prompt for prompt in _PROMPTS]
  pair_scorer = pairs.load(str(deberta), max_tokens=40)
  trained_scorer = preference_reward.load(trained)
  decoder_scored = rewards.scorer(cfgs['decoder'])(
    _PROMPTS, _TEXTS, lambda n, positions: None
  )
  want = {
    'decoder': decoder_scored.rewards,
    'pair': pair_scorer.score(texts, _TEXTS),
    'trained': trained_scorer.score(texts, _TEXTS),
  }
  num_cut = {
    'decoder': decoder_scored.num_cut,
    'pair': pair_scorer.num_cut,
    'trained': 0,
  }
  assert num_cut['decoder'] and num_cut['pair']
  for name in cfgs:
    folder = workdir.path / 'rewards' / name / 'x'
    table = store.read_table(folder)
    assert table['prompt_id'].to_pylist() == [row['prompt_id'] for row in rows]
    np.testing.assert_allclose(
      table['reward'], np.concatenate(want[name]), rtol=0, atol=1e-5
    )
    counts = store.read_manifest(folder)['counts']
    assert counts['truncated'] == num_cut[name] and counts['non_finite'] == 0
    warned = f'score {name}/x: {num_cut[name]} responses were read in part'
    assert any(warned in m for m in caplog.messages) == bool(num_cut[name])
  read = lambda name: store.read_manifest(
    workdir.path / 'rewards' / name / 'x'
  )['identity']['reward']
  convention = {'bos': 'template', 'end_ids': [], 'max_tokens': 60}
  assert read('decoder')['read_as'] == {
    'dtype': 'float32',
    'convention': convention,
  }
  assert read('pair')['read_as'] == {
    'dtype': 'float32',
    'pair': 'pair',
    'max_tokens': 40,
  }
  assert read('trained')['revision'] == preference_reward.revision(trained)
