"""Weights kept as int8 with one float32 scale per output channel.

The matmuls read int8 and compute in the dtype of the activations, so only the
memory and its traffic shrink; the sums are those of rounded weights.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
  """A weight as value * scale.

  Attributes:
    value: int8, in [-127, 127].
    scale: float32; its axes are the value's leading ones (layers, experts) and
      its output axes.
    dtype: of the activations that it is multiplied with.
  """

  value: jax.Array
  scale: jax.Array
  dtype: jnp.dtype = dataclasses.field(metadata={'static': True})

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the weight."""
    return self.value.shape


Weight = jax.Array | Int8


def quantize(
  value: jax.Array, in_axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
  """int8 values and the scales that map each channel's largest to 127.

  A channel of zeros has scale 0. The error of a weight is at most scale / 2.
  """
  value = value.astype(jnp.float32)
  scale = jnp.max(jnp.abs(value), axis=in_axes, keepdims=True) / 127
  levels = jnp.round(value / jnp.where(scale, scale, 1))
  return levels.astype(jnp.int8), jnp.squeeze(scale, in_axes)


def einsum(subscripts: str, x: jax.Array, w: Weight) -> jax.Array:
  """jnp.einsum of activations and a weight, in the activations' dtype.

  The weight's output axes must be the last ones of the result, in order.
  """
  return sums(subscripts, x, w).astype(x.dtype)


def sums(subscripts: str, x: jax.Array, w: Weight) -> jax.Array:
  """`einsum` in float32, before it is rounded."""
  value = w.value.astype(x.dtype) if isinstance(w, Int8) else w
  # Summed in float32: CPUs multiply bfloat16 six times slower without.
  out = jnp.einsum(subscripts, x, value, preferred_element_type=jnp.float32)
  return out * w.scale if isinstance(w, Int8) else out


def take(table: Weight, ids: jax.Array) -> jax.Array:
  """Rows of an embedding table."""
  if not isinstance(table, Int8):
    return table[ids]
  rows = table.value[ids] * table.scale[ids][..., None]
  return rows.astype(table.dtype)


def logits(hidden: jax.Array, table: Weight) -> jax.Array:
  """Products of states [..., D] with the rows of a table [V, D], float32."""
  rows = table.value.astype(hidden.dtype) if isinstance(table, Int8) else table
  out = jnp.tensordot(
    hidden, rows, axes=(-1, -1), preferred_element_type=jnp.float32
  )
  return out * table.scale if isinstance(table, Int8) else out
