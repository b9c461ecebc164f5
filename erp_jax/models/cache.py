"""Keys and values of a decoder: a prompt's, and each sequence's own."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from erp_jax.core import sharding
from erp_jax.models import bits


class Prefix(NamedTuple):
  """Keys and values that all K sequences of a prompt share.

  Entry s has position s; those at and after len_P are padding. Keys are kept
  [..., W, S]: on CPU the scores of a decode step are then 8 times cheaper.
  """

  key_LPGWS: jax.Array
  value_LPGSW: jax.Array
  len_P: jax.Array


class Suffix(NamedTuple):
  """Keys, values and positions that each sequence has for itself."""

  key_LPKGWS: jax.Array
  value_LPKGSW: jax.Array
  position_PKS: jax.Array


def as_prefix(suffix: Suffix, len_P: jax.Array, size: int) -> Prefix:
  """The cache of one sequence per prompt as a prefix padded to `size`."""
  pad = size - suffix.key_LPKGWS.shape[-1]
  assert pad >= 0 and suffix.key_LPKGWS.shape[2] == 1
  key_LPGWS = suffix.key_LPKGWS[:, :, 0]
  value_LPGSW = suffix.value_LPKGSW[:, :, 0]
  return Prefix(
    jnp.pad(key_LPGWS, ((0, 0),) * 4 + ((0, pad),)),
    jnp.pad(value_LPGSW, ((0, 0),) * 3 + ((0, pad), (0, 0))),
    len_P,
  )


def of_layer(
  cache: jax.Array, layer: jax.Array, sizes: Mapping[int, int]
) -> jax.Array:
  """The values of one layer of a cache, axes of it cut to these sizes.

  One slice from the whole: a slice of a slice would copy the larger.
  """
  shape = [1, *cache.shape[1:]]
  for axis, size in sizes.items():
    shape[1 + axis] = size
  start = [layer, *(0 for _ in shape[1:])]
  return bits.unpack(jax.lax.dynamic_slice(cache, start, shape)[0])


def write(
  suffix: Suffix,
  key_LPKGWT: jax.Array,
  value_LPKGTW: jax.Array,
  position_PKT: jax.Array,
  slot: jax.Array | int,
) -> Suffix:
  """The cache with T new entries of its first P prompts, from `slot` on."""
  return Suffix(
    on_mesh(_update(suffix.key_LPKGWS, key_LPKGWT, slot, -1)),
    on_mesh(_update(suffix.value_LPKGSW, value_LPKGTW, slot, -2)),
    _update(suffix.position_PKS, position_PKT, slot, -1),
  )


def _update(cache, new, slot, axis):
  start = [0] * cache.ndim
  start[axis] = slot
  new = bits.as_kept(new, cache.dtype)
  return jax.lax.dynamic_update_slice(cache, new, start)


def on_mesh(cache: jax.Array) -> jax.Array:
  """A cache [L, P, K, G, ...] by prompt and key head on the mesh in force."""
  return sharding.constrain(cache, None, 'batch', None, 'kv_heads', None, None)
