"""Small weights (probes) saved and loaded with orbax.

Orbax names its files at random, so a folder is not reproducible in bytes; it
is equal in content, which `content_digest` states.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp


def save(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes named arrays; the folder appears only when it is whole."""
  ocp.save(epath.Path(path), dict(arrays), overwrite=True)


def load(path: epath.PathLike) -> dict[str, np.ndarray]:
  """The arrays that `save` wrote, with their dtypes."""
  path = epath.Path(path)
  abstract = ocp.metadata(path).metadata
  return {name: np.asarray(a) for name, a in ocp.load(path, abstract).items()}


def content_digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Hex sha256 over name, shape, dtype and raw bytes of every array."""
  sha = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    sha.update(f'{name} {array.shape} {array.dtype.str}\n'.encode())
    sha.update(array.tobytes())
  return sha.hexdigest()
