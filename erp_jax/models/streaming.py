"""Tensors of a file into arrays on devices, piece by piece.

Each device's part is a buffer there; pieces of a few MiB are read, moved, and
written into it in place. So the memory beyond the result is a few pieces, and
a host reads no byte that its devices do not hold.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.models import int8

PIECE_BYTES = 16 * 2**20


class Layout(NamedTuple):
  """How the tensors of a file make up one array [*lead, *inputs, *outputs].

  There is one tensor for each place of `lead`, [*outputs, *inputs].
  """

  lead: tuple[int, ...]
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    return self.lead + self.inputs + self.outputs

  @property
  def in_axes(self) -> tuple[int, ...]:
    """Axes of the array that are inputs."""
    return tuple(range(len(self.lead), len(self.lead) + len(self.inputs)))


def load(
  tensor_at: Callable[[tuple[int, ...]], Any],
  layout: Layout,
  sharding: jax.sharding.Sharding,
  dtype: jax.typing.DTypeLike,
  quantized: bool,
) -> int8.Weight:
  """The array with the values of the tensors, laid out as `sharding` says.

  Args:
    tensor_at: the tensor for a place of `lead`: a NumPy array or LazyTensor.
    quantized: int8 with a scale per output; `dtype` is then what it computes
      with.
  """
  places: dict[tuple, list[jax.Device]] = {}
  parts = sharding.addressable_devices_indices_map(layout.shape)
  for device, index in parts.items():
    bounds = tuple(
      s.indices(n)[:2] for s, n in zip(index, layout.shape, strict=True)
    )
    places.setdefault(bounds, []).append(device)
  arrays: dict[jax.Device, tuple[jax.Array, ...]] = {}
  for bounds, devices in places.items():
    arrays |= _fill(tensor_at, layout, bounds, devices, dtype, quantized)
  shapes = [layout.shape]
  layouts = [sharding]
  if quantized:
    shapes.append(layout.lead + layout.outputs)
    layouts.append(_without(sharding, layout))
  values = [
    jax.make_array_from_single_device_arrays(
      shape, each, [arrays[device][i] for device in parts]
    )
    for i, (shape, each) in enumerate(zip(shapes, layouts, strict=True))
  ]
  return int8.Int8(*values, jnp.dtype(dtype)) if quantized else values[0]


def _fill(tensor_at, layout, bounds, devices, dtype, quantized):
  """The part of the array within `bounds`, as each of these devices' own."""
  num_lead, num_in = len(layout.lead), len(layout.inputs)
  sizes = tuple(stop - start for start, stop in bounds)
  in_bounds = bounds[num_lead : num_lead + num_in]
  shapes = [(sizes, jnp.int8 if quantized else dtype)]
  if quantized:
    outputs = sizes[:num_lead] + sizes[num_lead + num_in :]
    shapes.append((outputs, jnp.float32))
  arrays = {
    device: tuple(jnp.zeros(*s, device=device) for s in shapes)
    for device in devices
  }
  write = functools.partial(_write, in_bounds=in_bounds, num_lead=num_lead)
  for piece, starts in _pieces(tensor_at, layout, bounds, dtype, quantized):
    # It was read while the one before was written; no third is in memory.
    jax.block_until_ready(arrays)
    for device in devices:
      there = jax.device_put(piece, device)
      arrays[device] = write(arrays[device], there, np.array(starts, np.int32))
  return arrays


def _pieces(
  tensor_at, layout, bounds, dtype, quantized
) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
  """(values [n, *outputs, *inputs], where they start in the part) of a part.

  A piece is several small tensors, or some rows (of the first output axis) of
  a large one. All have one shape; at the end one may overlap the one before.
  """
  num_lead, num_in = len(layout.lead), len(layout.inputs)
  lead, inputs = bounds[:num_lead], bounds[num_lead : num_lead + num_in]
  outputs = bounds[num_lead + num_in :]
  if quantized:  # A channel's scale needs all of its inputs.
    inputs = tuple((0, n) for n in layout.inputs)
  columns = [slice(*b) for b in (*outputs[1:], *inputs)]
  first, last = outputs[0]
  probe = tensor_at(tuple(start for start, _ in lead))
  row_bytes = math.prod(s.stop - s.start for s in columns) * max(
    probe.dtype.itemsize, jnp.dtype(dtype).itemsize
  )
  rows = max(1, min(last - first, PIECE_BYTES // row_bytes))
  count = max(1, PIECE_BYTES // (rows * row_bytes)) if lead else 1
  *outer, inner = lead or [(0, 1)]
  count = min(count, inner[1] - inner[0]) if rows == last - first else 1
  view = layout.outputs + layout.inputs
  for place in itertools.product(*(range(*b) for b in outer)):
    offset = tuple(p - b[0] for p, b in zip(place, outer, strict=True))
    for i in _starts(*inner, count):
      names = [(*place, i + n) if lead else () for n in range(count)]
      tensors = [tensor_at(name).reshape(view) for name in names]
      for row in _starts(first, last, rows):
        index = (slice(row, row + rows), *columns)
        piece = np.stack([tensor[index] for tensor in tensors])
        at = (*offset, i - inner[0]) if lead else ()
        yield piece, (*at, row - first)


def _starts(start: int, stop: int, size: int) -> list[int]:
  """Where parts of one size start that cover a range; the last may overlap."""
  return [min(i, stop - size) for i in range(start, stop, size)]


@functools.partial(
  jax.jit, static_argnames=('in_bounds', 'num_lead'), donate_argnums=0
)
def _write(arrays, piece, starts, in_bounds, num_lead):
  """The arrays with a piece [n, *outputs, *inputs] written at `starts`."""
  num_in = len(in_bounds)
  num_out = piece.ndim - 1 - num_in
  order = (0, *range(1 + num_out, piece.ndim), *range(1, 1 + num_out))
  value = piece.transpose(order)
  # Of the leading axes all but the last have one entry in a piece.
  if num_lead:
    value = value.reshape((1,) * (num_lead - 1) + value.shape)
  else:
    value = value[0]
  at = [starts[i] for i in range(num_lead)]
  row = starts[num_lead]
  parts = [value.astype(arrays[0].dtype)]
  places = [[*at, *[0] * num_in, row, *[0] * (num_out - 1)]]
  if len(arrays) == 2:
    in_axes = tuple(range(num_lead, num_lead + num_in))
    levels, scale = int8.quantize(value, in_axes)
    for axis, (start, stop) in zip(in_axes, in_bounds, strict=True):
      levels = jax.lax.slice_in_dim(levels, start, stop, axis=axis)
    parts = [levels, scale]
    places.append([*at, row, *[0] * (num_out - 1)])
  return tuple(
    jax.lax.dynamic_update_slice(array, part, place)
    for array, part, place in zip(arrays, parts, places, strict=True)
  )


def _without(sharding, layout: Layout) -> jax.sharding.Sharding:
  """The sharding of what has all but the input axes."""
  if not isinstance(sharding, jax.NamedSharding):
    return sharding
  entries = [*sharding.spec, *[None] * len(layout.shape)][: len(layout.shape)]
  kept = [e for i, e in enumerate(entries) if i not in layout.in_axes]
  return jax.NamedSharding(sharding.mesh, jax.P(*kept))
