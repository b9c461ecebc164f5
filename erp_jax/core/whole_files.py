"""Files that are there whole or not at all."""

import os

from etils import epath

from erp_jax.core import failures

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
