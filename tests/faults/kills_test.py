"""kill -9 and SIGTERM at random moments of every stage lose nothing."""

import random
import re
import signal

import pytest

from erp_jax.core import preemption, process
from tests.faults import runs

pytestmark = pytest.mark.faults


def _disturb(tiny, finished, workdir, rng, number):
  """A signal in each stage in turn; yields (stage, code, stderr, lost)."""
  for stage in runs.STAGES:
    before = runs.shards(workdir)
    found, code, said = runs.stop_at(
      tiny, finished, workdir, stage, rng.random(), number
    )
    after = runs.shards(workdir)
    lost = runs.num_lost(before, after)
    yield found, code, said, lost


def _finish(tiny, finished, workdir) -> int:
  """Runs to the end; how many files are other than undisturbed."""
  before = runs.shards(workdir)
  done = runs.finish(tiny, workdir)
  assert runs.num_lost(before, runs.shards(workdir)) == 0
  assert not [
    *workdir.rglob('.tmp-*'),
    *workdir.rglob('*checkpoint-tmp*'),
  ]
  assert runs.wrong(workdir) == {}
  return runs.num_different(done.promised, finished.promised)


@pytest.mark.parametrize('chain', range(4))
def test_kills_at_random_moments(chain, tiny, finished, seed, tmp_path, tally):
  """In each of nine stages once, so 36 in the four chains."""
  rng = random.Random(f'kill {seed} {chain}')
  workdir = tmp_path / 'run'
  total, killed = 0, []
  for stage, code, said, lost in _disturb(
    tiny, finished, workdir, rng, signal.SIGKILL
  ):
    if stage == runs.ENDED:  # It was done before the moment came.
      continue
    assert code == -signal.SIGKILL, said
    killed.append(stage)
    total += lost
    tally(f'kill -9 in {stage}', lost)
  differ = _finish(tiny, finished, workdir)
  tally('kill -9: a run to its end after nine of them', differ=differ)
  assert total == 0 and differ == 0
  assert len(killed) >= 7  # Of nine, also on a machine whose pace changes.


def test_sigterm_at_random_moments(tiny, finished, seed, tmp_path, tally):
  """The exit code says that the same command goes on, and it does."""
  rng = random.Random(f'term {seed}')
  workdir = tmp_path / 'run'
  total, stopped = 0, []
  for stage, code, said, lost in _disturb(
    tiny, finished, workdir, rng, signal.SIGTERM
  ):
    if stage == runs.ENDED:
      continue
    stopped.append(stage)
    total += lost
    tally(f'SIGTERM in {stage}', lost)
    if stage == 'start' and code == -signal.SIGTERM:
      continue  # Python's imports have no handler yet.
    assert code == preemption.EXIT_CODE, said
    last = said.splitlines()[-1]
    assert 'error: stopped by SIGTERM' in last and 'goes on' in last
    if stage != 'start':
      binary = 'export_router' if stage == 'export_router' else 'pipeline'
      (record,) = (workdir / 'processes').glob(f'{binary}-*.json')
      found = process.read(record)
      assert (found.state, found.code) == (process.INTERRUPTED, 75)
  differ = _finish(tiny, finished, workdir)
  tally('SIGTERM: a run to its end after nine of them', differ=differ)
  assert total == 0 and differ == 0
  assert len(stopped) >= 7


@pytest.mark.parametrize('grace_secs', [100, 0])
def test_sigterm_finishes_the_shard_that_is_being_made(
  grace_secs, tiny, finished, tmp_path, tally
):
  """It is held still between the first shard and the last."""
  workdir = tmp_path / 'run'
  folder = workdir / 'responses' / 'terse'
  count = lambda: len(list(folder.glob('part-*.json')))
  flags = [*tiny.flags(workdir), '--arms=terse']
  grace = f'--config.runtime.grace_secs={grace_secs}'
  with runs.Running('sample', [*flags, grace], workdir) as running:
    while not count():
      assert running.process.poll() is None, running.said()
    running.hold()
    before = count()
    assert before < 3, 'it was too quick to be held'
    running.process.terminate()
    running.process.send_signal(signal.SIGCONT)
    assert running.end() == preemption.EXIT_CODE, running.said()
    said = running.said()
  made = re.search(r'stopped by SIGTERM after (\d) of 3 shards of (.*); ', said)
  assert made[2] == f'{folder}'
  if grace_secs:  # It says what was counted when the signal came.
    heard = re.search(r'SIGTERM: after (\d) of 3 shards', said)
    assert count() == int(made[1]) == int(heard[1]) + 1
  else:  # It may have stood where a shard is written, and not yet counted.
    assert count() == before and int(made[1]) in (before - 1, before)
  with runs.Running('sample', flags, workdir) as running:
    assert running.end() == 0, running.said()
  assert count() == 3
  differ = runs.num_altered(workdir, finished)
  tally('SIGTERM while a shard is made, with and without grace', 0, differ)
  assert differ == 0
