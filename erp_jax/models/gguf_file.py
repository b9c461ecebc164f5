"""GGUF files: metadata, and tensors dequantised to float32 as they are read.

The header is parsed here: the gguf package's own reader takes 4 s for the
98 000 strings of a small tokenizer, this 0.1 s. Its dequantisation is used.
Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

import dataclasses
import functools
import math
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import numpy as np

from erp_jax.core import errors
from erp_jax.models import lazy_tensor

_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
_USE_OTHER = 'use a file of another type, as Q8_0 or F16, or a newer gguf.'
_SCALARS = {
  0: '<B',
  1: '<b',
  2: '<H',
  3: '<h',
  4: '<I',
  5: '<i',
  6: '<f',
  _BOOL: '<?',
  10: '<Q',
  11: '<q',
  12: '<d',
}


@dataclasses.dataclass(frozen=True)
class _Entry:
  shape: tuple[int, ...]  # Outermost first, as NumPy and torch say it.
  kind: gguf.GGMLQuantizationType
  start: int  # Byte in the file.
  num_bytes: int


class GgufFile(Mapping[str, lazy_tensor.LazyTensor]):
  """A GGUF file as a mapping of tensor names to float32 tensors.

  `metadata` holds its key-value pairs. Raises UserError for a file that is
  not GGUF, of another version, cut short, or has a tensor of an unknown type.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    if not path.stat().st_size:
      raise errors.UserError(f'{path} is empty: fetch it again.')
    self._bytes = np.memmap(path, np.uint8, 'r')
    cursor = _Cursor(memoryview(self._bytes), path)
    magic, version = cursor.take(4), cursor.scalar('<I')
    if magic != b'GGUF' or version not in _VERSIONS:
      raise errors.UserError(
        f'{path} starts with {bytes(magic)!r}, version {version}: a GGUF file '
        f'of version {_VERSIONS} is needed; fetch it again.'
      )
    num_tensors, num_pairs = cursor.scalar('<Q'), cursor.scalar('<Q')
    self.metadata: dict[str, Any] = {}
    for _ in range(num_pairs):
      name = cursor.string()
      self.metadata[name] = cursor.value(cursor.scalar('<I'))
    entries = [_entry(cursor, path) for _ in range(num_tensors)]
    align = self.metadata.get('general.alignment', 32)
    data = -(-cursor.at // align) * align
    self._entries = {
      name: dataclasses.replace(entry, start=data + entry.start)
      for name, entry in entries
    }
    for name, entry in self._entries.items():
      if entry.start + entry.num_bytes > self._bytes.size:
        raise errors.UserError(
          f'{path} is cut short: tensor {name} ends at byte '
          f'{entry.start + entry.num_bytes} of {self._bytes.size}; fetch it '
          'again.'
        )

  def __getitem__(self, name: str) -> lazy_tensor.LazyTensor:
    entry = self._entries[name]
    read = functools.partial(self._read, name, entry)
    return lazy_tensor.LazyTensor(entry.shape, np.dtype(np.float32), read)

  def _read(
    self, name: str, entry: _Entry, start: int, stop: int
  ) -> np.ndarray:
    """Elements start to stop of a tensor; whole rows are dequantised."""
    width = entry.shape[-1]
    first, last = start // width, -(-stop // width)
    row_bytes = entry.num_bytes // math.prod(entry.shape[:-1])
    begin = entry.start + first * row_bytes
    raw = self._bytes[begin : begin + (last - first) * row_bytes]
    rows = np.asarray(raw).reshape(last - first, row_bytes)
    try:
      values = gguf.dequantize(rows, entry.kind)
    except NotImplementedError as error:
      raise errors.UserError(
        f'{self._path} has tensor {name} of type {entry.kind.name}, which '
        f'cannot be dequantised: {_USE_OTHER}'
      ) from error
    flat = values.astype(np.float32, copy=False).ravel()
    return flat[start - first * width : stop - first * width]

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)


class _Cursor:
  """Reads values one after another; `at` is the next byte."""

  def __init__(self, view: memoryview, path: pathlib.Path):
    self._view = view
    self._path = path
    self.at = 0

  def take(self, size: int) -> memoryview:
    if self.at + size > len(self._view):
      raise errors.UserError(
        f'{self._path} is cut short inside its header: fetch it again.'
      )
    self.at += size
    return self._view[self.at - size : self.at]

  def scalar(self, code: str) -> Any:
    return struct.unpack(code, self.take(struct.calcsize(code)))[0]

  def string(self) -> str:
    return bytes(self.take(self.scalar('<Q'))).decode()

  def value(self, kind: int) -> Any:
    if kind == _STRING:
      return self.string()
    if kind == _ARRAY:
      item, size = self.scalar('<I'), self.scalar('<Q')
      if item in _SCALARS:
        dtype = np.dtype(_SCALARS[item])
        return np.frombuffer(self.take(size * dtype.itemsize), dtype).tolist()
      return [self.value(item) for _ in range(size)]
    if kind not in _SCALARS:
      raise errors.UserError(
        f'{self._path} has a value of unknown kind {kind}: fetch it again.'
      )
    return self.scalar(_SCALARS[kind])


def _entry(cursor: _Cursor, path: pathlib.Path) -> tuple[str, _Entry]:
  name = cursor.string()
  dims = [cursor.scalar('<Q') for _ in range(cursor.scalar('<I'))]
  number = cursor.scalar('<I')
  try:
    kind = gguf.GGMLQuantizationType(number)
  except ValueError as error:
    raise errors.UserError(
      f'{path} has tensor {name} of unknown type {number}: {_USE_OTHER}'
    ) from error
  start = cursor.scalar('<Q')
  block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
  num_bytes = math.prod(dims) // block * block_bytes
  return name, _Entry(tuple(reversed(dims)), kind, start, num_bytes)
