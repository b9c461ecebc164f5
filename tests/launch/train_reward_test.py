"""Training a reward model from a file of pairs, killed once, and scoring."""

import json
import pathlib

import numpy as np
import pytest
from etils import epath

from erp_jax.core import errors, runtime, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.score import (
  bradley_terry,
  features,
  preference,
  preference_reward,
  train_stage,
)


@pytest.fixture(scope='module')
def config(tiny, tmp_path_factory):
  """300 pairs in which the chosen response has more of the letter z."""
  path = tmp_path_factory.mktemp('pairs') / 'pairs.jsonl'
  rng = np.random.default_rng(0)
  draw = lambda num_z: ' '.join(rng.permutation(list('abcd' + 'z' * num_z)))
  rows = []
  for i in range(300):
    few, many = rng.choice(5, 2, replace=False)
    rows.append(
      {
        'prompt': f'question {i % 150}',
        'chosen': draw(max(few, many)),
        'rejected': draw(min(few, many)),
      }
    )
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return train_stage.TrainRewardConfig(
    pairs=preference.PairsConfig(path=str(path)),
    features=features.FeatureConfig(model=str(tiny.encoder), max_tokens=64),
    shard_pairs=128,
  )


def _workdir(path: pathlib.Path) -> workdir_lib.Workdir:
  return workdir_lib.Workdir(epath.Path(path), runtime.provenance())


@pytest.fixture(scope='module')
def trained(config, tmp_path_factory):
  path = tmp_path_factory.mktemp('trained')
  return path, train_stage.run(_workdir(path), config)


def test_the_program_prints_what_the_stage_wrote(
  config, trained, launch, tmp_path
):
  done = launch(
    'train_reward',
    '--config=configs/train_reward.py',
    f'--workdir={tmp_path}',
    f'--config.pairs.path={config.pairs.path}',
    f'--config.features.model={config.features.model}',
    '--config.features.max_tokens=64',
    '--config.shard_pairs=128',
  )
  assert done.returncode == 0, done.stderr
  path, metrics = trained
  written = tmp_path / 'reward' / 'metrics.json'
  assert written.read_bytes() == (path / 'reward/metrics.json').read_bytes()
  held_out = metrics['held_out']
  assert f'{held_out["accuracy"]:.3f}' in done.stdout
  assert f'{held_out["lo"]:.3f} to {held_out["hi"]:.3f}' in done.stdout


def test_held_out_pairs_are_ranked(trained):
  _, metrics = trained
  held_out = metrics['held_out']
  assert held_out['accuracy'] > 0.8 and held_out['lo'] > 0.7
  assert held_out['prompts'] == 30 and held_out['pairs'] == 60
  assert metrics['train']['pairs'] == 240 > metrics['fit']['pairs']
  assert metrics['longer']['accuracy'] == 1  # A longer one has more z here.
  assert metrics['read'] == {'responses': 600, 'cut': 0}


def test_a_killed_run_keeps_what_it_read(
  config, trained, tmp_path, monkeypatch
):
  read = features.EncoderReader.read
  seen = []

  def dies(self, prompts, texts, advance):
    seen.append(len(prompts))
    if len(seen) == 2:
      raise KeyboardInterrupt
    return read(self, prompts, texts, advance)

  monkeypatch.setattr(features.EncoderReader, 'read', dies)
  with pytest.raises(KeyboardInterrupt):
    train_stage.run(_workdir(tmp_path), config)
  train_stage.run(_workdir(tmp_path), config)
  assert seen == [128, 128, 128, 44]
  path, _ = trained
  for file in (path / 'features' / 'encoder').glob('*.parquet'):
    again = tmp_path / 'features' / 'encoder' / file.name
    assert again.read_bytes() == file.read_bytes()
  ours, theirs = preference_reward.revision(tmp_path), path
  assert ours == preference_reward.revision(theirs)
  train_stage.run(_workdir(tmp_path), config)
  assert len(seen) == 4
  other = train_stage.TrainRewardConfig(
    pairs=config.pairs,
    features=config.features,
    train=bradley_terry.TrainConfig(head='mlp'),
    shard_pairs=config.shard_pairs,
  )
  with pytest.raises(errors.UserError, match='train.head = "linear", now'):
    train_stage.run(_workdir(tmp_path), other)


def test_the_trained_model_scores_as_it_was_evaluated(config, trained):
  path, metrics = trained
  pairs = preference.load(config.pairs)
  reward = preference_reward.load(path)
  counted = []
  found = reward.score(
    [pair.prompt for pair in pairs],
    [[pair.chosen, pair.rejected] for pair in pairs],
    lambda num_done, positions: counted.append((num_done, positions)),
  )
  assert sum(num for num, _ in counted) == 600 and reward.num_cut == 0
  margin_I = np.array([chosen - rejected for chosen, rejected in found])
  prompts = np.array([pair.prompt for pair in pairs])
  train_I = preference.train_mask(prompts, 0, 0.2)
  again = preference.accuracy(margin_I[~train_I], prompts[~train_I])
  assert again == metrics['held_out']
  one = reward.score([pairs[0].prompt], [[pairs[0].rejected]])
  np.testing.assert_allclose(one[0], found[0][1:], atol=1e-5)


def test_another_network_or_unfinished_training_is_refused(trained, tmp_path):
  with pytest.raises(errors.UserError, match='not complete'):
    preference_reward.load(tmp_path)
  path, _ = trained
  manifest = path / 'reward' / 'manifest.json'
  before = manifest.read_bytes()
  value = store.read_json(manifest)
  value['identity']['features']['revision'] = '0' * 64
  store.write_json(manifest, value)
  with pytest.raises(errors.UserError, match='trained on revision 0000'):
    preference_reward.load(path)
  manifest.write_bytes(before)
