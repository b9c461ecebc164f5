"""Stored rewards become targets, whatever is missing."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.probe import rewards

_NAN = float('nan')


def _write(run, arm, rows, reward='rm'):
  table = pa.table(
    {
      'prompt_id': [row[0] for row in rows],
      'k': pa.array([row[1] for row in rows], pa.int32()),
      'reward': pa.array([row[2] for row in rows], pa.float32()),
    }
  )
  _write_table(run / rewards.folder(reward, arm), table)


def _write_table(folder, table):
  artifact = store.Artifact(folder, {}, 1)
  with artifact.writer({'versions': {}}) as writer:
    writer.write_shard(0, table)
    writer.finish()


def _write_responses(run, arm, rows):
  prompt_id, k, text, finish_reason = zip(*rows, strict=True)
  table = pa.table(
    {
      'prompt_id': prompt_id,
      'k': pa.array(k, pa.int32()),
      'text': text,
      'finish_reason': finish_reason,
    }
  )
  _write_table(run / 'responses' / arm, table)


@pytest.fixture
def run(tmp_path):
  """Arms a and b, prompts p and q, two responses each; b's last is missing."""
  run = epath.Path(tmp_path)
  _write_responses(
    run,
    'a',
    [
      ('p', 0, 'One.', 'stop'),
      ('p', 1, '', 'stop'),
      ('q', 0, 'I cannot help with it.', 'stop'),
      ('q', 1, 'Four, fi', 'length'),
    ],
  )
  _write_responses(
    run,
    'b',
    [
      ('q', 0, ' ', 'length'),
      ('p', 1, 'Six.', 'stop'),
      ('p', 0, 'Seven.', 'stop'),
      ('q', 1, 'Eight.', 'stop'),
    ],
  )
  _write(run, 'a', [('p', 0, 1), ('p', 1, 2), ('q', 0, 3), ('q', 1, 4)])
  _write(run, 'b', [('q', 0, _NAN), ('p', 1, 6), ('p', 0, float('inf'))])
  few = [('p', 0, 0.5), ('q', 0, 0.25)]  # One response each.
  _write(run, 'a', few, 'few')
  _write(run, 'b', few, 'few')
  return run


def _read(run, names=('rm', 'few'), **cfg):
  return rewards.read_samples(
    run, names, ('b', 'a'), ('q', 'p'), rewards.ReaderConfig(**cfg)
  )


def test_means_over_what_each_arm_has(tmp_path):
  run = epath.Path(tmp_path)
  nan = _NAN
  _write(run, 'a', [('p', 0, 1.0), ('p', 1, 2.0), ('q', 0, 5.0), ('q', 1, nan)])
  _write(run, 'b', [('q', 0, nan), ('p', 0, 4.0)])  # K = 1, another order.
  target = rewards.read(run, 'rm', ('b', 'a'), ('q', 'p'))
  np.testing.assert_array_equal(target.mean_NM, [[nan, 5.0], [4.0, 1.5]])
  np.testing.assert_array_equal(target.num_NM, [[0, 1], [1, 2]])
  np.testing.assert_array_equal(target.num_not_finite_M, [1, 1])


def test_samples_stand_where_they_belong_and_are_scored_as_they_are(run):
  samples = _read(run)
  np.testing.assert_array_equal(
    samples.reward_NKM['rm'],
    [[[_NAN, 3], [_NAN, 4]], [[_NAN, 1], [6, 2]]],
  )
  np.testing.assert_array_equal(
    samples.reward_NKM['few'], [[[0.25, 0.25]], [[0.5, 0.5]]]
  )
  assert samples.counts == {'rm_not_finite': 2, 'few_not_finite': 0}


def test_flags_are_of_all_responses(run):
  flag_NKM = _read(run).flag_NKM
  where = {name: np.argwhere(flag).tolist() for name, flag in flag_NKM.items()}
  assert where == {
    'refusal': [[0, 0, 1]],
    'empty': [[0, 0, 0], [1, 1, 1]],
    'cut': [[0, 0, 0], [0, 1, 1]],
  }


def test_a_floor_is_of_one_reward_model(run):
  samples = _read(run, floors={'rm': -9.0})
  np.testing.assert_array_equal(
    samples.reward_NKM['rm'],
    [[[-9, 3], [_NAN, 4]], [[-9, 1], [6, -9]]],  # One was never scored.
  )
  assert samples.counts == {
    'rm_not_finite': 2,
    'rm_floored': 3,
    'few_not_finite': 0,
  }
  few = _read(run).reward_NKM['few']
  np.testing.assert_array_equal(samples.reward_NKM['few'], few)


@pytest.mark.parametrize(
  ('floored', 'expected'),
  [
    (('not_finite',), [[[-9, 3], [_NAN, 4]], [[-9, 1], [6, 2]]]),
    (('empty',), [[[-9, 3], [_NAN, 4]], [[_NAN, 1], [6, -9]]]),
    (('cut',), [[[-9, 3], [_NAN, -9]], [[_NAN, 1], [6, 2]]]),
    (('refusal',), [[[_NAN, -9], [_NAN, 4]], [[_NAN, 1], [6, 2]]]),
    ((), [[[_NAN, 3], [_NAN, 4]], [[_NAN, 1], [6, 2]]]),
  ],
)
def test_what_gets_the_floor_is_a_choice(run, floored, expected):
  samples = _read(run, floors={'rm': -9.0}, floored=floored)
  np.testing.assert_array_equal(samples.reward_NKM['rm'], expected)


def test_a_floor_for_fewer_scored_than_sampled(run):
  few = _read(run, floors={'few': -1.0}).reward_NKM['few']
  np.testing.assert_array_equal(few, [[[-1, 0.25]], [[0.5, 0.5]]])


def test_a_response_that_was_never_scored_gets_no_floor(run):
  floored = {'floors': {'rm': -9.0}, 'floored': ('empty', 'cut')}
  _write(run, 'c', [('p', 0, 1)])
  _write_responses(run, 'c', [('p', 0, 'One.', 'stop'), ('p', 1, '', 'length')])
  samples = rewards.read_samples(
    run, ('rm',), ('c', 'a'), ('p', 'q'), rewards.ReaderConfig(**floored)
  )
  np.testing.assert_array_equal(
    samples.reward_NKM['rm'], [[[1, 1], [_NAN, -9]], [[_NAN, 3], [_NAN, -9]]]
  )


def test_wrong_settings_are_named(run):
  with pytest.raises(errors.UserError, match="floors names 'fwe'.*few"):
    _read(run, floors={'fwe': 0.0})
  with pytest.raises(errors.UserError, match='floors.rm is nan'):
    rewards.ReaderConfig(floors={'rm': _NAN})
  with pytest.raises(errors.UserError, match="'long'; allowed: not_finite"):
    rewards.ReaderConfig(floored=('long',))
