"""One writer a folder: a lock that dies with its process."""

import contextlib
import fcntl
import os
import pathlib
import re
from collections.abc import Iterator

from etils import epath

from erp_jax.core import errors, failures

_LOCK = '.lock'
_TABLE = pathlib.Path('/proc/locks')


@contextlib.contextmanager
def held(folder: epath.Path) -> Iterator[None]:
  """Holds the folder's lock; a bucket has none.

  Raises UserError if another process holds it.
  """
  if '://' in os.fspath(folder):
    yield
    return
  with contextlib.ExitStack() as stack:
    with failures.writing(folder / _LOCK, 0):
      lock = stack.enter_context(open(folder / _LOCK, 'w'))
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise errors.UserError(
        f'{folder} is being written by another process: wait for it, or give '
        'each job its own arm or reward model.'
      ) from e
    yield


def is_held(folder: epath.PathLike) -> bool | None:
  """Whether a process of this machine holds it; None if that cannot be told.

  Takes no lock itself, and so is in nobody's way. Locks of other machines on a
  file system that they share are not seen.
  """
  lock = pathlib.Path(os.fspath(folder)) / _LOCK
  if '://' in os.fspath(folder) or not (lock.exists() and _TABLE.exists()):
    return None
  end = re.compile(rf':{lock.stat().st_ino} ')
  return any(end.search(line) for line in _TABLE.read_text().splitlines())
