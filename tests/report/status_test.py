"""A run's status, of folders and of a bucket, against what was written."""

import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import time

import pyarrow as pa
import pytest
from etils import epath
from rich import console

from erp_jax.core import errors, process, store
from erp_jax.report import status, status_table

_PROVENANCE = {'versions': {}}
_OLD = 10_000.0  # Seconds ago: nobody writes there now.


def _begin(folder, num_shards, done=(), tokens=None, ends='well'):
  """An artefact of which these shards are done."""
  artifact = store.Artifact(folder, {'k': 1}, num_shards)
  raised = RuntimeError('the disk is full') if ends == 'badly' else None
  with (
    contextlib.suppress(RuntimeError),
    artifact.writer(_PROVENANCE) as writer,
  ):
    for i in done:
      counts = {} if tokens is None else {'tokens': tokens}
      writer.write_shard(i, pa.table({'x': [1, 2, 3]}), counts)
    if raised:
      raise raised
    if len(done) == num_shards:
      writer.finish()
  return artifact


def _found(root):
  return {(part.stage, part.name): part for part in status.read(root).parts}


def test_what_is_done_failed_and_waiting(root):
  _begin(root / 'responses' / 'terse', 2, (0, 1))
  _begin(root / 'responses' / 'steps', 5, (0, 1, 3), ends='badly')
  _begin(root / 'rewards' / 'judge' / 'terse', 2, (0, 1))
  _begin(root / 'embeddings' / 'mini', 1, (0,))
  _begin(root / 'routes' / 'judge', 0)
  found = _found(root)
  assert found['sample', 'steps'].error == 'the disk is full'
  assert found['sample', 'steps'].missing == (2, 4)
  assert found['sample', 'steps'].num_shards == 5
  assert {key: part.state for key, part in found.items()} == {
    ('sample', 'terse'): status.DONE,
    ('sample', 'steps'): status.FAILED,
    ('score', 'judge/terse'): status.DONE,
    ('score', 'judge/steps'): status.WAITING,
    ('embed', 'mini'): status.DONE,
    ('route', 'judge'): status.DONE,
  }
  # In the order of the stages.
  stages = [part.stage for part in status.read(root).parts]
  assert stages == ['sample', 'sample', 'embed', 'score', 'score', 'route']


def test_a_failure_is_forgotten_when_it_is_tried_again(tmp_path):
  folder = epath.Path(tmp_path) / 'responses' / 'a'
  _begin(folder, 3, (0,), ends='badly')
  assert status.read(tmp_path).has_failed
  _begin(folder, 3, (1,))
  assert not status.read(tmp_path).has_failed
  # What a person stops has not failed.
  with (
    pytest.raises(KeyboardInterrupt),
    store.Artifact(folder, {'k': 1}, 3).writer(_PROVENANCE),
  ):
    raise KeyboardInterrupt
  assert _found(tmp_path)['sample', 'a'].state == status.INTERRUPTED


def _aged(folder, secs, now):
  """Sets the age of each file to so many seconds, by name."""
  for name, age in secs.items():
    for file in pathlib.Path(folder).glob(name):
      os.utime(file, (now - age,) * 2)


@pytest.fixture
def now(monkeypatch):
  """The time, which stands still."""
  moment = time.time()
  monkeypatch.setattr(time, 'time', lambda: moment)
  return moment


def test_nobody_writes_what_has_no_lock_and_no_failure(tmp_path):
  _begin(epath.Path(tmp_path) / 'responses' / 'a', 3, (0,))
  assert _found(tmp_path)['sample', 'a'].state == status.INTERRUPTED


def test_a_lock_is_seen_and_not_taken(tmp_path):
  folder = epath.Path(tmp_path) / 'responses' / 'a'
  artifact = store.Artifact(folder, {'k': 1}, 3)
  with artifact.writer(_PROVENANCE) as writer:
    part = _found(tmp_path)['sample', 'a']
    assert (part.state, part.shards, part.num_shards) == ('running', 0, 3)
    assert math.isnan(part.rate) and math.isnan(part.secs_left)
    writer.write_shard(0, pa.table({'x': [1]}))
  assert _found(tmp_path)['sample', 'a'].state == status.INTERRUPTED


def test_rates_and_time_left_are_of_the_time_between_shards(tmp_path, now):
  """One pause of an hour, between two starts, among minutes."""
  folder = tmp_path / 'responses' / 'a'
  _begin(epath.Path(folder), 10, range(5), tokens=1200)
  ages = (4000, 3940, 340, 280, 220)
  _aged(
    folder, {f'part-0000{i}-*.json': age for i, age in enumerate(ages)}, now
  )
  part = _found(tmp_path)['sample', 'a']
  assert part.unit == 'tokens' and part.missing == (5, 6, 7, 8, 9)
  assert part.rate == pytest.approx(1200 / 60, rel=1e-3)
  assert part.secs_left == pytest.approx(5 * 60, rel=1e-3)
  rewards = tmp_path / 'rewards' / 'r' / 'a'
  _begin(epath.Path(rewards), 10, range(3))
  _aged(rewards, {f'part-0000{i}-*.json': 30 * i for i in range(3)}, now)
  part = _found(tmp_path)['score', 'r/a']
  assert (part.unit, part.rate) == ('rows', pytest.approx(3 / 30, rel=1e-3))


def test_in_a_bucket_age_tells_what_is_written(root, monkeypatch):
  folder = root / 'responses' / 'a'
  _begin(folder, 3, (0,))
  if '://' not in os.fspath(root):
    (pathlib.Path(folder) / '.lock').unlink()  # As of another machine.
  assert _found(root)['sample', 'a'].state == status.RUNNING
  later = time.time() + status._LATELY_SECS + 5
  monkeypatch.setattr(time, 'time', lambda: later)
  assert _found(root)['sample', 'a'].state == status.INTERRUPTED


@pytest.mark.parametrize(
  'age, state', [(-2, status.RUNNING), (600, status.INTERRUPTED)]
)
def test_without_a_lock_events_tell_of_long_shards(
  root, monkeypatch, age, state
):
  folder = root / 'responses' / 'a'
  _begin(folder, 3, (0,))
  lock = pathlib.Path(folder) / '.lock'
  lock.unlink(missing_ok=True)
  monkeypatch.setattr(status, '_LATELY_SECS', 0.0)
  progress = {'event': 'progress', 'rate': 5.0, 'unit': 'rows'}
  told = [
    {'event': 'start', 'workdir': f'{root}'},
    {'event': 'begin', 'artifact': f'{folder}'},
    progress | {'time': time.time() - age},
  ]
  (root / 'events').mkdir()
  (root / 'events' / 'sample-b-1.jsonl').write_text(
    ''.join(f'{json.dumps(event)}\n' for event in told)
  )
  assert _found(root)['sample', 'a'].state == state
  if '://' not in os.fspath(root):  # A lock that nobody holds tells more.
    lock.touch()
    assert _found(root)['sample', 'a'].state == status.INTERRUPTED


def test_a_shard_that_is_gone_is_missing_again(tmp_path):
  folder = epath.Path(tmp_path) / 'responses' / 'a'
  artifact = _begin(folder, 3, (0, 1, 2))
  (folder / artifact.shard_name(1)).unlink()
  part = _found(tmp_path)['sample', 'a']
  assert (part.state, part.missing) == (status.INTERRUPTED, (1,))


def _record(state, **changes):
  record = process.begun(('launch.sample', '--arms=a'), os.getpid())
  return dataclasses.replace(record, state=state, **changes)


def test_points_of_a_sweep_and_their_parts(root):
  for point, state, code in (('k=1-aa', 'done', 0), ('k=2-bb', 'failed', 3)):
    file = root / point / 'state' / 'sample.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    process.write(file, _record(state, code=code))
    _begin(root / point / 'responses' / 'a', 2, (0, 1))
  found = status.read(root)
  assert [(p, b, r.state_now()) for p, b, r in found.points] == [
    ('k=1-aa', 'sample', 'done'),
    ('k=2-bb', 'sample', 'failed'),
  ]
  assert [(p.point, p.stage) for p in found.parts] == [
    ('k=1-aa', 'sample'),
    ('k=2-bb', 'sample'),
  ]
  assert found.has_failed
  text = _text(found)
  assert 'failed: exit code 3' in text and '1 done, 1 failed' in text


def test_processes_are_shown_while_they_matter(root):
  """Who runs, and what failed and was not started again since."""
  (root / 'processes').mkdir(parents=True)
  records = {
    'a-here': _record('running'),
    'a-away': _record('failed', host='away', begin=5.0, error='no disk'),
    'b-away': _record('failed', command=('launch.fit',), error='no rewards'),
    'c-away': _record('done', command=('launch.embed',)),
  }
  for name, record in records.items():
    process.write(root / 'processes' / f'{name}.json', record)
  # What a kill left of a record that was being written.
  (root / 'processes' / '.tmp-a-here.json').write_text('{')
  found = status.read(root)
  assert [r.command[0] for r in found.processes] == [
    *('launch.sample', 'launch.fit'),
  ]
  assert found.has_failed
  text = _text(found)
  assert 'failed: no rewards' in text and 'no disk' not in text


def _text(found) -> str:
  out = console.Console(file=io.StringIO(), width=200)
  out.print(status_table.tables(found))
  return out.file.getvalue()


def test_the_table_says_how_far_each_part_is(tmp_path, now):
  folder = tmp_path / 'responses' / 'a'
  _begin(epath.Path(folder), 12, (0, 1, 5), tokens=600)
  _aged(
    folder,
    {f'part-0000{i}-*.json': age for i, age in ((0, 90), (1, 60), (5, 30))}
    | {'identity.json': 100},
    now,
  )
  text = _text(status.read(tmp_path))
  (row,) = [line for line in text.splitlines() if '│ sample' in line]
  cells = [cell.strip() for cell in row.strip('│').split('│')]
  assert cells == [
    *('sample', 'a', 'interrupted', '3 of 12', '2-4, 6-11', '20 tokens/s'),
    *('4 min 30 s', '30 s ago'),
  ]
  assert '1 interrupted; at these rates 4 min 30 s left' in text


def test_nothing_is_written(root):
  _begin(root / 'responses' / 'a', 2, (0,))
  listed = lambda: sorted(
    (os.fspath(folder / name), (folder / name).stat().mtime)
    for folder, names in status._folders(root, 5)
    for name in names
  )
  before = listed()
  status.read(root)
  assert listed() == before


def test_a_workdir_that_is_not_there_is_named(root):
  with pytest.raises(errors.UserError, match='nowhere is not there'):
    status.read(root / 'nowhere')


@pytest.mark.parametrize('name', ['identity.json', 'failed.json'])
def test_what_is_damaged_is_a_row_of_its_own(root, name):
  for arm in ('a', 'b'):
    _begin(root / 'responses' / arm, 2, (0, 1), ends='badly')
  (root / 'responses' / 'a' / name).write_text('{"error"')
  (root / 'processes').mkdir()
  (root / 'processes' / 'sample-1.json').write_text('{}')
  found = status.read(root)
  assert {(p.stage, p.name): p.state for p in found.parts} == {
    ('sample', 'a'): status.UNREADABLE,
    ('sample', 'b'): status.FAILED,
    ('processes', 'sample-1.json'): status.UNREADABLE,
  }
  errors_of = {p.name: p.error for p in found.parts}
  assert f'{name} is not JSON' in errors_of['a']
  assert "sample-1.json lacks 'state'" in errors_of['sample-1.json']
  assert '2 unreadable' in _text(found)
  (root / 'responses' / 'b' / 'failed.json').unlink()
  assert status.read(root).has_failed


@pytest.mark.parametrize(
  'name, state',
  [
    ('responses/a/failed.json', status.INTERRUPTED),
    ('responses/a/part-00001-of-00003.json', status.FAILED),
    ('responses/a/identity.json', None),
    ('processes/sample.json', status.FAILED),
    ('k=1/state/sample.json', status.FAILED),
  ],
)
def test_what_goes_while_it_is_read_is_no_matter(
  tmp_path, monkeypatch, name, state
):
  root = epath.Path(tmp_path)
  _begin(root / 'responses' / 'a', 3, (0, 1), ends='badly')
  _aged(root / 'responses' / 'a', {'part-00000-*.json': 60}, time.time())
  for file in ('processes/sample.json', 'k=1/state/sample.json'):
    (root / file).parent.mkdir(parents=True)
    process.write(root / file, _record('failed'))
  read_json = store.read_json

  def read_too_late(path, needs=()):
    if path == root / name:
      path.unlink(missing_ok=True)
    return read_json(path, needs)

  monkeypatch.setattr(store, 'read_json', read_too_late)
  found = status.read(root)
  assert [p.state for p in found.parts] == ([state] if state else [])
  assert len(found.processes) == (name != 'processes/sample.json')
  assert len(found.points) == (name != 'k=1/state/sample.json')
  if name.startswith('responses/a/part'):
    assert found.parts[0].missing == (1, 2)


def test_an_empty_folder_has_begun_nothing(tmp_path):
  found = status.read(tmp_path)
  assert not found.parts and not found.has_failed
  assert 'nothing has begun yet' in _text(found)


@pytest.mark.parametrize(
  'numbers, expected',
  [((), ''), ((3,), '3'), ((0, 1, 2), '0-2'), ((0, 2, 3, 9), '0, 2-3, 9')],
)
def test_ranges(numbers, expected):
  assert status_table.ranges(numbers) == expected
