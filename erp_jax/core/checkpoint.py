"""Small weights (probes) saved and loaded with orbax.

Orbax names its files at random, so a folder is not reproducible in bytes; it
is equal in content, which `content_digest` states.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from erp_jax.core import buckets, errors, failures, staging

# What orbax's own files take, in all and of each array (measured; generous).
_OWN_BYTES = 64 * 1024
_ARRAY_BYTES = 1024


def save(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes named arrays; the folder appears only when it is whole.

  What a killed save left beside it is removed; the caller holds the lock. Into
  a bucket its files are put one by one, and the caller's manifest comes last.
  """
  path = epath.Path(path)
  if buckets.is_bucket(path):
    if path.exists():
      path.rmtree()
    with staging.staged(path.parent) as staged:
      save(staged.local / path.name, arrays)
      staged.put()
    return
  for stale in path.parent.glob(f'{path.name}.orbax-checkpoint-tmp*'):
    stale.rmtree()
  size = sum(array.nbytes for array in arrays.values())
  with failures.writing(path, size), _quiet():
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_space(path.parent, size + _OWN_BYTES + _ARRAY_BYTES * len(arrays))
    try:
      ocp.save(path, dict(arrays), overwrite=True)
    except ValueError as e:  # As tensorstore says that the disk is full.
      code = re.search(r"os_error_code='(\d+)'", f'{e}')
      if not code:
        raise
      raise OSError(int(code[1]), f'{e}') from e


def _check_space(folder: epath.Path, size: int) -> None:
  """OSError unless a file of `size` bytes fits into the folder.

  Orbax writes all arrays at once: after the first that does not fit it raises,
  and each of the others prints a traceback of its own whenever it ends. A file
  system that cannot tell is not asked.
  """
  with tempfile.TemporaryFile(dir=folder) as file:
    if not hasattr(os, 'posix_fallocate'):  # macOS.
      return
    try:
      os.posix_fallocate(file.fileno(), 0, size)
    except OSError as e:
      if e.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Keeps orbax from logging the tracebacks of what it raises."""
  log = logging.getLogger('absl')
  before = log.level
  log.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    log.setLevel(before)


def load(path: epath.PathLike) -> dict[str, np.ndarray]:
  """The arrays that `save` wrote, with their dtypes."""
  path = epath.Path(path)
  if not path.exists():
    raise errors.UserError(
      f'{path} is missing: run the stage that writes it, with the same '
      '--workdir.'
    )
  try:
    with staging.fetched(path) as local:
      loaded = ocp.load(local, ocp.metadata(local).metadata)
  # What orbax raises for damaged folders.
  except (
    *(ValueError, OSError, LookupError),
    *(TypeError, AttributeError, RuntimeError),
  ) as e:
    raise errors.UserError(
      f'the weights in {path} cannot be read: delete {path.parent} and run the '
      'stage that writes it.'
    ) from e
  return {name: np.asarray(array) for name, array in loaded.items()}


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Hex sha256 over name, shape, dtype and raw bytes of every array."""
  sha = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    sha.update(f'{name} {array.shape} {array.dtype.str}\n'.encode())
    sha.update(array.tobytes())
  return sha.hexdigest()


def check_digest(
  folder: epath.PathLike, arrays: Mapping[str, np.ndarray], expected: str
) -> None:
  """UserError naming the folder unless the arrays have this digest."""
  found = content_digest(arrays)
  if found != expected:
    raise errors.UserError(
      f'the weights in {folder} are not those its manifest names (digest '
      f'{found[:16]}…, expected {expected[:16]}…): delete that folder and run '
      'the stage again.'
    )
