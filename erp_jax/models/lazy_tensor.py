"""A tensor of a file, of which only the parts asked for are read."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class LazyTensor:
  """Shape and dtype of a tensor, and how to read a range of its elements.

  Like a NumPy array it can be indexed by slices (of step 1) and reshaped;
  each gives a part's values, or another view, and reads no more than that.

  Attributes:
    read: (start, stop) in row-major order -> their values, one-dimensional.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[int, int], np.ndarray]

  def reshape(self, shape: tuple[int, ...]) -> 'LazyTensor':
    """The same elements in another shape."""
    assert math.prod(shape) == math.prod(self.shape), (shape, self.shape)
    return dataclasses.replace(self, shape=shape)

  def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
    bounds = [s.indices(n) for s, n in zip(index, self.shape, strict=False)]
    starts = [start for start, _, _ in bounds]
    sizes = [stop - start for start, stop, _ in bounds]
    starts += [0] * (len(self.shape) - len(starts))
    sizes += self.shape[len(sizes) :]
    # Axes after `split` are read whole, so a run is contiguous from there on.
    split = len(sizes)
    while split and sizes[split - 1] == self.shape[split - 1]:
      split -= 1
    split = max(split - 1, 0)
    run = math.prod(sizes[split:])
    strides = [math.prod(self.shape[i + 1 :]) for i in range(len(sizes))]
    first = int(np.dot(starts, strides)) if starts else 0
    if math.prod(sizes[:split]) == 1:
      return self.read(first, first + run).reshape(sizes)
    out = np.empty((*sizes[:split], run), self.dtype)
    for place in np.ndindex(*sizes[:split]):
      start = first + int(np.dot(place, strides[:split]))
      out[place] = self.read(start, start + run)
    return out.reshape(sizes)

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # It is one.
    return self[()].astype(dtype or self.dtype, copy=False)
