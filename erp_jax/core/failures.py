"""Failed writes, in words that say what to do, and notes of any failure."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from etils import epath

from erp_jax.core import buckets, errors


@contextlib.contextmanager
def writing(path: epath.PathLike, size: int) -> Iterator[None]:
  """Turns a failed write of about `size` bytes into the UserError it means."""
  try:
    yield
  except OSError as e:
    raise write_error(path, size, e) from e


@contextlib.contextmanager
def noted(note: Callable[[BaseException | None], None]) -> Iterator[None]:
  """Calls `note` with what is raised, which goes on its way.

  A note that cannot be written is left out: it may be the disk that is full,
  or the bucket that is out of order.
  """
  ended = False
  try:
    yield
    ended = True
  finally:
    if not ended:
      unwritten = (OSError, errors.UserError, *buckets.client_errors())
      with contextlib.suppress(*unwritten):
        note(sys.exception())


def write_line(target: TextIO, name: str, line: str) -> None:
  """Writes a line to an open file or pipe called `name`, and flushes.

  Raises UserError where that fails; the rest of `target` then goes nowhere.
  """
  try:
    target.write(line)
    target.flush()
  except OSError as e:
    # What is left in the buffer would fail a second time when it is closed.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target.fileno())
    os.close(nowhere)
    raise errors.UserError(
      f'cannot write {name} ({e.strerror}): it ends there; mend that, and '
      'start again.'
    ) from e


def write_error(path: epath.Path, size: int, e: OSError) -> Exception:
  """The UserError that a failed write of `size` bytes means, else `e`."""
  reason = {
    errno.ENOSPC: 'the disk is full; free some space',
    errno.EDQUOT: 'the quota is used up; free some space',
    errno.EFBIG: 'it is over the limit for one file (ulimit -f); raise it',
    errno.EACCES: 'the folder is not writable; change its permissions',
    errno.EPERM: 'the folder is not writable; choose another --workdir',
    errno.ENOENT: 'the folder cannot be made; choose another --workdir',
    errno.ENAMETOOLONG: 'the name is too long; choose a shorter one',
    errno.EROFS: 'the file system is read-only; choose another --workdir',
    errno.EEXIST: 'a file is where a folder is needed; move it away',
    errno.ENOTDIR: 'a file is where a folder is needed; move it away',
  }.get(e.errno)
  if reason is None:
    return e
  return errors.UserError(
    f'cannot write {path} ({size} bytes): {reason}, then start the same '
    'command again: finished shards are kept.'
  )
