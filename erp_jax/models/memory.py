"""What a checkpoint takes of each device's memory, from abstract shapes alone.

No weight is made and no device needed: shapes, the sharding table and a mesh
by its sizes give the bytes.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from erp_jax.core import chips, errors, sharding
from erp_jax.models import catalog, decoder, networks
from erp_jax.models import params as params_lib

DTYPES = ('bfloat16', 'float32', 'int8')
# Of a chip's memory, left for activations, programs and fragmentation.
_WORKSPACE_FRAC = 0.1
_MAX_CHIPS = 64
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Fit:
  """One checkpoint over chips of a kind.

  Attributes:
    num_chips: the mesh's model axis.
    weight_gib: of weights, on each chip.
    cache_kib: of keys and values of one token, on each chip; 0 for encoders.
    tokens: of cache that fit beside the weights and a tenth for all else.
    fits: whether the weights do.
  """

  model: str
  num_parameters: int
  dtype: str
  chip: str
  num_chips: int
  weight_gib: float
  cache_kib: float
  tokens: int
  fits: bool


def fit(model: str, chip: str, num_chips: int, dtype: str) -> Fit:
  """How a checkpoint (`networks.find`) lies on `num_chips` chips.

  Raises UserError for an unknown chip, and if they do not divide its heads.
  """
  kind, _ = chips.parse(chip)
  config = networks.find(model)
  mesh = jax.sharding.AbstractMesh((1, num_chips), ('data', 'model'))
  weights = _weight_bytes(config, mesh, dtype)
  cache = _cache_bytes(config, mesh)
  free = chips.CHIPS[kind].gib * _GIB * (1 - _WORKSPACE_FRAC) - weights
  return Fit(
    model=model,
    num_parameters=catalog.num_parameters(config),
    dtype=dtype,
    chip=chip,
    num_chips=num_chips,
    weight_gib=weights / _GIB,
    cache_kib=cache / 1024,
    tokens=max(0, int(free // cache)) if cache else 0,
    fits=free >= 0,
  )


def smallest(model: str, chip: str, dtype: str, tokens: int) -> Fit:
  """On the fewest chips, a power of two, that hold weights and cached tokens.

  Where none do that its heads divide by, on as many as they do; `fits` tells.
  An encoder needs no cache.
  """
  best = fit(model, chip, 1, dtype)
  while best.num_chips < _MAX_CHIPS:
    if best.fits and (not best.cache_kib or best.tokens >= tokens):
      break
    try:
      best = fit(model, chip, 2 * best.num_chips, dtype)
    except errors.UserError:
      break
  return best


def _weight_bytes(config, mesh, dtype: str) -> int:
  """Of one device; int8 is the matrices, with their scales, else bfloat16."""
  weights = catalog.weights(config)
  params_lib.check_mesh(weights, mesh)
  total = 0
  for param in params_lib.leaves(weights):
    local = _local(param.shape, param.axes, mesh)
    if dtype != 'int8':
      total += local * jnp.dtype(dtype).itemsize
    elif param.is_matrix:
      per_channel = math.prod(param.shape[i] for i in param.layout.in_axes)
      total += local + 4 * math.prod(param.shape) // per_channel
    else:
      total += 2 * local
  return total


def _cache_bytes(config, mesh) -> int:
  """Keys and values of one token, bfloat16, on one device."""
  if not isinstance(config, decoder.DecoderConfig):
    return 0
  shape = (2, config.num_layers, config.kv_heads, config.head_dim)
  return 2 * _local(shape, (None, 'layers', 'kv_heads', 'head_dim'), mesh)


def _local(shape, axes, mesh) -> int:
  """Elements of one device's part."""
  spec = sharding.spec(shape, axes, mesh)
  return math.prod(
    size // mesh.shape.get(axis, 1)
    for size, axis in zip(shape, spec, strict=True)
  )
