"""Artefacts survive kills, refuse strangers, and find damage."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import errors, failures, store

_PROVENANCE = {'versions': {'jax': '0.10.2', 'numpy': '2.4.6'}}


def _artifact(folder, num_shards=3, **identity):
  return store.Artifact(epath.Path(folder), {'k': 4, **identity}, num_shards)


def _shard(i):
  return pa.table({'x': list(range(i, i + 1000)), 's': [str(i)] * 1000})


def _fill(artifact, provenance=_PROVENANCE, **kwargs):
  with artifact.writer(provenance, **kwargs) as writer:
    written = writer.missing()
    for i in written:
      writer.write_shard(i, _shard(i), {'rows': 1000})
    writer.finish()
  return written


def test_what_was_written_is_read(tmp_path):
  artifact = _artifact(tmp_path / 'a')
  assert not artifact.is_done()
  assert _fill(artifact) == [0, 1, 2]
  assert artifact.is_done()
  expected = pa.concat_tables([_shard(i) for i in range(3)])
  assert store.read_table(tmp_path / 'a').equals(expected)
  assert store.read_manifest(tmp_path / 'a')['counts'] == {'rows': 3000}


def test_unfinished_artifact_is_invisible_and_resumes(tmp_path):
  artifact = _artifact(tmp_path / 'a')
  with artifact.writer(_PROVENANCE) as writer:
    writer.write_shard(1, _shard(1))
  (tmp_path / 'a' / '.tmp-left-by-a-kill').write_text('half')
  assert not artifact.is_done()
  with pytest.raises(errors.UserError, match='not complete'):
    store.read_table(tmp_path / 'a')
  assert _fill(artifact) == [0, 2]
  assert not list((tmp_path / 'a').glob('.tmp-*'))
  assert artifact.is_done()


def test_equal_content_gives_equal_bytes(tmp_path):
  for name in 'ab':
    _fill(_artifact(tmp_path / name))
  for file in sorted((tmp_path / 'a').glob('part-*')):
    assert file.read_bytes() == (tmp_path / 'b' / file.name).read_bytes()


def test_another_identity_is_refused_and_named(tmp_path):
  _fill(_artifact(tmp_path / 'a', arm={'model': 'x', 'seed': 0}))
  other = _artifact(tmp_path / 'a', arm={'model': 'x', 'seed': 1})
  with pytest.raises(errors.UserError, match=r'arm\.seed = 0, now it is 1'):
    other.is_done()
  with (
    pytest.raises(errors.UserError, match=r'arm\.seed'),
    other.writer(_PROVENANCE),
  ):
    pass


def test_what_is_replaced_leaves_no_file_behind(tmp_path):
  def write(version, *names):
    artifact = store.Artifact(
      epath.Path(tmp_path), {'version': version}, replaceable=True
    )
    with artifact.writer(_PROVENANCE) as writer:
      for name in names:
        writer.write_file(name, b'x')
      writer.finish()

  write(1, 'page', 'tables/a', 'tables/b')
  (tmp_path / 'notes').write_text('of the user')
  write(2, 'page', 'tables/a')
  assert sorted(f.name for f in tmp_path.rglob('[a-z]*') if f.is_file()) == [
    *('a', 'identity.json', 'manifest.json', 'notes', 'page'),
  ]


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'delete'])
def test_a_damaged_shard_is_named_and_made_again(tmp_path, damage):
  artifact = _artifact(tmp_path / 'a')
  _fill(artifact)
  file = tmp_path / 'a' / artifact.shard_name(1)
  good = file.read_bytes()
  if damage == 'flip':
    file.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
  elif damage == 'truncate':
    file.write_bytes(good[:-1])
  else:
    file.unlink()
  with pytest.raises(errors.UserError, match=file.name):
    store.read_table(tmp_path / 'a')
  if damage != 'delete':  # As the message says.
    file.unlink()
    file.with_suffix('.json').unlink()
  assert not artifact.is_done()
  assert _fill(artifact) == [1]
  assert file.read_bytes() == good


def test_resuming_checks_finished_shards(tmp_path):
  artifact = _artifact(tmp_path / 'a')
  with artifact.writer(_PROVENANCE) as writer:
    writer.write_shard(0, _shard(0))
  file = tmp_path / 'a' / artifact.shard_name(0)
  file.write_bytes(b'x' + file.read_bytes()[1:])
  with pytest.raises(errors.UserError, match='is corrupt'):
    _fill(artifact)


def test_other_major_versions_are_refused_unless_allowed(tmp_path):
  artifact = _artifact(tmp_path / 'a')
  with artifact.writer(_PROVENANCE) as writer:
    writer.write_shard(0, _shard(0))
  minor = {'versions': {'jax': '0.10.9', 'numpy': '2.9.0'}}
  with artifact.writer(minor):
    pass
  major = {'versions': {'jax': '0.12.0', 'numpy': '2.4.6'}}
  with pytest.raises(errors.UserError, match=r'jax 0\.10\.2 -> 0\.12\.0'):
    _fill(artifact, major)
  _fill(artifact, major, allow_version_change=True)
  manifest = store.read_manifest(tmp_path / 'a')
  assert manifest['version_changes'] == ['jax 0.10.2 -> 0.12.0']


_HOLD = """
import sys, time
from etils import epath
from erp_jax.core import store
artifact = store.Artifact(epath.Path(sys.argv[1]), {'k': 4}, 3)
with artifact.writer({'versions': {}}):
  print('held', flush=True)
  time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path):
  with subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(tmp_path / 'a')], stdout=subprocess.PIPE
  ) as holder:
    assert holder.stdout.readline() == b'held\n'
    with pytest.raises(errors.UserError, match='another process'):
      _fill(_artifact(tmp_path / 'a'))
    _fill(_artifact(tmp_path / 'b'))  # Another artefact is not held.
    holder.send_signal(signal.SIGKILL)
  _fill(_artifact(tmp_path / 'a'), {'versions': {}})


def _limited_write(path, size):
  """In a child: the file size limit stands in for a full disk."""
  import resource

  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
  try:
    store.write_bytes(path, b'x' * size)
  except errors.UserError as e:
    assert 'limit for one file' in str(e)
    os._exit(7)


def test_a_failed_write_leaves_nothing_under_the_name(tmp_path):
  process = multiprocessing.get_context('spawn').Process(
    target=_limited_write, args=(tmp_path / 'f', 100_000)
  )
  process.start()
  process.join()
  assert process.exitcode == 7
  assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path):
  full = epath.Path('/dev/full')
  if not full.exists():
    pytest.fail('/dev/full is part of every Linux')
  with open(full, 'wb', buffering=0) as f, pytest.raises(OSError) as caught:
    f.write(b'x')
  message = failures.write_error(tmp_path / 'part', 5, caught.value)
  assert 'the disk is full' in str(message) and 'part' in str(message)


def test_json_with_nan_is_refused(tmp_path):
  with pytest.raises(ValueError, match='JSON compliant'):
    store.write_json(tmp_path / 'm.json', {'mean': float('nan')})
  assert not (tmp_path / 'm.json').exists()


def test_shards_without_an_identity_are_not_deleted(tmp_path):
  artifact = _artifact(tmp_path / 'a')
  _fill(artifact)
  (tmp_path / 'a' / 'identity.json').unlink()
  with pytest.raises(errors.UserError, match=r'no identity\.json'):
    _fill(artifact)
  assert (tmp_path / 'a' / artifact.shard_name(0)).exists()


@pytest.mark.parametrize('name', ['manifest.json', 'identity.json'])
@pytest.mark.parametrize('data', [b'{}', b'\xff\xfe', b'{"identity"'])
def test_damaged_records_are_named(tmp_path, name, data):
  artifact = _artifact(tmp_path / 'a')
  _fill(artifact)
  (tmp_path / 'a' / name).write_bytes(data)
  with pytest.raises(errors.UserError, match=name):
    artifact.is_done()
