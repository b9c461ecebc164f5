"""Whatever is done to a file of an artefact is found, and nothing else is."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import audit, checkpoint, errors, store, workdir

_ROOT = pathlib.Path(__file__).parents[2]
_SHARDS = [f'part-0000{i}-of-00003.parquet' for i in range(3)]
_RECORDS = [f'part-0000{i}-of-00003.json' for i in range(3)]


def _fill(root, finish=True):
  """An artefact of shards, and one of files."""
  shards = store.Artifact(root / 'responses' / 'a', {'k': 4}, 3)
  with shards.writer({'versions': {'jax': '1'}}) as writer:
    for i in range(3):
      table = pa.table({'x': list(range(i, i + 100)), 's': [str(i)] * 100})
      writer.write_shard(i, table, {'tokens': 7 + i, 'share': 0.1})
    if finish:
      writer.finish({'note': 'é'})
  files = store.Artifact(root / 'routes' / 'r', {'beta': 1.5, 'names': ['x']})
  with files.writer({'versions': {'jax': '1'}}) as writer:
    writer.write_file('metrics.json', store.json_bytes({'regret': 0.25}))
    writer.write_file('table.csv', b'a,b\n1,2\n')
    writer.finish()


def _found(root):
  """State by path, without what is whole."""
  found = list(audit.audit(root, {}))
  paths = [f.path for f in found if f.state != audit.WHOLE]
  assert len(set(paths)) == len(paths), found
  return {f.path: f.state for f in found if f.state != audit.WHOLE}


def _whole(root):
  return {f.path for f in audit.audit(root, {}) if f.state == audit.WHOLE}


def test_a_whole_run(root):
  _fill(root)
  assert _found(root) == {}
  assert _whole(root) == {'responses/a', 'routes/r'}
  (root / 'report').mkdir()
  (root / 'report' / 'report.html').write_text('x')
  assert _found(root) == {'report': audit.UNCHECKED}


@pytest.mark.parametrize(
  'name',
  [
    *(f'responses/a/{name}' for name in (_SHARDS[0], _SHARDS[2])),
    *(f'routes/r/{name}' for name in ('metrics.json', 'table.csv')),
  ],
)
def test_any_other_bytes_are_found(root, name):
  _fill(root)
  file = root / name
  data = file.read_bytes()
  rng = random.Random(0)
  for _ in range(20):
    flipped = bytearray(data)
    flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(flipped))
    assert _found(root) == {name: audit.DAMAGED}
  for cut in (data[:-1], data[: len(data) // 2], b''):
    file.write_bytes(cut)
    assert _found(root) == {name: audit.DAMAGED}
  file.write_bytes(data)
  assert _found(root) == {}


@pytest.mark.parametrize(
  'name', [*_SHARDS, *_RECORDS, 'identity.json', 'manifest.json']
)
def test_what_is_deleted_is_missing(root, name):
  _fill(root)
  file = root / 'responses' / 'a' / name
  data = file.read_bytes()
  file.unlink()
  expected = {f'responses/a/{name}': audit.MISSING}
  if name == 'manifest.json':  # As before it is finished.
    expected = {'responses/a': audit.UNFINISHED}
  assert _found(root) == expected
  assert _whole(root) == {'routes/r'}
  file.write_bytes(data)
  (root / 'routes' / 'r' / 'table.csv').unlink()
  assert _found(root) == {'routes/r/table.csv': audit.MISSING}


@pytest.mark.parametrize(
  'name',
  ['notes.txt', '.tmp-part-00000-of-00003.parquet', 'part-00003-of-00004.json'],
)
def test_what_is_added_is_extra(root, name):
  _fill(root)
  (root / 'responses' / 'a' / name).write_bytes(b'{}')
  assert _found(root)[f'responses/a/{name}'] == audit.EXTRA


def test_a_folder_that_is_added_is_extra(root):
  _fill(root)
  (root / 'routes' / 'r' / 'old').mkdir()
  (root / 'routes' / 'r' / 'old' / 'metrics').write_text('{}')
  assert _found(root) == {'routes/r/old/metrics': audit.EXTRA}


@pytest.mark.parametrize(
  ('name', 'change'),
  [
    ('identity.json', lambda v: v['identity'].update(k=5)),
    ('identity.json', lambda v: v.pop('versions')),
    ('manifest.json', lambda v: v.update(digest='0' * 64)),
    ('manifest.json', lambda v: v['counts'].update(tokens=23)),
    ('manifest.json', lambda v: v.pop('counts')),
    ('manifest.json', lambda v: v.update(shards=[])),
    (_RECORDS[1], lambda v: v.update(rows=99)),
    (_RECORDS[1], lambda v: v.update(sha256='0' * 64)),
    (_RECORDS[1], lambda v: v.pop('counts')),
  ],
)
def test_what_does_not_agree_is_damaged(root, name, change):
  _fill(root)
  file = root / 'responses' / 'a' / name
  value = json.loads(file.read_text())
  change(value)
  file.write_text(json.dumps(value))
  assert _found(root) == {f'responses/a/{name}': audit.DAMAGED}


@pytest.mark.parametrize('data', [b'{"identity": ', b'[]', b'3', b'\xff', b''])
@pytest.mark.parametrize(
  'name', ['identity.json', 'manifest.json', _RECORDS[0]]
)
def test_what_is_not_json_is_damaged(root, name, data):
  _fill(root)
  (root / 'responses' / 'a' / name).write_bytes(data)
  assert _found(root) == {f'responses/a/{name}': audit.DAMAGED}


def test_a_shard_that_no_manifest_lists_is_seen(root):
  _fill(root)
  file = root / 'responses' / 'a' / 'manifest.json'
  value = json.loads(file.read_text())
  del value['shards'][_SHARDS[1]]
  file.write_text(json.dumps(value))
  found = [(f.path, f.state) for f in audit.audit(root, {})]
  assert ('responses/a/manifest.json', audit.DAMAGED) in found
  assert (f'responses/a/{_SHARDS[1]}', audit.EXTRA) in found


def test_finished_shards_of_a_broken_off_artefact_are_read(root):
  _fill(root, finish=False)
  folder = root / 'responses' / 'a'
  (folder / _RECORDS[2]).unlink()  # Killed between the two.
  (folder / '.tmp-x').write_bytes(b'')
  found = _found(root)
  assert found == {
    'responses/a': audit.UNFINISHED,
    'responses/a/.tmp-x': audit.EXTRA,
  }
  (folder / _SHARDS[0]).write_bytes(b'')
  (folder / _SHARDS[1]).unlink()
  assert _found(root) == found | {
    f'responses/a/{_SHARDS[0]}': audit.DAMAGED,
    f'responses/a/{_SHARDS[1]}': audit.MISSING,
  }


def test_weights_are_equal_in_content(tmp_path):
  """Every byte that decides an array does; orbax has bytes that do not."""
  root = epath.Path(tmp_path) / 'run'
  arrays = {'theta': np.random.default_rng(0).normal(size=(40, 8))}
  artifact = store.Artifact(root / 'probes' / 'r' / 'a', {'beta': 1})
  with artifact.writer({'versions': {}}) as writer:
    checkpoint.save(artifact.path / 'weights', arrays)
    writer.add_file('weights', checkpoint.content_digest(arrays))
    writer.finish()
  assert _found(root) == {}
  weights = tmp_path / 'run/probes/r/a/weights'
  files = sorted(
    path
    for path in weights.rglob('*')
    if path.is_file() and path.stat().st_size
  )
  rng = random.Random(0)
  seen = 0
  for file in files:
    data = file.read_bytes()
    for _ in range(3):
      flipped = bytearray(data)
      flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
      file.write_bytes(flipped)
      found = _found(root)
      assert found in ({}, {'probes/r/a/weights': audit.DAMAGED})
      seen += bool(found)
    file.write_bytes(data)
  assert seen >= 3  # All of the file that holds the numbers.
  largest = max(files, key=lambda file: file.stat().st_size)
  data = largest.read_bytes()
  largest.write_bytes(data[: len(data) // 2])
  assert _found(root) == {'probes/r/a/weights': audit.DAMAGED}
  shutil.rmtree(weights)
  assert _found(root) == {'probes/r/a/weights': audit.MISSING}


def test_another_folder_is_refused(root, tmp_path):
  with pytest.raises(errors.UserError, match='is not there'):
    list(audit.audit(root, {}))
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.UserError, match='holds no artefact'):
    list(audit.audit(tmp_path / 'empty', {}))


def test_what_processes_leave_in_a_run_that_is_one_artefact_is_no_part(root):
  place = workdir.Workdir(root, {'versions': {}})
  place.once({'k': 1}, 'coverage.json', lambda: {'held': 0.95})
  names = ('events', 'processes', 'profile', 'tensorboard')
  for name in names:
    (root / name).mkdir()
    (root / name / 'a').write_text('x')
  (root / 'b').write_text('x')
  unchecked = dict.fromkeys(names, audit.UNCHECKED)
  assert _found(root) == unchecked | {'b': audit.EXTRA}


def test_what_has_no_manifest_is_checked_where_one_can(root):
  _fill(root)
  folder = root / 'router' / 'r'
  folder.mkdir(parents=True)
  (folder / 'policy.json').write_text('1')

  def check(path):
    if (path / 'policy.json').read_text() != '1':
      raise errors.UserError('it is another')

  found = lambda: [
    (x.state, x.detail)
    for x in audit.audit(root, {'policy.json': check})
    if x.path == 'router/r'
  ]
  assert found() == [(audit.WHOLE, '1 files')]
  (folder / 'policy.json').write_text('2')
  assert found() == [(audit.DAMAGED, 'it is another')]


def _verify(folder):
  return subprocess.run(
    [sys.executable, '-m', 'launch.verify', f'--workdir={folder}'],
    cwd=_ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
  )


def test_the_binary_says_so_and_exits_with_one(tmp_path):
  run = epath.Path(tmp_path) / 'run'
  _fill(run)
  done = _verify(run)
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[0].split()[:2] == ['whole', 'responses/a']
  assert lines[-1] == '2 whole'
  (run / 'responses/a' / _SHARDS[1]).write_bytes(b'')
  (run / 'routes/r/table.csv').unlink()
  done = _verify(run)
  assert done.returncode == 1
  assert [line.split()[:2] for line in done.stdout.splitlines()[:-1]] == [
    ['damaged', f'responses/a/{_SHARDS[1]}'],
    ['missing', 'routes/r/table.csv'],
  ]
  assert done.stdout.splitlines()[-1] == '1 damaged, 1 missing'
  done = _verify(tmp_path / 'none')
  assert done.returncode == 1 and 'is not there' in done.stderr
  assert 'Traceback' not in done.stderr
