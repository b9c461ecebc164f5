"""Norms, activations, rotary positions; attention over prefix and suffix."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def rms_norm(
  x: jax.Array, scale: jax.Array, eps: float, plus_one: bool = False
) -> jax.Array:
  """x over its root mean square along the last axis, times the scale.

  Computed in float32, returned in the dtype of x. With `plus_one` the factor
  is 1 + scale, in float32 too (Gemma); without, x is rounded before it (Llama).
  """
  wide = x.astype(jnp.float32)
  square = jnp.mean(wide * wide, axis=-1, keepdims=True)
  normed = wide * jax.lax.rsqrt(square + eps)
  if plus_one:
    return (normed * (1 + scale.astype(jnp.float32))).astype(x.dtype)
  return normed.astype(x.dtype) * scale


def layer_norm(
  x: jax.Array, norm: dict[str, jax.Array], eps: float
) -> jax.Array:
  """x standardised along the last axis, times `scale`, plus `bias`.

  Computed in float32, returned in the dtype of x.
  """
  wide = x.astype(jnp.float32)
  mean = wide.mean(axis=-1, keepdims=True)
  var = wide.var(axis=-1, keepdims=True)
  normed = (wide - mean) * jax.lax.rsqrt(var + eps)
  return (normed * norm['scale'] + norm['bias']).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
  """The exact GELU, by the error function."""
  return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS = {
  'silu': jax.nn.silu,
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
}


def rope_frequencies(
  head_dim: int,
  theta: float,
  factor: float = 1.0,
  low: float = 1.0,
  high: float = 4.0,
  original: int = 8192,
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


class Scores(NamedTuple):
  """How attention scores come from products of queries and keys."""

  scale: float
  softcap: float  # cap * tanh(score / cap) before the mask; 0 is none.


# A part of the keys, attended to alone: sum of exp(score - top) * value, sum
# of exp(score - top), and top, the row's largest score. The softmax over
# several parts is `merge` of theirs, so no part is copied next to another.
Part = tuple[jax.Array, jax.Array, jax.Array]


def attend_shared(
  q_PKTGRW: jax.Array,
  key_PGWS: jax.Array,
  value_PGSW: jax.Array,
  visible_PKTS: jax.Array,
  scores: Scores,
) -> Part:
  """Attention of K sequences to the keys of their prompt.

  The K and T axes of visible_PKTS may be 1.
  """
  score_PGKTRS = jnp.einsum(
    'PKTGRW,PGWS->PGKTRS',
    q_PKTGRW,
    key_PGWS,
    preferred_element_type=jnp.float32,
  )
  visible = visible_PKTS[:, None, :, :, None]
  weight_PGKTRS, total, top = _exponentials(score_PGKTRS, scores, visible)
  weight_PGKTRS = weight_PGKTRS.astype(value_PGSW.dtype)
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
  scores: Scores,
) -> Part:
  """Attention of each sequence to its own keys."""
  score_PKGTRS = jnp.einsum(
    'PKTGRW,PKGWS->PKGTRS',
    q_PKTGRW,
    key_PKGWS,
    preferred_element_type=jnp.float32,
  )
  visible = visible_PKTS[:, :, None, :, None, :]
  weight_PKGTRS, total, top = _exponentials(score_PKGTRS, scores, visible)
  weight_PKGTRS = weight_PKGTRS.astype(value_PKGSW.dtype)
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


def _exponentials(score: jax.Array, scores: Scores, visible: jax.Array) -> Part:
  """exp(score - top), its sum and top over the last axis, float32."""
  score *= scores.scale
  if scores.softcap:
    score = scores.softcap * jnp.tanh(score / scores.softcap)
  score = jnp.where(visible, score, -jnp.inf)
  # The finite floor keeps rows that see nothing at exp(-inf), not exp(nan).
  floor = jnp.finfo(jnp.float32).min
  top = jnp.max(score, axis=-1, keepdims=True, initial=floor)
  weight = jnp.exp(score - top)
  total = jnp.sum(weight, axis=-1, keepdims=True)
  return weight, total, top
