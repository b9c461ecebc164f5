"""Logical axes of weights and batches, and the mesh axes they lie on."""

import math
from collections.abc import Sequence

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

  A mesh axis that a first axis lies on is not used for a second one. Raises
  UserError, with the sizes that work, where the mesh does not divide an axis.
  """
  entries: list[str | None] = []
  for size, axis in zip(shape, axes, strict=True):
    mesh_axis = RULES.get(axis)
    num = mesh.shape.get(mesh_axis, 1)
    if num == 1 or mesh_axis in entries:
      entries.append(None)
    elif size % num == 0:
      entries.append(mesh_axis)
    elif axis in _COPIED_IF_UNEVEN:
      entries.append(None)
    else:
      works = ', '.join(str(n) for n in range(1, size + 1) if size % n == 0)
      raise errors.UserError(
        f'mesh axis {mesh_axis!r} has {num} devices, which does not divide '
        f'the {size} {axis} of this model: set runtime.{mesh_axis} to one of '
        f'{works}.'
      )
  return jax.P(*entries)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """x, laid out on the mesh in force as its logical axes say."""
  mesh = jax.sharding.get_abstract_mesh()
  if math.prod(mesh.shape.values()) == 1:
    return x
  return jax.lax.with_sharding_constraint(x, spec(x.shape, axes, mesh))


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
