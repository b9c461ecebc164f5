"""Logical axes of weights and batches, and the mesh axes they lie on."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from erp_jax.core import errors

DATA = 'data'
MODEL = 'model'

# Axes that are not named here ('layers', 'embed', 'head_dim', …) are copied to
# every device.
RULES = {
  'batch': DATA,
  'experts': MODEL,
  'heads': MODEL,
  'kv_heads': MODEL,
  'mlp': MODEL,
  'vocab': MODEL,
}
# Copied to every device too where the mesh axis does not divide them.
_COPIED_IF_UNEVEN = ('batch', 'kv_heads', 'vocab')


def spec(
  shape: Sequence[int], axes: Sequence[str | None], mesh: jax.sharding.Mesh
) -> jax.P:
  """PartitionSpec of an array whose axes have these sizes and logical names.

  A mesh axis that a first axis lies on is not used for a second one.
  """
  entries: list[str | None] = []
  for size, axis in zip(shape, axes, strict=True):
    mesh_axis = RULES.get(axis)
    num = mesh.shape.get(mesh_axis, 1)
    if num == 1 or mesh_axis in entries or size % num:
      assert size % num == 0 or axis in _COPIED_IF_UNEVEN, (axis, size, num)
      entries.append(None)
    else:
      entries.append(mesh_axis)
  return jax.P(*entries)


def check(sizes: Iterable[tuple[str | None, int]], mesh: jax.sharding.Mesh):
  """Raises UserError if the mesh does not divide some axis that it must.

  `sizes` are (logical axis, size); the error names the sizes that work for all.
  """
  must = {
    (axis, size)
    for axis, size in sizes
    if axis in RULES and axis not in _COPIED_IF_UNEVEN
  }
  num = mesh.shape.get(MODEL, 1)
  wrong = sorted((axis, size) for axis, size in must if size % num)
  if wrong:
    common = math.gcd(*(size for _, size in must))
    works = [str(n) for n in range(1, common + 1) if common % n == 0]
    axis, size = wrong[0]
    raise errors.UserError(
      f'mesh axis {MODEL!r} has {num} devices, which does not divide the '
      f'{size} {axis} of this model: set runtime.model to one of '
      f'{", ".join(works)}.'
    )


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """x, laid out on the mesh in force as its logical axes say."""
  mesh = jax.sharding.get_abstract_mesh()
  if math.prod(mesh.shape.values()) == 1:
    return x
  return jax.lax.with_sharding_constraint(x, spec(x.shape, axes, mesh))


def fetch(tree: Any) -> Any:
  """The arrays' values as NumPy arrays, whole on each host of a group."""
  if jax.process_count() > 1:
    mesh = jax.sharding.get_mesh()
    whole = jax.NamedSharding(mesh, jax.P())
    tree = jax.jit(_same, out_shardings=whole)(tree)
  return jax.device_get(tree)


def _same(tree):  # One function, so that it is compiled once for its shapes.
  return tree


def make_mesh(data: int, model: int) -> jax.sharding.Mesh:
  """Mesh of `data` replicas, each spread over `model` devices.

  The first data * model devices are used. Axes are Auto: the compiler places
  what is not annotated (jax.make_mesh has defaulted to Explicit since 0.9).
  Raises UserError if there are too few devices.
  """
  devices = jax.devices()
  if data < 1 or model < 1 or data * model > len(devices):
    raise errors.UserError(
      f'mesh data={data} x model={model} does not fit {len(devices)} devices: '
      'both sizes must be at least 1 and their product at most that.'
    )
  return jax.make_mesh(
    (data, model),
    (DATA, MODEL),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
    devices=devices[: data * model],
  )
