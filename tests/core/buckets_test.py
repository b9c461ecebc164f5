"""Buckets: writes that are tried again, folders that are brought there."""

import logging
import pathlib
import urllib.request

import numpy as np
import pytest
from etils import epath

from erp_jax.core import buckets, checkpoint, errors, process, staging, store

_TRIES = 6  # Of gcsfs itself, for each of ours.


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(buckets, '_WAIT_SECS', (0.01, 0.01))


def test_a_write_outlives_a_bad_minute(door, impatient, caplog):
  caplog.set_level(logging.WARNING, logger='erp_jax')
  path = epath.Path('gs://runs/again/a.json')
  door.failing = _TRIES + 1
  store.write_json(path, {'a': 1})
  assert store.read_json(path) == {'a': 1}
  assert door.refused == _TRIES + 1
  # Google's own client may warn of credentials, which there are none of.
  told = [r for r in caplog.records if r.name == buckets.__name__]
  (said,) = [record.getMessage() for record in told]
  assert said.startswith(f'cannot write {path} (') and said.endswith('0.01 s')


def test_it_gives_up_in_one_line(door, impatient):
  door.failing = 10**6
  with pytest.raises(errors.UserError) as e:
    store.write_json('gs://runs/never/a.json', {})
  assert str(e.value).startswith('cannot write gs://runs/never/a.json (3 bytes')
  assert 'out of order, 503' in str(e.value) and '\n' not in str(e.value)
  assert door.refused == 3 * _TRIES
  door.failing = 0
  assert not epath.Path('gs://runs/never/a.json').exists()


@pytest.mark.parametrize(
  'path, code', [('gs://nobodys/a', 0), ('gs://runs/a', 403)]
)
def test_what_will_not_pass_is_tried_once(door, impatient, path, code):
  door.failing, door.code = (10**6, code) if code else (0, 503)
  with pytest.raises(errors.UserError, match='see to the bucket'):
    store.write_bytes(path, b'x')
  assert door.refused == bool(code)


def test_a_bucket_that_fails_leaves_the_first_error(door):
  with (
    pytest.raises(errors.UserError, match='a mistake'),
    process.recorded(epath.Path('gs://runs/mistaken'), ('launch.fit',)),
  ):
    door.failing, door.method = 10**6, 'DELETE'
    raise errors.UserError('a mistake')
  assert door.refused


def test_only_buckets_with_a_client_are_taken(monkeypatch):
  buckets.check_client('runs/mine')
  with pytest.raises(errors.UserError, match=r'ftp:// .* gs://, s3://'):
    buckets.check_client('ftp://host/run')
  monkeypatch.setattr(buckets.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(errors.UserError, match=r"pip install 'erp_jax\[gcs\]'"):
    buckets.check_client('gs://runs/mine')
  buckets.check_client('runs/mine')


def test_what_another_process_writes_is_seen(door):
  folder = epath.Path('gs://runs/shared')
  (folder / 'ours').write_text('')
  assert [path.name for path in folder.iterdir()] == ['ours']
  upload = f'{door.url}/upload/storage/v1/b/runs/o?uploadType=media&name='
  with urllib.request.urlopen(f'{upload}shared/theirs', data=b'x'):
    pass
  assert (folder / 'theirs').exists()
  assert len(list(folder.iterdir())) == 2


def _place(kind, tmp_path):
  return epath.Path(tmp_path if kind == 'folder' else f'gs://runs{tmp_path}')


@pytest.mark.parametrize('kind', ['folder', 'bucket'])
def test_weights_come_back(kind, tmp_path, door):
  path = _place(kind, tmp_path) / 'weights'
  for length in (3, 5):  # The second replaces the first.
    arrays = {
      'theta_E': np.arange(length, dtype=np.float64) / 7,
      'bias': np.asarray(0.5, np.float32),
    }
    checkpoint.save(path, arrays)
    loaded = checkpoint.load(path)
    assert checkpoint.content_digest(loaded) == checkpoint.content_digest(
      arrays
    )
  with pytest.raises(errors.UserError, match='is missing'):
    checkpoint.load(path.parent / 'other')


def test_a_file_that_goes_while_it_is_brought_is_left(
  door, tmp_path, monkeypatch
):
  target = epath.Path(f'gs://runs{tmp_path}')
  with staging.staged(target) as staged:
    for name in ('a.tmp', 'b.txt'):
      (staged.local / name).write_text('x')
    is_file = pathlib.Path.is_file

    def looked_at_too_early(path):
      found = is_file(path)
      (staged.local / 'a.tmp').unlink(missing_ok=True)
      return found

    monkeypatch.setattr(pathlib.Path, 'is_file', looked_at_too_early)
    staged.put()
  assert [path.name for path in target.iterdir()] == ['b.txt']


def test_files_are_brought_once_unless_they_have_grown(door, tmp_path):
  target = epath.Path(f'gs://runs{tmp_path}')
  with staging.staged(target) as staged:
    (staged.local / 'sub').mkdir()
    (staged.local / 'sub' / 'a.txt').write_text('one')
    (staged.local / 'b.txt').write_text('two')
    staged.put()
    assert (target / 'sub' / 'a.txt').read_text() == 'one'
    door.failing, door.holding = 10**6, 'sub/a.txt'  # Not touched again.
    with (staged.local / 'b.txt').open('a') as f:
      f.write(' and more')
    staged.put()
    scratch = staged.local
  assert not door.refused and not scratch.exists()
  with staging.fetched(target) as copy:
    assert (copy / 'b.txt').read_text() == 'two and more'
    assert (copy / 'sub' / 'a.txt').read_text() == 'one'


def test_a_folder_is_its_own_stage(tmp_path):
  folder = epath.Path(tmp_path / 'new')
  with staging.staged(folder) as staged:
    assert staged.local == pathlib.Path(folder) and staged.local.is_dir()
    (staged.local / 'a').write_text('one')
    staged.put()
  assert (folder / 'a').read_text() == 'one'
