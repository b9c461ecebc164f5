"""Events of a process: what is written, what survives, who hears of it."""

import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import events, progress, store

_GAUGES = {'host_gib': 1.5}
# Writes events until it is killed.
_WRITER = """
import itertools, pathlib, sys
from erp_jax.core import events
lines = events.Lines(pathlib.Path(sys.argv[1]), dict)
with events.handled([lines]):
  for i in itertools.count():
    events.emit('tick', {'i': i, 'text': 'x' * 200})
    if i == 1000:
      sys.stdout.write('written')
      sys.stdout.flush()
"""


@pytest.fixture
def file(tmp_path):
  """A file that gets the events of the test."""
  path = tmp_path / 'events.jsonl'
  with events.handled([events.Lines(path, lambda: _GAUGES)]):
    yield path


def _told(file, kind=None):
  return [e for e in events.read(file) if kind in (None, e['event'])]


def test_events_are_lines_of_json(file):
  events.emit('start', {'pid': 3, 'text': 'é\n'})
  thread = threading.Thread(target=events.emit, args=('tick', {'i': 1}))
  thread.start()
  thread.join()
  first, second = [json.loads(x) for x in file.read_text().splitlines()]
  assert first.pop('time') <= second.pop('time')
  assert first == {'event': 'start', 'pid': 3, 'text': 'é\n'}
  assert second == {'event': 'tick', 'i': 1}
  assert events.read(file)[1]['i'] == 1


def test_without_a_handler_nothing_is_done(caplog, tmp_path):
  caplog.set_level(logging.INFO)
  file = tmp_path / 'a.jsonl'
  with events.handled([events.Lines(file, dict)]):
    events.emit('in', {})
  events.emit('after', {})
  assert [e['event'] for e in events.read(file)] == ['in']
  assert not caplog.records


def test_a_kill_loses_no_line(tmp_path):
  file = tmp_path / 'a.jsonl'
  with subprocess.Popen(
    [sys.executable, '-c', _WRITER, str(file)], stdout=subprocess.PIPE
  ) as process:
    assert process.stdout.read(7) == b'written'
    process.send_signal(signal.SIGKILL)
  found = events.read(file)
  assert len(found) > 1000
  assert [e['i'] for e in found] == list(range(len(found)))


def test_half_a_line_is_not_read(file):
  events.emit('whole', {})
  with file.open('a') as f:
    f.write('{"time": 1, "event": "ha')
  assert [e['event'] for e in events.read(file)] == ['whole']


def test_a_full_disk_ends_the_events_alone(caplog, tmp_path):
  caplog.set_level(logging.WARNING, logger='erp_jax')
  os.symlink('/dev/full', tmp_path / 'a.jsonl')
  with events.handled([events.Lines(tmp_path / 'a.jsonl', dict)]):
    events.emit('a', {})
    events.emit('b', {})
  (record,) = caplog.records
  assert 'no more events in' in record.getMessage()


class _Full(logging.Handler):
  """Finds the disk full when it is closed."""

  def emit(self, record):
    pass

  def close(self):
    super().close()
    with open('/dev/full', 'w') as f:
      f.write('x')


def test_what_cannot_be_closed_is_told_and_no_more(caplog, file, tmp_path):
  lines = events.Lines(tmp_path / 'b.jsonl', dict)
  with events.handled([_Full(), lines]):
    events.emit('a', {})
  assert lines._file == events._CLOSED
  (record,) = (r for r in caplog.records if r.levelno == logging.WARNING)
  assert 'No space left' in record.getMessage()


def test_writers_tell_of_their_shards(file, tmp_path):
  artifact = store.Artifact(epath.Path(tmp_path / 'responses/a'), {'k': 1}, 2)
  with artifact.writer({'versions': {}}) as writer:
    writer.write_shard(1, pa.table({'x': [1, 2, 3]}), {'tokens': 7})
  with pytest.raises(KeyError), artifact.writer({'versions': {}}):
    raise KeyError('weights')
  begin, shard, end, again, failure = _told(file)
  assert begin['event'] == again['event'] == 'begin'
  assert begin['artifact'] == str(artifact.path) and begin['num_shards'] == 2
  assert shard['event'] == 'shard' and shard['index'] == 1
  assert shard['rows'] == 3 and shard['counts'] == {'tokens': 7}
  size = (artifact.path / artifact.shard_name(1)).stat().length
  assert shard['bytes'] == size
  assert end['event'] == 'end' and 0 <= end['secs'] < 600
  assert failure['event'] == 'failure' and failure['error'] == "'weights'"


def test_progress_is_told_at_first_and_at_the_end(file, monkeypatch):
  now = [5.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  with progress.track('sample a', 100, 'tokens') as advance:
    advance(0)
    advance(10, busy=6, slots=8)
    now[0] = 14.0
    advance(20, skipped=60, busy=1, slots=2)
  first, last = _told(file, 'progress')
  assert first['what'] == 'sample a' and first['unit'] == 'tokens'
  assert (first['done'], first['total']) == (10, 100)
  assert first['slots_busy'] == 0.75 and last['slots_busy'] == 0.7
  assert (last['done'], last['total']) == (30, 40)
  assert (last['secs'], last['rate']) == (9, pytest.approx(30 / 9))
  # 30 were done and 60 were spared in 9 s, so 10 take a second.
  assert last['secs_left'] == pytest.approx(1)


def test_usage_is_measured_by_who_writes(file):
  assert events.usage() == _GAUGES


def test_memory_is_that_of_the_process():
  told = pathlib.Path('/proc/self/status').read_text()
  (kib,) = re.findall(r'VmRSS:\s+(\d+) kB', told)
  expected = int(kib) / 2**20
  assert events.usage()['host_gib'] == pytest.approx(expected, rel=0.1)
