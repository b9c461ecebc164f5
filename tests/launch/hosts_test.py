"""A model over several hosts: the results of one; tests/faults kills some."""

import json
import sys

import numpy as np
import pytest
from etils import epath

from erp_jax.core import locks, store
from tests import tiny as tiny_lib
from tests.launch import group_logits, groups

_FLAGS = [
  *('--config.sample.dtype=float32', '--config.sample.shard_prompts=2'),
  *(f'--config.rewards.{r}.dtype=float32' for r in ('judge', 'relevance')),
]
_MESH = ['--config.runtime.model=4']
_GROUP_STAGES = ('sample', 'score', 'embed')
_FOLDERS = {
  'reward': [
    f'rewards/{reward}/{arm}'
    for reward in ('judge', 'relevance', 'verify')
    for arm in ('terse', 'steps')
  ],
  'embedding': ['embeddings/encoder'],
}


@pytest.fixture(scope='module')
def one(tiny, launch, tmp_path_factory):
  """A run of single processes with one device each."""
  workdir = tmp_path_factory.mktemp('one')
  for stage in (*_GROUP_STAGES, 'fit', 'route'):
    done = launch(stage, *tiny.flags(workdir), *_FLAGS)
    assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture(scope='module')
def grouped(tiny, tmp_path_factory):
  """The same by groups of two hosts; and the groups' logs."""
  workdir = tmp_path_factory.mktemp('grouped')
  logs = tmp_path_factory.mktemp('logs')
  for stage in _GROUP_STAGES:
    flags = [*tiny.flags(workdir), *_FLAGS, *_MESH]
    with groups.started(stage, flags, logs / stage) as group:
      assert group.codes() == [0, 0], group.said()
  return workdir, logs


def _values(workdir, folder, column):
  return np.array(store.read_table(workdir / folder)[column].to_pylist())


@pytest.mark.slow
def test_a_group_makes_what_one_process_makes(one, grouped, tiny, launch):
  workdir, logs = grouped
  for arm in ('terse', 'steps'):  # Each token that was drawn.
    folder = f'responses/{arm}'
    assert store.read_table(workdir / folder) == store.read_table(one / folder)
  for column, folders in _FOLDERS.items():
    for folder in folders:
      want, got = (_values(w, folder, column) for w in (one, workdir))
      # NaN is an empty response's; verify's is 0 or 1.
      assert np.nanstd(want) > 0 or 'verify' in folder
      np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  for stage in ('fit', 'route'):
    done = launch(stage, *tiny.flags(workdir), *_FLAGS)
    assert done.returncode == 0, done.stderr
  for reward in ('judge', 'relevance', 'verify'):
    want, got = (
      json.loads((w / 'routes' / reward / 'metrics.json').read_text())
      for w in (one, workdir)
    )
    assert want.keys() == got.keys()
  sampled = [(logs / 'sample' / f'host-{i}.log').read_text() for i in (0, 1)]
  assert 'sample terse: ' in sampled[0]
  assert 'sample terse: ' not in sampled[1]
  records = list((workdir / 'processes').glob('sample-*'))
  assert len(records) == 1


@pytest.mark.slow
def test_a_missing_host_is_told_of(tiny, tmp_path):
  """Each waits for the other, which is not started."""
  missed = []
  for host in (0, 1):
    flags = [
      *(*tiny.flags(tmp_path / 'run'), *_MESH),
      *('--config.runtime.hosts=2', f'--config.runtime.host={host}'),
      f'--config.runtime.coordinator={groups.coordinator()}',
      '--config.runtime.join_secs=4',
    ]
    missed.append(
      groups.Group(
        [tiny_lib.command('embed', *flags)],
        tmp_path / f'logs-{host}',
        [groups.DEVICES],
      )
    )
  for group in missed:
    assert group.codes() == [1], group.said()
    assert 'joined the group within 4 s' in group.last_line(0), group.said()
    assert 'started on all 2 hosts?' in group.last_line(0)
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_what_the_first_host_refuses_ends_all(tiny, tmp_path):
  flags = [*tiny.flags(tmp_path / 'run'), *_MESH]
  folder = epath.Path(tmp_path / 'run' / 'embeddings' / 'encoder')
  folder.mkdir(parents=True)
  with (
    locks.held(folder),
    groups.started('embed', flags, tmp_path / 'logs') as group,
  ):
    assert group.codes() == [1, 1], group.said()
    for host in (0, 1):
      assert 'is being written by another process' in group.last_line(host)


@pytest.mark.slow
def test_hosts_that_would_make_different_things_are_refused(tiny, tmp_path):
  flags = [
    *(*tiny.flags(tmp_path / 'run'), *_MESH, '--config.runtime.hosts=2'),
    f'--config.runtime.coordinator={groups.coordinator()}',
  ]
  commands = [
    tiny_lib.command(
      *('embed', *flags, f'--config.runtime.host={i}'),
      f'--config.embed.max_tokens={64 - i}',
    )
    for i in (0, 1)
  ]
  group = groups.Group(commands, tmp_path / 'logs', [groups.DEVICES] * 2)
  assert group.codes() == [1, 1], group.said()
  for host in (0, 1):
    words = 'would be made otherwise by another host of this group'
    assert words in group.last_line(host), group.said()


@pytest.mark.slow
def test_a_mesh_without_all_devices_is_refused(tiny, tmp_path):
  flags = [*tiny.flags(tmp_path / 'run'), '--config.runtime.model=2']
  with groups.started('embed', flags, tmp_path / 'logs') as group:
    assert group.codes() == [1, 1], group.said()
    for host in (0, 1):
      words = 'is 1 x 2, but the 2 hosts of this group have 4 devices'
      assert words in group.last_line(host)


def _srun(num_tasks: int) -> list[dict[str, str]]:
  """What srun sets for each of its tasks, and the port at which they meet."""
  shared = groups.DEVICES | {
    'SLURM_JOB_ID': '1',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': f'{num_tasks}',
    'SLURM_LOCALID': '0',
    'JAX_COORDINATOR_PORT': groups.coordinator().rpartition(':')[2],
  }
  return [shared | {'SLURM_PROCID': f'{i}'} for i in range(num_tasks)]


@pytest.mark.slow
def test_slurm_tells_who_takes_part(grouped, tiny, tmp_path):
  flags = [*tiny.flags(tmp_path / 'run'), '--config.runtime.hosts=2', *_MESH]
  command = tiny_lib.command('embed', *flags)
  group = groups.Group([command] * 2, tmp_path / 'logs', _srun(2))
  assert group.codes() == [0, 0], group.said()
  wanted = tiny_lib.promised(grouped[0] / 'embeddings')
  assert tiny_lib.promised(tmp_path / 'run' / 'embeddings') == wanted


@pytest.mark.parametrize(
  'env, words',
  [
    (_srun(1)[0], 'runtime.hosts is 2, but this is one of 1 processes'),
    ({}, 'no group of 2 hosts is formed'),
  ],
)
@pytest.mark.slow
def test_what_the_cluster_says_is_checked(env, words, tiny, launch, tmp_path):
  flags = [*tiny.flags(tmp_path), '--config.runtime.hosts=2']
  done = launch('embed', *flags, **env)
  assert done.returncode == 1
  assert words in done.stderr.strip().splitlines()[-1], done.stderr


@pytest.mark.slow
def test_logits_of_four_hosts_are_those_of_one(tiny, tmp_path):
  command = [
    *(sys.executable, '-m', 'tests.launch.group_logits'),
    *(str(tiny.decoder), str(tmp_path), groups.coordinator()),
  ]
  hosts = range(group_logits.HOSTS)
  commands = [[*command, f'{i}'] for i in hosts]
  group = groups.Group(commands, tmp_path, [groups.DEVICES] * len(hosts))
  assert not any(group.codes()), group.said()
  want_BTV = group_logits.logits(str(tiny.decoder))
  assert want_BTV.std() > 1
  for i in hosts:
    got_BTV = np.load(tmp_path / f'{i}.npy')
    np.testing.assert_allclose(got_BTV, want_BTV, rtol=1e-5, atol=1e-5)
