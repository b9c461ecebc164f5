"""Replicas fill one artefact together, whoever of them begins or ends first."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import errors, locks, store

_PROVENANCE = {'versions': {'jax': '0.10.2'}}
# Fills a share, as soon as a line comes.
_REPLICA = """
import sys
from etils import epath
from erp_jax.core import locks
from tests.core import shares_test

folder, index, of = sys.argv[1:]
print('ready', flush=True)
sys.stdin.readline()
share = locks.Share(int(index), int(of))
print(shares_test._fill(epath.Path(folder), share))
"""
# Fails again and again, each time with the note of it.
_FAILING = """
import sys
from etils import epath
from erp_jax.core import errors, locks, store

share = locks.Share(int(sys.argv[2]), 2)
artifact = store.Artifact(epath.Path(sys.argv[1]), {}, 2)
for _ in range(200):
  artifact._note_failure(errors.UserError('no more'), share)
"""


def _fill(folder, share=locks.ALL, num_shards=6, fails=False):
  """Which shards were written, and whether that completed the artefact."""
  artifact = store.Artifact(folder, {'k': 4}, num_shards)
  with artifact.writer(_PROVENANCE, share=share) as writer:
    missing = writer.missing()
    for i in missing:
      if fails:
        raise errors.UserError('no more')
      writer.write_shard(i, pa.table({'x': [i] * 1000}), {'rows': 1000})
    complete = writer.is_complete()
    if complete:
      writer.finish({'width': 3})
  return missing, complete


def _files(folder):
  return {
    file.name: file.read_bytes()
    for file in folder.iterdir()
    if not file.name.endswith('.lock')
  }


def test_shares_add_up_to_the_same_bytes(tmp_path, caplog):
  one, many = (epath.Path(tmp_path / name) for name in ('one', 'many'))
  assert _fill(one) == ([0, 1, 2, 3, 4, 5], True)
  assert _fill(many, locks.Share(1, 4)) == ([1, 5], False)
  assert _fill(many, locks.Share(3, 4)) == ([3], False)
  assert _fill(many, locks.Share(0, 4)) == ([0, 4], False)
  with pytest.raises(errors.UserError, match='not complete'):
    store.read_table(many)
  with caplog.at_level('INFO'):
    assert _fill(many, locks.Share(0, 4)) == ([], False)
  assert '1 of 6 shards of ' in caplog.messages[-1]
  assert _fill(many, locks.Share(2, 4)) == ([2], True)
  assert _files(one) == _files(many)


def test_another_number_of_replicas_goes_on(tmp_path):
  folder = epath.Path(tmp_path)
  _fill(folder, locks.Share(1, 4))
  assert _fill(folder, locks.Share(0, 2)) == ([0, 2, 4], False)
  assert _fill(folder) == ([3], True)


def test_all_at_once(tmp_path):
  replicas = [
    subprocess.Popen(
      [sys.executable, '-c', _REPLICA, str(tmp_path), str(i), '4'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(4)
  ]
  for replica in replicas:
    assert replica.stdout.readline() == 'ready\n'
  for replica in replicas:
    replica.stdin.write('\n')
    replica.stdin.flush()
  said = [replica.communicate()[0] for replica in replicas]
  assert [replica.returncode for replica in replicas] == [0] * 4
  assert sum('True' in words for words in said) >= 1
  table = store.read_table(epath.Path(tmp_path))
  assert sorted(set(table['x'].to_pylist())) == list(range(6))


def test_a_sibling_keeps_its_files(tmp_path):
  folder = epath.Path(tmp_path)
  _fill(folder, locks.Share(1, 4))
  theirs, ours = (
    tmp_path / f'.tmp-part-0000{i}-of-00006.parquet' for i in (2, 3)
  )
  for file in (theirs, ours):
    file.write_text('half')
  assert _fill(folder, locks.Share(1, 2)) == ([3], False)
  assert theirs.exists() and not ours.exists()
  assert _fill(folder, locks.Share(0, 2)) == ([0, 2, 4], True)
  assert not theirs.exists()


@pytest.mark.parametrize('left', ['', '{"error', '{}'])
def test_a_failure_that_is_not_whole_is_in_nobodys_way(tmp_path, left):
  (tmp_path / store.FAILURE).write_text(left)
  assert _fill(epath.Path(tmp_path), locks.Share(1, 4)) == ([1, 5], False)
  assert not (tmp_path / store.FAILURE).exists()


def test_failures_are_told_in_turn(tmp_path):
  replicas = [
    subprocess.Popen(
      [sys.executable, '-c', _FAILING, str(tmp_path), str(i)],
      stderr=subprocess.PIPE,
    )
    for i in range(2)
  ]
  failure = tmp_path / store.FAILURE
  while any(replica.poll() is None for replica in replicas):
    if failure.exists():
      said = json.loads(failure.read_text())['error']
      assert said in ('replica 0 of 2: no more', 'replica 1 of 2: no more')
  assert [replica.communicate()[1] for replica in replicas] == [b'', b'']


def test_a_failure_is_told_until_its_replica_is_back(tmp_path):
  folder = epath.Path(tmp_path)
  with pytest.raises(errors.UserError, match='no more'):
    _fill(folder, locks.Share(1, 2), fails=True)
  failure = tmp_path / store.FAILURE
  assert json.loads(failure.read_text())['error'] == 'replica 1 of 2: no more'
  _fill(folder, locks.Share(0, 2))
  assert failure.exists()
  _fill(folder, locks.Share(1, 2))
  assert not failure.exists()
