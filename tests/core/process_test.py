"""Records of processes tell those that work from those that are gone."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest
from etils import epath

from erp_jax.core import errors, process


def _sleeper():
  return subprocess.Popen(['sleep', '60'])


def test_a_process_runs_until_it_is_killed(tmp_path):
  with _sleeper() as child:
    process.write(tmp_path / 'a.json', process.begun(('sleep',), child.pid))
    record = process.read(tmp_path / 'a.json')
    assert record.command == ('sleep',) and record.pid == child.pid
    assert record.state_now() == process.RUNNING
    child.kill()
    # It is a zombie, of which nothing is left but its number.
    until = time.monotonic() + 30
    while process.start_ticks(child.pid):
      assert time.monotonic() < until
      time.sleep(0.01)
    assert record.state_now() == process.INTERRUPTED
  assert record.state_now() == process.INTERRUPTED


def test_a_number_that_was_given_away_is_another_process():
  record = process.begun(('x',), os.getpid())
  assert record.state_now() == process.RUNNING
  other = dataclasses.replace(record, ticks=record.ticks + 1)
  assert other.state_now() == process.INTERRUPTED
  restarted = dataclasses.replace(other, boot='before', seen=0.0)
  assert restarted.state_now() == process.INTERRUPTED


def test_of_another_host_the_age_of_the_record_tells():
  record = process.begun(('x',), os.getpid())
  away = dataclasses.replace(record, host='elsewhere', pid=2**30)
  assert away.state_now() == process.RUNNING
  late = dataclasses.replace(away, seen=time.time() - process.STALE_SECS - 1)
  assert late.state_now() == process.INTERRUPTED
  assert process.renewed(late).state_now() == process.RUNNING


@pytest.mark.parametrize(
  'raised, state, error',
  [
    (None, process.DONE, ''),
    (ValueError('no such key'), process.FAILED, 'no such key'),
    (KeyError(), process.FAILED, 'KeyError'),
    (KeyboardInterrupt(), process.INTERRUPTED, 'KeyboardInterrupt'),
  ],
)
def test_how_this_process_ended_is_recorded(raised, state, error, tmp_path):
  folder = epath.Path(tmp_path)
  read = lambda: [process.read(file) for file in tmp_path.iterdir()]
  try:
    with process.recorded(folder, ('launch.fit', '--x')):
      (record,) = read()
      assert (record.state, record.pid) == (process.RUNNING, os.getpid())
      if raised:
        raise raised
  except type(raised) as e:
    assert e is raised
  (record,) = read()  # The same file.
  assert (record.state, record.error) == (state, error)
  assert record.code == (state != process.DONE)


def test_a_mistake_leaves_what_was_there(tmp_path):
  mistaken = ('launch.fit', '--arms=typo')
  record = lambda: process.recorded(epath.Path(tmp_path), mistaken)
  with pytest.raises(errors.UserError), record():
    raise errors.UserError('no such arm')
  assert list(tmp_path.iterdir()) == []
  with record():
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    with pytest.raises(errors.UserError), record():
      raise errors.UserError('another process writes it')
    assert file.read_bytes() == before


def test_a_record_is_renewed_while_its_process_works(tmp_path, monkeypatch):
  monkeypatch.setattr(process, '_RENEW_SECS', 0.01)
  with process.recorded(epath.Path(tmp_path), ('launch.fit',)):
    (file,) = (f for f in tmp_path.iterdir() if f.suffix == '.json')
    begin = process.read(file).seen
    until = time.monotonic() + 30
    while process.read(file).seen == begin:
      assert time.monotonic() < until
      time.sleep(0.01)
  record = process.read(file)
  assert (record.state, record.code) == (process.DONE, 0)


def test_two_commands_have_two_records(tmp_path):
  for flag in ('--arms=a', '--arms=b', '--arms=a'):
    with process.recorded(epath.Path(tmp_path), ('launch.fit', flag)):
      pass
  assert len(list(tmp_path.iterdir())) == 2
  assert {f.name[:4] for f in tmp_path.iterdir()} == {'fit-'}


def test_a_process_that_is_killed_leaves_its_record(tmp_path):
  program = (
    'import os, signal, sys\n'
    'from etils import epath\n'
    'from erp_jax.core import process\n'
    'with process.recorded(epath.Path(sys.argv[1]), ("launch.fit",)):\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  done = subprocess.run([sys.executable, '-c', program, str(tmp_path)])
  assert done.returncode == -9
  (file,) = tmp_path.iterdir()
  record = process.read(file)
  assert record.state == process.RUNNING
  assert record.state_now() == process.INTERRUPTED


def test_a_damaged_record_is_named(tmp_path):
  file = tmp_path / 'a.json'
  file.write_text('{"state": "done"}')
  with pytest.raises(errors.UserError, match=r"a\.json lacks 'command'"):
    process.read(file)
