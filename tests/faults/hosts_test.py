"""Hosts of a group and replicas that die: the others end, or go on."""

import os
import signal

import pytest

from erp_jax.core import audit, preemption, store
from erp_jax.report import status
from tests import tiny as tiny_lib
from tests.faults import runs
from tests.launch import groups

pytestmark = pytest.mark.faults

_SHARDS = ['--config.sample.shard_prompts=2']
_GROUP = [
  *('--config.sample.dtype=float32', '--config.runtime.model=4', *_SHARDS),
]
_STAGES = ('sample', 'score', 'embed', 'fit', 'route')


def test_a_disturbed_group_ends_and_goes_on(tiny, tmp_path, tally):
  calm, workdir = tmp_path / 'calm', tmp_path / 'run'
  with groups.started(
    'sample', [*tiny.flags(calm), *_GROUP], tmp_path / 'logs'
  ) as group:
    assert group.codes() == [0, 0], group.said()
  flags = [*tiny.flags(workdir), *_GROUP]
  seen = [0]

  def disturbed(disturb):
    logs = tmp_path / f'{len(seen)}'
    with groups.started('sample', flags, logs) as group:
      group.wait_for(lambda: len(runs.shards(workdir)) > seen[-1])
      disturb(group)
      codes = group.codes()
      seen.append(len(runs.shards(workdir)))
      return codes, [group.last_line(i) for i in (0, 1)]

  codes, said = disturbed(lambda group: group.hosts[1].terminate())
  assert codes == [preemption.EXIT_CODE] * 2, said
  assert all('SIGTERM' in line for line in said)

  codes, said = disturbed(lambda g: os.kill(g.child(1), signal.SIGKILL))
  assert codes == [preemption.EXIT_CODE, 128 + signal.SIGKILL], said
  assert 'lost a host of this group of 2' in said[0]
  assert 'the same command on all' in said[0]
  assert 'ended by SIGKILL' in said[1]

  # The first host, at whose address they meet, and by its parent.
  codes, said = disturbed(lambda group: group.hosts[0].kill())
  assert codes == [-signal.SIGKILL, preemption.EXIT_CODE], said
  assert 'lost a host of this group of 2' in said[1]

  assert 0 < seen[1] < seen[-1] < 12
  before = runs.shards(workdir)
  with groups.started('sample', flags, tmp_path / 'last') as group:
    assert group.codes() == [0, 0], group.said()
  lost = runs.num_lost(before, runs.shards(workdir))
  wanted, found = (tiny_lib.promised(w / 'responses') for w in (calm, workdir))
  differ = runs.num_different(found, wanted)
  for fault in ('SIGTERM to a host', 'a host killed', 'the first host killed'):
    tally(f'{fault} of a group of two', lost, differ)
  assert lost == differ == 0


def _replicas(stage, tiny, workdir, numbers):
  """Some of four replicas of a stage, at work."""
  shared = [*tiny.flags(workdir), *_SHARDS, '--config.runtime.replicas=4']
  commands = [
    tiny_lib.command(stage, *shared, f'--config.runtime.replica={i}')
    for i in numbers
  ]
  logs = workdir.with_name(f'{stage}-{"".join(map(str, numbers))}')
  return groups.Group(commands, logs)


def _sampled(workdir):
  """What the status says of the first arm that is sampled."""
  parts = {(p.stage, p.name): p for p in status.read(workdir).parts}
  return parts['sample', 'terse']


def test_a_killed_replica_comes_back_to_the_bytes_of_one_process(
  tiny, launch, tmp_path, tally
):
  one, run = tmp_path / 'one', tmp_path / 'run'
  replicas = _replicas('sample', tiny, run, range(4))
  lock = run / 'responses' / 'terse' / '.replica-1-of-4.lock'
  replicas.wait_for(lock.exists)
  replicas.hosts[1].kill()
  assert replicas.codes() == [0, -9, 0, 0], replicas.said()
  for i in (0, 2, 3):
    assert 'rror' not in replicas.said(i)
    assert 'of 6 shards of ' in replicas.said(i)  # Two of them wait for it.
  found = _sampled(run)
  assert found.state == status.INTERRUPTED
  assert found.missing and set(found.missing) <= {1, 5}
  before = runs.shards(run)

  for stage, numbers in (
    *(('sample', [1]), ('score', range(4)), ('embed', range(4))),
  ):
    replicas = _replicas(stage, tiny, run, numbers)
    assert not any(replicas.codes()), replicas.said()
  assert _sampled(run).state == status.DONE
  for stage in _STAGES:
    for workdir in (one, run):  # In the second there is nothing left to make.
      done = launch(stage, *tiny.flags(workdir), *_SHARDS)
      assert done.returncode == 0, done.stderr
  wanted, made = (tiny_lib.promised(w) for w in (one, run))
  assert 'routes/judge/metrics.json' in wanted
  lost = runs.num_lost(before, runs.shards(run))
  differ = runs.num_different(made, wanted)
  tally('one of four replicas killed', lost, differ)
  assert lost == differ == 0
  manifests = [store.read_manifest(w / 'responses/terse') for w in (one, run)]
  for manifest in manifests:
    del manifest['provenance']
  assert manifests[0] == manifests[1]
  assert not [x for x in audit.audit(run, {}) if x.state in audit.WRONG]
  assert not list(run.rglob('.tmp-*'))
