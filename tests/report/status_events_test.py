"""Rates that processes tell, where their files do not tell them yet."""

import json
import math
import os
import time

import pytest

from erp_jax.report import status

_START = {'event': 'start', 'workdir': '/elsewhere/run'}
_BEGIN = {'event': 'begin', 'artifact': '/elsewhere/run/responses/terse'}


def _progress(age, **fields):
  told = {'event': 'progress', 'what': 'sample terse', 'unit': 'tokens'}
  return told | {'time': time.time() - age, **fields}


@pytest.fixture
def run(tmp_path):
  """A run whose one artefact is written by this process."""
  folder = tmp_path / 'responses' / 'terse'
  folder.mkdir(parents=True)
  begun = {'identity': {}, 'versions': {}, 'num_shards': 4}
  identity = folder / 'identity.json'
  identity.write_text(json.dumps(begun))
  os.utime(identity, (time.time() - 1000,) * 2)
  (tmp_path / 'events').mkdir()
  return tmp_path


@pytest.fixture(autouse=True)
def _written(monkeypatch):
  monkeypatch.setattr(status, '_state_of_writer', lambda *_: status.RUNNING)


def _tell(run, *told, name='sample-a-1', end='\n'):
  lines = '\n'.join(json.dumps({'time': 0.0} | event) for event in told)
  (run / 'events' / f'{name}.jsonl').write_text(lines + end)


def _part(run):
  (part,) = status.read(run).parts
  return part


def test_the_last_progress_is_told(run):
  _tell(
    *(run, _START, _BEGIN),
    _progress(30, rate=5.0, secs_left=200.0),
    _progress(15, rate=50.0, secs_left=20.0),
  )
  part = _part(run)
  assert part.state == status.RUNNING
  assert (part.rate, part.unit, part.secs_left) == (50.0, 'tokens', 20.0)


def test_replicas_add_up_and_the_slowest_is_waited_for(run):
  for i, left in enumerate((20.0, 80.0)):
    told = _progress(5, rate=50.0, secs_left=left)
    _tell(run, _START, _BEGIN, told, name=f'sample-a-{i}')
  part = _part(run)
  assert (part.rate, part.secs_left) == (100.0, 80.0)


@pytest.mark.parametrize(
  'told',
  [
    [_START, _BEGIN],
    [_START, _BEGIN, _progress(5)],  # Nothing is done yet.
    [_START, _BEGIN, _progress(600, rate=5.0)],
    [_START, _BEGIN, _progress(5, rate=5.0), _BEGIN | {'event': 'end'}],
    [_START, _BEGIN, _progress(5, rate=5.0), {'event': 'failure'}],
    [_START, _progress(5, rate=5.0)],
    [
      _START,
      {'event': 'begin', 'artifact': '/elsewhere/run/responses/steps'},
      _progress(5, rate=5.0),
    ],
  ],
)
def test_what_is_old_over_or_of_another_is_not_told(run, told):
  _tell(run, *told)
  assert math.isnan(_part(run).rate)


def test_shards_that_are_newer_win(run):
  _tell(run, _START, _BEGIN, _progress(60, rate=5.0, secs_left=1.0))
  folder = run / 'responses' / 'terse'
  for i in range(2):
    (folder / f'part-0000{i}-of-00004.parquet').write_text('')
    record = {'rows': 10, 'counts': {}, 'sha256': ''}
    (folder / f'part-0000{i}-of-00004.json').write_text(json.dumps(record))
  assert _part(run).rate != 5.0


def test_damage_and_half_lines_tell_nothing(run):
  fresh = _progress(5, rate=50.0)
  _tell(run, _START, _BEGIN, fresh, end='\n{"time": 1, "ev')
  assert _part(run).rate == 50.0
  for damage in ('nonsense', '{"time": 1}', '[3]', '{"event": "start"}'):
    _tell(run, _START, _BEGIN, fresh, end=f'\n{damage}\n')
    assert math.isnan(_part(run).rate)


def test_events_that_may_not_be_read_tell_nothing(run):
  (run / 'events' / 'sample-a-1.jsonl').mkdir()  # As of root, who may all.
  assert math.isnan(_part(run).rate)


def test_points_of_a_sweep_are_told_apart(run, tmp_path):
  point = tmp_path / 'k=1'
  point.mkdir()
  for name in ('responses', 'events'):
    (run / name).rename(point / name)
  _tell(point, _START, _BEGIN, _progress(5, rate=50.0))
  part = _part(tmp_path)
  assert (part.point, part.rate) == ('k=1', 50.0)
