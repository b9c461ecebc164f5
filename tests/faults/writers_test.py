"""Two writers of one artefact, and locks of processes that were killed."""

import pytest
from etils import epath

from erp_jax.core import locks
from tests.faults import runs

pytestmark = pytest.mark.faults


def test_the_second_writer_is_refused_and_no_lock_outlives_the_first(
  tiny, launch, finished, tmp_path, tally
):
  """The first is held still while it has the lock."""
  workdir = tmp_path / 'run'
  folder = epath.Path(workdir) / 'responses' / 'terse'
  flags = tiny.flags(workdir)
  with runs.Running('sample', [*flags, '--arms=terse'], workdir) as first:
    while not locks.is_held(folder):
      assert first.process.poll() is None, first.said()
    first.hold()
    before = runs.shards(workdir)
    second = launch('sample', *flags, '--arms=terse')
    assert second.returncode == 1 and 'Traceback' not in second.stderr
    last = second.stderr.splitlines()[-1]
    assert f'{folder} is being written by another process: wait for it' in last
    other = launch('sample', *flags, '--arms=steps')
    assert other.returncode == 0, other.stderr
    assert locks.is_held(folder)
    tally('two writers of one artefact, and one of another')
  # Leaving killed it.
  assert not locks.is_held(folder)
  lost = runs.num_lost(before, runs.shards(workdir))
  again = launch('sample', *flags)
  assert again.returncode == 0, again.stderr
  assert len(runs.shards(workdir)) == 6
  differ = runs.num_altered(workdir, finished)
  tally('lock of a process that was killed', lost, differ)
  assert lost == differ == 0
