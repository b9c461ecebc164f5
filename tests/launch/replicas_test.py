"""Replicas with a share of the shards each: the bytes of one process."""

import pytest

from erp_jax.core import audit, store
from erp_jax.report import status
from tests import tiny as tiny_lib
from tests.launch import groups

_FLAGS = ['--config.sample.shard_prompts=2']


def _replicas(stage, tiny, workdir, numbers):
  """Some of four replicas of a stage, at work."""
  shared = [*tiny.flags(workdir), *_FLAGS, '--config.runtime.replicas=4']
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


@pytest.mark.slow
def test_four_replicas_make_what_one_process_makes(tiny, launch, tmp_path):
  """One of them is killed while it samples, and comes back later."""
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

  for stage, numbers in (
    *(('sample', [1]), ('score', range(4)), ('embed', range(4))),
  ):
    replicas = _replicas(stage, tiny, run, numbers)
    assert not any(replicas.codes()), replicas.said()
  assert _sampled(run).state == status.DONE
  for stage in ('sample', 'score', 'embed', 'fit', 'route'):
    for workdir in (one, run):  # In the second there is nothing left to make.
      done = launch(stage, *tiny.flags(workdir), *_FLAGS)
      assert done.returncode == 0, done.stderr
  wanted = tiny_lib.promised(one)
  assert 'routes/judge/metrics.json' in wanted
  assert tiny_lib.promised(run) == wanted
  manifests = [store.read_manifest(w / 'responses/terse') for w in (one, run)]
  for manifest in manifests:
    del manifest['provenance']
  assert manifests[0] == manifests[1]
  assert not [x for x in audit.audit(run, {}) if x.state in audit.WRONG]
  assert not list(run.rglob('.tmp-*'))


@pytest.mark.slow
@pytest.mark.parametrize(
  'binary, flags, words',
  [
    ('fit', ['replicas=2'], 'launch.fit is for one process'),
    ('pipeline', ['hosts=2'], 'launch.pipeline is for one process'),
    ('sample', ['replicas=2', 'replica=2'], 'must be 0 to'),
  ],
)
def test_what_replicas_cannot_do_is_one_line(
  binary, flags, words, tiny, launch, tmp_path
):
  flags = [f'--config.runtime.{flag}' for flag in flags]
  done = launch(binary, *tiny.flags(tmp_path / 'run'), *flags)
  assert done.returncode == 1
  assert words in done.stderr.strip().splitlines()[-1]
  assert 'Traceback' not in done.stderr
