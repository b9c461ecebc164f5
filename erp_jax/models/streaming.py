"""Tensors of a file into arrays on devices, piece by piece.

Each device's part is a buffer there; pieces of a few MiB are read, moved, and
written into it in place, by one program for all devices of a mesh. So the
memory beyond the result is a few pieces, and a host reads no byte that its
devices do not hold.
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
  sharding: jax.NamedSharding,
  dtype: jax.typing.DTypeLike,
  quantized: bool,
) -> int8.Weight:
  """The array with the values of the tensors, laid out as `sharding` says.

  Args:
    tensor_at: the tensor for a place of `lead`: a NumPy array or LazyTensor.
    sharding: of the leading axes only the last may be split.
    quantized: int8 with a scale per output; `dtype` is then what it computes
      with.
  """
  parts: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
  indices = sharding.addressable_devices_indices_map(layout.shape)
  for device, index in indices.items():
    bounds = tuple(
      s.indices(n)[:2] for s, n in zip(index, layout.shape, strict=True)
    )
    parts.setdefault(bounds, []).append(device)
  lead, inputs, outputs = layout.split(sharding.spec)
  places = [sharding.spec]
  shapes = [layout.shape]
  dtypes = [jnp.dtype(jnp.int8 if quantized else dtype)]
  if quantized:
    places.append(jax.P(*lead, *outputs))
    shapes.append(layout.lead + layout.outputs)
    dtypes.append(jnp.dtype(jnp.float32))
    # A channel's scale needs all of its inputs, on whatever device.
    inputs = (None,) * len(inputs)
  piece_at = jax.P(lead[-1] if lead else None, *layout.ordered(inputs, outputs))
  on = functools.partial(jax.NamedSharding, sharding.mesh)
  # XLA for CPU widens all of a bfloat16 array to update a part of it.
  on_cpu = next(iter(indices)).platform == 'cpu'
  stored = [jnp.uint16 if on_cpu and d.itemsize == 2 else d for d in dtypes]
  arrays = tuple(
    jnp.zeros(*shape, device=on(place))
    for *shape, place in zip(shapes, stored, places, strict=True)
  )
  for starts, count, rows in _steps(
    layout, next(iter(parts)), tensor_at((0,) * len(lead)).dtype, dtypes[0]
  ):
    pieces = []
    for bounds, devices in parts.items():
      if quantized:
        bounds = _whole_inputs(layout, bounds)
      piece = _read(tensor_at, layout, bounds, starts, count, rows)
      pieces += [jax.device_put(piece, device) for device in devices]
    # They were read while the ones before were written; no third is in memory.
    jax.block_until_ready(arrays)
    arrays = _write(
      arrays,
      _assemble(pieces, on(piece_at)),
      np.array(starts, np.int32),
      layout,
      tuple(dtypes),
      tuple(map(on, places)),
      on(piece_at),
    )
  values = [
    array if array.dtype == d else _reinterpret(array, d)
    for array, d in zip(arrays, dtypes, strict=True)
  ]
  return int8.Int8(*values, jnp.dtype(dtype)) if quantized else values[0]


def _whole_inputs(layout, bounds):
  """The bounds with the input axes whole."""
  whole = {i: (0, layout.shape[i]) for i in layout.in_axes}
  return tuple(whole.get(i, b) for i, b in enumerate(bounds))


def _steps(
  layout, bounds, found, dtype
) -> Iterator[tuple[tuple[int, ...], int, int]]:
  """(starts, tensors, rows) of pieces that cover any device's part.

  A piece is several small tensors along the last leading axis, or some rows
  (of the first output axis) of a large one; its starts are places of the part,
  (*lead, row). All have one shape; at the end one may overlap the one before.
  """
  lead, inputs, outputs = layout.split([stop - start for start, stop in bounds])
  last, *columns = outputs
  row_bytes = max(found.itemsize, dtype.itemsize)
  row_bytes *= math.prod((*columns, *inputs))
  rows = max(1, min(last, PIECE_BYTES // row_bytes))
  *outer, inner = lead or [1]
  count = 1
  if rows == last:
    count = min(inner, max(1, PIECE_BYTES // (rows * row_bytes)))
  for place in itertools.product(*map(range, outer)):
    for i in _starts(inner, count):
      at = (*place, i) if lead else ()
      for row in _starts(last, rows):
        yield (*at, row), count, rows


def _starts(stop: int, size: int) -> list[int]:
  """Where parts of one size start that cover a range; the last may overlap."""
  return [min(i, stop - size) for i in range(0, stop, size)]


def _read(tensor_at, layout, bounds, starts, count, rows) -> np.ndarray:
  """One device's piece [count, …], in the order of the array's axes."""
  lead, inputs, outputs = layout.split(bounds)
  *at, row = starts
  place = tuple(p + b[0] for p, b in zip(at, lead, strict=True))
  names = [(*place[:-1], place[-1] + n) if lead else () for n in range(count)]
  first = outputs[0][0] + row
  columns = [slice(*b) for b in (*outputs[1:], *inputs)]
  index = (slice(first, first + rows), *columns)
  view = layout.outputs + layout.inputs
  parts = [tensor_at(name).reshape(view)[index] for name in names]
  piece = np.stack(parts) if count > 1 else parts[0][None]
  num_out = len(outputs)
  order = layout.ordered(
    tuple(range(1 + num_out, piece.ndim)), tuple(range(1, 1 + num_out))
  )
  # A view: moving it to a device puts it in order, and fast.
  return piece.transpose(0, *order)


def _assemble(pieces: list[jax.Array], place: jax.NamedSharding) -> jax.Array:
  """One array of each device's piece."""
  shape = tuple(
    size * place.mesh.shape.get(axis, 1)
    for size, axis in zip(pieces[0].shape, place.spec, strict=True)
  )
  return jax.make_array_from_single_device_arrays(shape, place, pieces)


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6), donate_argnums=0)
def _write(arrays, piece, starts, layout, dtypes, places, piece_at):
  """The arrays with each device's piece [n, …] written at `starts`."""
  num_lead = len(layout.lead)

  def local(arrays, piece, starts):
    # Of the leading axes all but the last have one entry in a piece.
    value = jnp.expand_dims(piece, tuple(range(num_lead - 1)))
    value = value if num_lead else value[0]
    lead_at, row = [starts[i] for i in range(num_lead)], starts[num_lead]
    in_at = (0,) * len(layout.inputs)
    out_at = (row, *(0,) * (len(layout.outputs) - 1))
    offsets = [(*lead_at, *layout.ordered(in_at, out_at))]
    if len(arrays) == 1:
      values = [value.astype(dtypes[0])]
    else:
      levels, scale = int8.quantize(value, layout.in_axes)
      for axis in layout.in_axes:
        size = arrays[0].shape[axis]
        if size < levels.shape[axis]:
          start = size * jax.lax.axis_index(places[0].spec[axis])
          levels = jax.lax.dynamic_slice_in_dim(levels, start, size, axis)
      values = [levels, scale]
      offsets.append((*lead_at, *out_at))
    return tuple(
      jax.lax.dynamic_update_slice(array, _as_bits(value, array.dtype), offset)
      for array, value, offset in zip(arrays, values, offsets, strict=True)
    )

  specs = tuple(place.spec for place in places)
  return jax.shard_map(
    local,
    mesh=piece_at.mesh,
    in_specs=(specs, piece_at.spec, jax.P()),
    out_specs=specs,
    check_vma=False,  # A scale is the same on all devices that share it.
  )(arrays, piece, starts)


def _as_bits(value, dtype):
  if value.dtype == dtype:
    return value
  return jax.lax.bitcast_convert_type(value, dtype)


def _reinterpret(array: jax.Array, dtype) -> jax.Array:
  """The same bits as another dtype, in the same memory: CPUs only."""
  parts = [
    jax.device_put(np.asarray(shard.data).view(dtype), shard.device)
    for shard in array.addressable_shards
  ]
  return jax.make_array_from_single_device_arrays(
    array.shape, array.sharding, parts
  )
