"""Logical axes of weights and batches, and the mesh axes they lie on."""

import jax

from erp_jax.core import errors

DATA = 'data'
MODEL = 'model'

# Axes that are not named here ('layers', 'embed', 'head_dim', …) are copied to
# every device.
RULES = {
  'batch': DATA,
  'vocab': MODEL,
  'mlp': MODEL,
  'heads': MODEL,
  'kv_heads': MODEL,
}


def spec(*logical: str | None) -> jax.P:
  """PartitionSpec of an array with these logical axes."""
  return jax.P(*(RULES.get(axis) for axis in logical))


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
