"""Norm, rotary positions and attention over a shared prefix and own suffix."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def rms_norm(x: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
  """x over its root mean square along the last axis, times scale_D.

  Computed in float32, returned in the dtype of x.
  """
  wide = x.astype(jnp.float32)
  square = jnp.mean(wide * wide, axis=-1, keepdims=True)
  normed = (wide * jax.lax.rsqrt(square + eps)).astype(x.dtype)
  return normed * scale_D


def rope_frequencies(
  head_dim: int,
  theta: float,
  factor: float,
  low: float,
  high: float,
  original: int,
) -> np.ndarray:
  """Radians per position of each of the head_dim / 2 pairs, float64.

  With factor > 1, as Llama 3.1 scales them: wavelengths longer than
  original / low are slowed by the factor, those shorter than original / high
  stay, in between the two are blended linearly in 1 / wavelength.
  """
  freq = theta ** -(np.arange(0, head_dim, 2) / head_dim)
  if factor == 1:
    return freq
  turns = original * freq / (2 * math.pi)
  keep_frac = np.clip((turns - low) / (high - low), 0, 1)
  return keep_frac * freq + (1 - keep_frac) * freq / factor


def rope_table(
  position_PKT: jax.Array, freq: np.ndarray
) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine per position and pair, float32, [P, K, T, 1, W / 2]."""
  angle = position_PKT[..., None].astype(jnp.float32) * freq.astype(np.float32)
  return jnp.cos(angle)[..., None, :], jnp.sin(angle)[..., None, :]


def rotate(x_PKTHW: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Rotates pair (i, i + W / 2) of each head by its angle, in float32."""
  cos, sin = table
  first, second = jnp.split(x_PKTHW.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x_PKTHW.dtype)


# A part of the keys, attended to alone: sum of exp(score - top) * value, sum
# of exp(score - top), and top, the row's largest score. The softmax over
# several parts is `merge` of theirs, so no part is copied next to another.
Part = tuple[jax.Array, jax.Array, jax.Array]


def attend_shared(
  q_PKTGRW: jax.Array,
  key_PGWS: jax.Array,
  value_PGSW: jax.Array,
  visible_PS: jax.Array,
) -> Part:
  """Attention of K sequences to the keys of their prompt."""
  score_PGKTRS = jnp.einsum(
    'PKTGRW,PGWS->PGKTRS',
    q_PKTGRW,
    key_PGWS,
    preferred_element_type=jnp.float32,
  )
  visible = visible_PS[:, None, None, None, None, :]
  weight_PGKTRS, total, top = _exponentials(score_PGKTRS, q_PKTGRW, visible)
  out_PGKTRW = jnp.einsum(
    'PGKTRS,PGSW->PGKTRW',
    weight_PGKTRS,
    value_PGSW,
    preferred_element_type=jnp.float32,
  )
  return tuple(jnp.moveaxis(x, 1, 3) for x in (out_PGKTRW, total, top))


def attend_own(
  q_PKTGRW: jax.Array,
  key_PKGWS: jax.Array,
  value_PKGSW: jax.Array,
  visible_PKTS: jax.Array,
) -> Part:
  """Attention of each sequence to its own keys."""
  score_PKGTRS = jnp.einsum(
    'PKTGRW,PKGWS->PKGTRS',
    q_PKTGRW,
    key_PKGWS,
    preferred_element_type=jnp.float32,
  )
  visible = visible_PKTS[:, :, None, :, None, :]
  weight_PKGTRS, total, top = _exponentials(score_PKGTRS, q_PKTGRW, visible)
  out_PKGTRW = jnp.einsum(
    'PKGTRS,PKGSW->PKGTRW',
    weight_PKGTRS,
    value_PKGSW,
    preferred_element_type=jnp.float32,
  )
  return tuple(jnp.moveaxis(x, 2, 3) for x in (out_PKGTRW, total, top))


def merge(parts: list[Part]) -> jax.Array:
  """Softmax attention over all parts, [P, K, T, G, R, W] in float32.

  A row that sees nothing gives zeros.
  """
  top = jnp.max(jnp.stack([part[2] for part in parts]), axis=0)
  scales = [jnp.exp(part[2] - top) for part in parts]
  out = sum(part[0] * s for part, s in zip(parts, scales, strict=True))
  total = sum(part[1] * s for part, s in zip(parts, scales, strict=True))
  return out / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)


def _exponentials(
  score: jax.Array, query: jax.Array, visible: jax.Array
) -> Part:
  """exp(score / sqrt(W) - top), its sum and top over the last axis."""
  score = jnp.where(visible, score * query.shape[-1] ** -0.5, -jnp.inf)
  # The finite floor keeps rows that see nothing at exp(-inf), not exp(nan).
  floor = jnp.finfo(jnp.float32).min
  top = jnp.max(score, axis=-1, keepdims=True, initial=floor)
  weight = jnp.exp(score - top)
  total = jnp.sum(weight, axis=-1, keepdims=True)
  return weight.astype(query.dtype), total, top
