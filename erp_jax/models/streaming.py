"""Tensors of a file into arrays on devices, piece by piece.

Each device's part is a buffer there; pieces of a few MiB are read, moved, and
written into it in place. So the memory beyond the result is a few pieces, and
a host reads no byte that its devices do not hold.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.models import int8

# Larger pieces are not faster, and the allocator keeps many times their size.
PIECE_BYTES = 2 * 2**20


class Layout(NamedTuple):
  """How the tensors of a file make up one array.

  There is one tensor [*outputs, *inputs] for each place of `lead`; the array
  is [*lead, *inputs, *outputs], or with `as_is` [*lead, *outputs, *inputs].
  """

  lead: tuple[int, ...]
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  as_is: bool = False

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the array."""
    return self.lead + self.ordered(self.inputs, self.outputs)

  def ordered(self, inputs, outputs):
    """What goes with the axes after `lead`, in the array's order."""
    return outputs + inputs if self.as_is else inputs + outputs

  @property
  def in_axes(self) -> tuple[int, ...]:
    """Axes of the array that are inputs."""
    start = len(self.lead) + (len(self.outputs) if self.as_is else 0)
    return tuple(range(start, start + len(self.inputs)))

  def split(self, items: Sequence[Any]) -> tuple[tuple[Any, ...], ...]:
    """One item per axis of the array, as (lead, inputs, outputs)."""
    num_lead, rest = len(self.lead), tuple(items)[len(self.lead) :]
    inputs = tuple(items[i] for i in self.in_axes)
    num_in = len(inputs)
    outputs = rest[: len(rest) - num_in] if self.as_is else rest[num_in:]
    return tuple(items)[:num_lead], inputs, outputs


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
    layouts.append(_without_inputs(sharding, layout))
  values = [
    jax.make_array_from_single_device_arrays(
      shape, each, [arrays[device][i] for device in parts]
    )
    for i, (shape, each) in enumerate(zip(shapes, layouts, strict=True))
  ]
  return int8.Int8(*values, jnp.dtype(dtype)) if quantized else values[0]


def _fill(tensor_at, layout, bounds, devices, dtype, quantized):
  """The part of the array within `bounds`, as each of these devices' own."""
  sizes = tuple(stop - start for start, stop in bounds)
  dtypes = [jnp.dtype(jnp.int8 if quantized else dtype)]
  shapes = [sizes]
  if quantized:
    dtypes.append(jnp.dtype(jnp.float32))
    lead, _, outputs = layout.split(sizes)
    shapes.append(lead + outputs)
  # XLA for CPU widens all of a bfloat16 array to update a part of it.
  on_cpu = devices[0].platform == 'cpu'
  stored = [jnp.uint16 if on_cpu and d.itemsize == 2 else d for d in dtypes]
  arrays = {
    device: tuple(
      jnp.zeros(*args, device=device)
      for args in zip(shapes, stored, strict=True)
    )
    for device in devices
  }
  write = functools.partial(
    _write, layout=layout, bounds=bounds, dtypes=tuple(dtypes)
  )
  for piece, starts in _pieces(tensor_at, layout, bounds, dtype, quantized):
    # It was read while the one before was written; no third is in memory.
    jax.block_until_ready(list(arrays.values()))
    for device in devices:
      there = jax.device_put(piece, device)
      arrays[device] = write(arrays[device], there, np.array(starts, np.int32))
  return {
    device: tuple(
      # On a CPU neither of these two copies.
      jax.device_put(np.asarray(array).view(d), device)
      if array.dtype != d
      else array
      for array, d in zip(parts, dtypes, strict=True)
    )
    for device, parts in arrays.items()
  }


def _pieces(
  tensor_at, layout, bounds, dtype, quantized
) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
  """Pieces of a part, and where they start in it: (*lead, first output axis).

  A piece is several small tensors, or some rows (of the first output axis) of
  a large one, as [n, *inputs, *outputs] or what the layout says. All have one
  shape; at the end one may overlap the one before.
  """
  lead, inputs, outputs = layout.split(bounds)
  if quantized:  # A channel's scale needs all of its inputs.
    inputs = tuple((0, n) for n in layout.inputs)
  columns = [slice(*b) for b in (*outputs[1:], *inputs)]
  first, last = outputs[0]
  probe = tensor_at(tuple(start for start, _ in lead))
  row_bytes = math.prod(s.stop - s.start for s in columns) * max(
    probe.dtype.itemsize, jnp.dtype(dtype).itemsize
  )
  rows = max(1, min(last - first, PIECE_BYTES // row_bytes))
  *outer, inner = lead or [(0, 1)]
  count = 1
  if rows == last - first:
    count = max(1, PIECE_BYTES // (rows * row_bytes))
    count = min(count, inner[1] - inner[0])
  view = layout.outputs + layout.inputs
  num_out = len(layout.outputs)
  order = layout.ordered(
    tuple(range(1 + num_out, 1 + len(view))), tuple(range(1, 1 + num_out))
  )
  for place in itertools.product(*(range(*b) for b in outer)):
    offset = tuple(p - b[0] for p, b in zip(place, outer, strict=True))
    for i in _starts(*inner, count):
      names = [(*place, i + n) if lead else () for n in range(count)]
      tensors = [tensor_at(name).reshape(view) for name in names]
      at = (*offset, i - inner[0]) if lead else ()
      for row in _starts(first, last, rows):
        index = (slice(row, row + rows), *columns)
        parts = [tensor[index] for tensor in tensors]
        piece = np.stack(parts) if count > 1 else parts[0][None]
        # A view: moving it to the device puts it in order, and fast.
        yield piece.transpose(0, *order), (*at, row - first)


def _starts(start: int, stop: int, size: int) -> list[int]:
  """Where parts of one size start that cover a range; the last may overlap."""
  return [min(i, stop - size) for i in range(start, stop, size)]


@functools.partial(
  jax.jit, static_argnames=('layout', 'bounds', 'dtypes'), donate_argnums=0
)
def _write(arrays, piece, starts, layout, bounds, dtypes):
  """The arrays with a piece [n, …] written at `starts`."""
  num_lead = len(layout.lead)
  # Of the leading axes all but the last have one entry in a piece.
  value = jnp.expand_dims(piece, tuple(range(num_lead - 1)))
  value = value if num_lead else value[0]
  lead_at, row = [starts[i] for i in range(num_lead)], starts[num_lead]
  in_at = (0,) * len(layout.inputs)
  out_at = (row, *(0,) * (len(layout.outputs) - 1))
  places = [(*lead_at, *layout.ordered(in_at, out_at))]
  if len(arrays) == 1:
    parts = [value.astype(dtypes[0])]
  else:
    levels, scale = int8.quantize(value, layout.in_axes)
    for axis in layout.in_axes:
      levels = jax.lax.slice_in_dim(levels, *bounds[axis], axis=axis)
    parts = [levels, scale]
    places.append((*lead_at, *out_at))
  return tuple(
    jax.lax.dynamic_update_slice(
      array,
      part
      if part.dtype == array.dtype
      else jax.lax.bitcast_convert_type(part, array.dtype),
      place,
    )
    for array, part, place in zip(arrays, parts, places, strict=True)
  )


def _without_inputs(sharding, layout: Layout) -> jax.sharding.Sharding:
  """The sharding of what has all but the input axes."""
  if not isinstance(sharding, jax.NamedSharding):
    return sharding
  lead, _, outputs = layout.split(sharding.spec)
  return jax.NamedSharding(sharding.mesh, jax.P(*lead, *outputs))
