"""Folders for what writes files by itself, on a bucket too.

What cannot write to our opener (orbax, TensorBoard, the profiler) writes into a
folder of this machine: the one that is meant, or one whose files are then put
into the bucket.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from etils import epath

from erp_jax.core import buckets, folders


class Staged:
  """A local folder, and the place where its files are to be.

  Attributes:
    local: exists, and is `target` itself unless that is in a bucket.
  """

  def __init__(self, local: pathlib.Path, target: epath.Path):
    self.local = local
    self._target = target
    self._sizes: dict[pathlib.Path, int] = {}

  def put(self) -> None:
    """Brings to the bucket what is new or has grown; UserError as `put`."""
    if not buckets.is_bucket(self._target):
      return
    for file in sorted(self.local.rglob('*')):
      try:
        if not file.is_file() or self._sizes.get(file) == file.stat().st_size:
          continue
        data = file.read_bytes()
      except FileNotFoundError:  # Its writer has removed it.
        continue
      name = file.relative_to(self.local).as_posix()
      buckets.put(self._target / name, data)
      self._sizes[file] = len(data)


@contextlib.contextmanager
def staged(target: epath.Path) -> Iterator[Staged]:
  """A folder to write into; what is in it goes to a bucket by `put` alone."""
  if buckets.is_bucket(target):
    with tempfile.TemporaryDirectory() as scratch:
      yield Staged(pathlib.Path(scratch), target)
  else:
    target.mkdir(parents=True, exist_ok=True)
    yield Staged(pathlib.Path(target), target)


@contextlib.contextmanager
def fetched(source: epath.Path) -> Iterator[pathlib.Path]:
  """A local folder with the files of `source`: itself, or a copy."""
  if not buckets.is_bucket(source):
    yield pathlib.Path(source)
    return
  with tempfile.TemporaryDirectory() as scratch:
    for file in folders.files(source):
      copy = pathlib.Path(scratch) / folders.relative(file, source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      copy.write_bytes(file.read_bytes())
    yield pathlib.Path(scratch)
