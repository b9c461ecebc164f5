"""Who writes a folder: one process, or replicas with a share of it each.

A lock dies with its process. A bucket has none.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import platform
import re
from collections.abc import Iterator

from etils import epath

from erp_jax.core import buckets, errors, failures

_LOCK = '.lock'
_REPLICAS = '.replica-*.lock'
_TURN = '.turn.lock'
_TABLE = pathlib.Path('/proc/locks')


@dataclasses.dataclass(frozen=True)
class Share:
  """The shards i of a folder with i % of == index; by default all of them."""

  index: int = 0
  of: int = 1

  def __str__(self) -> str:
    return f'replica {self.index} of {self.of}'

  @property
  def _file(self) -> str:
    return f'.replica-{self.index}-of-{self.of}.lock'


ALL = Share()


@contextlib.contextmanager
def held(folder: epath.Path, share: Share = ALL) -> Iterator[None]:
  """Holds the folder, or a share of it; a bucket has no locks.

  Raises UserError if another process holds the folder or the same share, or
  shares of another number of replicas.
  """
  if buckets.is_bucket(folder):
    yield
    return
  busy = (
    f'{folder} is being written by another process: wait for it, or give each '
    'job its own arm or reward model.'
  )
  with contextlib.ExitStack() as stack:
    if share == ALL:
      stack.enter_context(_locked(folder / _LOCK, fcntl.LOCK_EX, busy))
      yield
      return
    stack.enter_context(_locked(folder / _LOCK, fcntl.LOCK_SH, busy))
    twice = (
      f'{folder} is being written by another process as {share} too: give each '
      'its own --config.runtime.replica.'
    )
    stack.enter_context(_locked(folder / share._file, fcntl.LOCK_EX, twice))
    # After its own: of two that begin at once, one at least sees the other.
    for other in folder.glob(_REPLICAS):
      if not other.name.endswith(f'-of-{share.of}.lock'):
        words = other.name.removeprefix('.').removesuffix('.lock').split('-')
        counts = (
          f'{folder} is being written by {" ".join(words)}, but here '
          f'runtime.replicas is {share.of}: wait for those, or stop them.'
        )
        with _locked(other, fcntl.LOCK_SH, counts):
          pass
    yield


@contextlib.contextmanager
def turn(folder: epath.Path, share: Share) -> Iterator[None]:
  """Waits until no other replica has its turn: for what all of them write."""
  if share == ALL or buckets.is_bucket(folder):
    yield
    return
  with open(folder / _TURN, 'a') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _locked(file: epath.Path, kind: int, refusal: str) -> Iterator[None]:
  """Holds a file's lock; one that is exclusive names its host in the file.

  Raises UserError with the refusal if another process holds it.
  """
  with contextlib.ExitStack() as stack:
    with failures.writing(file, 0):
      lock = stack.enter_context(open(file, 'a+'))
    try:
      fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise errors.UserError(refusal) from e
    if kind == fcntl.LOCK_EX:
      with failures.writing(file, 0):
        lock.truncate(0)
        lock.write(platform.node())
        lock.flush()
      stack.callback(lock.truncate, 0)
    yield


def is_held(folder: epath.PathLike) -> bool | None:
  """Whether a process holds the folder or a share; None if none can tell.

  Takes no lock itself, and so is in nobody's way. On a file system that
  machines share, only this one's locks are seen: None if one that did not end
  well was another machine's.
  """
  if buckets.is_bucket(folder) or not _TABLE.exists():
    return None
  folder = pathlib.Path(os.fspath(folder))
  files = [*folder.glob(_LOCK), *folder.glob(_REPLICAS)]
  if not files:
    return None
  inodes = '|'.join(str(file.stat().st_ino) for file in files)
  if re.search(rf':({inodes}) ', _TABLE.read_text()):
    return True
  hosts = {file.read_text() for file in files}
  return False if hosts <= {'', platform.node()} else None
