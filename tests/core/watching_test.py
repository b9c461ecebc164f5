"""What a watched process leaves: events, and scalars for TensorBoard."""

import builtins
import subprocess
import sys

import pytest
from etils import epath
from tensorboard.backend.event_processing import event_accumulator

from erp_jax.core import (
  errors,
  events,
  progress,
  runtime,
  tensorboard,
  watching,
  workdir,
)


@pytest.fixture(scope='module')
def counter():
  return runtime.CompileCounter()


def _watched(folder, counter, **fields):
  place = workdir.Workdir(epath.Path(folder), {'versions': {'jax': '1'}})
  cfg = runtime.RuntimeConfig(**fields)
  return watching.watched(place, ('launch.sample', '--x=1'), cfg, counter)


def test_a_process_tells_from_its_start_to_its_end(tmp_path, counter):
  with _watched(tmp_path, counter):
    assert events.usage()['programs'] == counter.programs
  (file,) = (tmp_path / 'events').iterdir()
  start, usage, end = events.read(file)
  assert file.name.startswith('sample-')
  assert file.name.endswith(f'-{start["pid"]}.jsonl')
  assert start['command'] == ['launch.sample', '--x=1']
  assert start['versions'] == {'jax': '1'}
  assert start['workdir'] == str(tmp_path)
  assert usage['event'] == 'usage' and 0.01 < usage['host_gib'] < 100
  assert end['event'] == 'exit'
  assert [path.name for path in tmp_path.iterdir()] == ['events']


def test_what_is_raised_is_told(tmp_path, counter):
  with pytest.raises(ZeroDivisionError), _watched(tmp_path, counter):
    raise ZeroDivisionError('by\nzero')
  (file,) = (tmp_path / 'events').iterdir()
  last = events.read(file)[-1]
  assert last['event'] == 'failure' and last['kind'] == 'ZeroDivisionError'
  assert last['error'] == 'by'


def test_into_a_bucket_all_is_brought(door, tmp_path, counter):
  target = epath.Path(f'gs://runs{tmp_path}')
  with (
    _watched(target, counter, tensorboard=True),
    progress.track('sample a', 10, 'tokens') as advance,
  ):
    advance(10)
  (file,) = (target / 'events').iterdir()
  assert [e['event'] for e in events.read(file)] == [
    *('start', 'progress', 'progress', 'usage', 'exit')
  ]
  (folder,) = (target / 'tensorboard').iterdir()
  assert [f.name.split('.')[0] for f in folder.iterdir()] == ['events']


def test_a_bucket_that_fails_does_not_end_the_run(door, tmp_path, counter):
  door.failing, door.code = 10**6, 403
  with _watched(f'gs://runs{tmp_path}', counter):
    pass
  assert door.refused


def test_tensorboard_reads_the_scalars(tmp_path, counter):
  with (
    _watched(tmp_path, counter, tensorboard=True),
    progress.track('sample a/b', 100, 'tokens') as advance,
  ):
    advance(40, busy=3, slots=4)
    advance(20)
  (folder,) = (tmp_path / 'tensorboard').iterdir()
  (file,) = (tmp_path / 'events').iterdir()
  assert folder.name == file.name.removesuffix('.jsonl')
  found = event_accumulator.EventAccumulator(str(folder)).Reload()
  assert 'usage/host_gib' in found.Tags()['scalars']
  done = [s.value for s in found.Scalars('sample_a_b/done')]
  assert done == [40, 60]
  busy = found.Scalars('sample_a_b/slots_busy')
  told = [e for e in events.read(file) if e['event'] == 'progress']
  assert [s.value for s in busy] == [0.75, 0.75]
  assert [s.wall_time for s in busy] == [e['time'] for e in told]


# Scalars of a file that may have 8 KiB.
_LIMITED = """
import pathlib, resource, sys
from erp_jax.core import events, tensorboard
scalars = tensorboard.Scalars(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
with events.handled([scalars]):
  for i in range(2000):
    events.emit('usage', {'host_gib': 1.5})
"""


def test_a_full_disk_ends_the_scalars_alone(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', _LIMITED, str(tmp_path / 'scalars')],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  said, *more = done.stderr.splitlines()
  assert said.startswith(f'no more scalars in {tmp_path}/scalars: ')
  # Of what the file had not written, from Python 3.13 on.
  assert not more or more[0].startswith('Exception ignored in: <_io.Buffered')


def test_without_the_package_one_line_names_the_extra(
  tmp_path, counter, monkeypatch
):
  real = builtins.__import__

  def importing(name, *args):
    if name == 'tensorboardX':
      raise ImportError(name)
    return real(name, *args)

  monkeypatch.setattr(builtins, '__import__', importing)
  with (
    pytest.raises(errors.UserError, match=r'erp_jax\[tensorboard\]'),
    _watched(tmp_path, counter, tensorboard=True),
  ):
    pass
  with pytest.raises(errors.UserError, match='runtime.tensorboard needs'):
    tensorboard.Scalars(tmp_path)


def test_a_trace_of_less_than_nothing_is_refused():
  with pytest.raises(errors.UserError, match='runtime.profile must be >= 0'):
    runtime.RuntimeConfig(profile=-1)
