"""Files that are there whole or not at all."""

import hashlib
import os

from etils import epath

from erp_jax.core import errors, failures

TMP = '.tmp-'  # How the name of a file that is not whole begins.


def replace(path: epath.Path, data: bytes) -> None:
  """Writes a local file: temporary file, fsync, rename, fsync of the folder.

  Raises UserError if the disk is full or the folder can't be written.
  """
  tmp = path.parent / f'{TMP}{path.name}'
  with failures.writing(path, len(data)):
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      with open(tmp, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    except OSError:
      tmp.unlink(missing_ok=True)
      raise
    os.replace(tmp, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
      os.fsync(folder)
    finally:
      os.close(folder)


def read(file: epath.Path, checksum: str) -> bytes:
  """A file's bytes; UserError with its name if missing or altered."""
  beside = file.with_suffix('.json')
  record = f' and {beside.name}' if file.suffix == '.parquet' else ''
  fix = f'delete {file}{record if beside.exists() else ""}, and run again'
  if not file.exists():
    raise errors.UserError(
      f'{file} is missing: run the stage that writes it again.'
    )
  data = file.read_bytes()
  found = hashlib.sha256(data).hexdigest()
  if found != checksum:
    raise errors.UserError(
      f'{file} is corrupt: sha256 {found[:16]}…, expected {checksum[:16]}…: '
      f'{fix}.'
    )
  return data
