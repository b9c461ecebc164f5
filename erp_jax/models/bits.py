"""bfloat16 arrays kept as their uint16 bits, where XLA wants that.

XLA's CPU backend has no bfloat16 slices and updates: it makes a float32 copy
of the whole array in front of the loop that slices it, at every call. Slices
of the bits cost what they should, and the bits of a slice are its values.
"""

from typing import Any

import jax
import jax.numpy as jnp


def stored(dtype: jax.typing.DTypeLike) -> jnp.dtype:
  """The dtype in which arrays of `dtype` are kept."""
  if dtype == jnp.bfloat16 and jax.default_backend() == 'cpu':
    return jnp.dtype(jnp.uint16)
  return jnp.dtype(dtype)


def pack(tree: Any) -> Any:
  """The tree with bfloat16 leaves as they are kept.

  Call it outside of the program that slices, or the copies are made there.
  """
  return _pack(tree) if stored(jnp.bfloat16) == jnp.uint16 else tree


def as_kept(x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  """x as an array of `dtype` keeps it: as bits, if that is uint16."""
  if dtype != jnp.uint16 or x.dtype == dtype:
    return x.astype(dtype)
  return _to_bits(x.astype(jnp.bfloat16))


def unpack(tree: Any) -> Any:
  """The values: leaves of bits become bfloat16."""
  return jax.tree.map(
    lambda x: _as(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x, tree
  )


def _to_bits(tree: Any) -> Any:
  return jax.tree.map(
    lambda x: _as(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x, tree
  )


_pack = jax.jit(_to_bits)


def _as(x: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  return jax.lax.bitcast_convert_type(x, dtype)
