"""Sweeps whose bucket fails for a while."""

import pytest

from erp_jax.core import buckets, process
from launch.sweeps import points, runner


@pytest.fixture
def sweep(door, tmp_path, monkeypatch):
  """Two points of a binary that does nothing, in a bucket."""
  (tmp_path / 'nothing.py').write_text('')
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.setattr(buckets, '_WAIT_SECS', (0.01,))
  for name in runner._RANKS:
    monkeypatch.delenv(name, raising=False)
  named = points.named([['a=1'], ['a=2']])
  return runner.Sweep(named, 'nothing', 'x.py', f'gs://runs{tmp_path}')


def _states(sweep):
  return [sweep.state(point) for point in sweep.points]


def test_a_bad_moment_of_the_bucket_is_not_noticed(sweep, door):
  door.failing = 7  # One more than its client tries.
  assert runner.run_all(sweep) == 0
  assert door.refused == 7
  assert _states(sweep) == [process.DONE] * 2


def test_a_state_that_cannot_be_written_ends_no_sweep(sweep, door, caplog):
  door.failing, door.holding = 10**6, sweep.points[0].name
  assert runner.run_all(sweep) == 1
  assert _states(sweep) == [runner.PENDING, process.DONE]
  told = [r.getMessage() for r in caplog.records if r.levelname == 'ERROR']
  assert len(told) == 2  # It begins, and it ends.
  assert all('cannot write gs://runs/' in line for line in told)
  door.failing = 0
  assert runner.run_all(sweep) == 0
  assert _states(sweep) == [process.DONE] * 2
