"""One writer a folder, or replicas of one number with a share each."""

import platform
import subprocess
import sys

import pytest
from etils import epath

from erp_jax.core import errors, locks

_HOLDER = """
import sys, time
from etils import epath
from erp_jax.core import locks
with locks.held(epath.Path(sys.argv[1]), locks.Share(*map(int, sys.argv[2:]))):
  print('held', flush=True)
  time.sleep(600)
"""


def _try(folder, *share):
  with locks.held(epath.Path(folder), locks.Share(*share)):
    pass


@pytest.mark.parametrize('share', [(), (0, 2)])
def test_a_writer_excludes_all_others(tmp_path, share):
  with (
    locks.held(epath.Path(tmp_path)),
    pytest.raises(errors.UserError, match='is being written by another'),
  ):
    _try(tmp_path, *share)
  _try(tmp_path, *share)


def test_replicas_exclude_all_but_the_other_shares(tmp_path):
  with locks.held(epath.Path(tmp_path), locks.Share(0, 2)):
    _try(tmp_path, 1, 2)
    for share, words in (
      ((0, 1), 'is being written by another process: wait'),
      ((0, 2), 'as replica 0 of 2 too'),
      ((3, 4), 'written by replica 0 of 2, but here runtime.replicas is 4'),
    ):
      with pytest.raises(errors.UserError, match=words):
        _try(tmp_path, *share)
  _try(tmp_path, 3, 4)
  _try(tmp_path)


@pytest.mark.parametrize('share', [(0, 1), (1, 2)])
def test_a_killed_holder_leaves_no_lock(tmp_path, share):
  command = [sys.executable, '-c', _HOLDER, str(tmp_path), *map(str, share)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
    assert holder.stdout.readline()
    assert locks.is_held(tmp_path) is True
    with pytest.raises(errors.UserError):
      _try(tmp_path, *share)
    holder.kill()
  assert locks.is_held(tmp_path) is False
  _try(tmp_path, *share)


@pytest.mark.parametrize('share', [(0, 1), (1, 2)])
def test_locks_of_another_machine_cannot_be_seen(tmp_path, monkeypatch, share):
  """It was killed, or holds it: its name in the file is all that is here."""
  assert locks.is_held(tmp_path) is None
  with monkeypatch.context() as patch:
    patch.setattr(platform, 'node', lambda: 'elsewhere')
    lock = locks.held(epath.Path(tmp_path), locks.Share(*share))
    lock.__enter__()
    left = {f: f.read_text() for f in tmp_path.iterdir()}
    lock.__exit__(None, None, None)
  assert locks.is_held(tmp_path) is False  # That one ended well.
  for file, text in left.items():
    file.write_text(text)
  assert 'elsewhere' in left.values()
  assert locks.is_held(tmp_path) is None
  _try(tmp_path, *share)
  assert locks.is_held(tmp_path) is False
