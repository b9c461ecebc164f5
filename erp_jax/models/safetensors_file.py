"""Safetensors files, read by byte ranges.

The safetensors package maps a file into memory, where what was read counts as
resident until the file is closed, and gives no part of a bfloat16 tensor to
NumPy. It checks the file here; the bytes are read with pread.
Format: github.com/huggingface/safetensors, README.md.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import safetensors

from erp_jax.core import errors
from erp_jax.models import lazy_tensor

_DTYPES = {
  'BF16': ml_dtypes.bfloat16,
  'BOOL': np.bool_,
  'F16': np.float16,
  'F32': np.float32,
  'F64': np.float64,
  'I16': np.int16,
  'I32': np.int32,
  'I64': np.int64,
  'I8': np.int8,
  'U8': np.uint8,
}


class SafetensorsFiles(Mapping[str, lazy_tensor.LazyTensor]):
  """The tensors of one or more safetensors files, by name.

  Raises UserError for a file that is damaged or cut short, or two that hold a
  tensor of one name.
  """

  def __init__(self, paths: list[pathlib.Path]):
    self._tensors: dict[str, lazy_tensor.LazyTensor] = {}
    for path in paths:
      found = _open(path)
      if both := sorted(self._tensors.keys() & found.keys()):
        raise errors.UserError(
          f'{path} holds {both[0]}, as another file of the checkpoint does: '
          'fetch it again.'
        )
      self._tensors |= found

  def __getitem__(self, name: str) -> lazy_tensor.LazyTensor:
    return self._tensors[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)


def _open(path: pathlib.Path) -> dict[str, lazy_tensor.LazyTensor]:
  try:
    with safetensors.safe_open(path, 'numpy'):
      pass
  except (OSError, safetensors.SafetensorError) as error:
    raise errors.UserError(
      f'{path} cannot be read ({error}): fetch it again.'
    ) from error
  with path.open('rb') as file:
    size = int.from_bytes(file.read(8), 'little')
    header = json.loads(file.read(size))
  header.pop('__metadata__', None)
  return {
    name: _tensor(path, name, 8 + size, entry) for name, entry in header.items()
  }


def _tensor(path, name, data, entry) -> lazy_tensor.LazyTensor:
  if entry['dtype'] not in _DTYPES:
    raise errors.UserError(
      f'{path} holds {name} as {entry["dtype"]}; supported are '
      f'{", ".join(_DTYPES)}: use a revision of one of these.'
    )
  dtype = np.dtype(_DTYPES[entry['dtype']])
  start = data + entry['data_offsets'][0]
  read = functools.partial(_read, path, start, dtype)
  return lazy_tensor.LazyTensor(tuple(entry['shape']), dtype, read)


def _read(path, data, dtype, start, stop) -> np.ndarray:
  values = np.empty(stop - start, dtype)
  view = memoryview(values.view(np.uint8))
  # unbuffered: readinto fills our array from the file, without a copy between.
  with path.open('rb', buffering=0) as file:
    at = data + start * dtype.itemsize
    while view:
      done = os.preadv(file.fileno(), [view], at)
      if not done:
        raise errors.UserError(f'{path} is cut short: fetch it again.')
      view, at = view[done:], at + done
  return values
