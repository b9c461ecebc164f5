"""DeBERTa's disentangled attention: by our own kernel on CPU, or by XLA.

A pair's score is the query with the key, the query with the key table's row of
their distance, and the key with the query table's. XLA holds all three for all
pairs, and moves them about longer than it multiplies; the kernel does neither.
Tables [H, W, R] hold R rows; `row` says which one is that of a distance, for
the distances T − 1 down to 1 − T.
"""

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.models import native

_TARGET = 'DisentangledAttention'

# Of a row's tokens, when XLA computes scores by distance.
_PARTS = 4


def attend(
  q_BTHW: jax.Array,
  k_BSHW: jax.Array,
  v_BSHW: jax.Array,
  key_HWR: jax.Array,
  query_HWR: jax.Array,
  row: np.ndarray,
  valid_BS: jax.Array,
) -> jax.Array:
  """Attention of every token to the valid ones of its row, [B, T, H, W].

  Finite without meaning where a token, or its whole row, is not valid.
  """
  args = (q_BTHW, k_BSHW, v_BSHW, key_HWR, query_HWR, row, valid_BS)
  if q_BTHW.dtype == jnp.float32 and is_usable():
    out = jax.ShapeDtypeStruct(q_BTHW.shape, jnp.float32)
    call = jax.ffi.ffi_call(_TARGET, out)
    scale = np.float32(_scale(q_BTHW))
    return call(*args[:5], row.astype(np.int32), valid_BS, scale=scale)
  return _attend_by_xla(*args)


def is_usable() -> bool:
  """Whether this process can run the kernel: see `native.is_usable`."""
  source = 'disentangled_attention.cc'
  doing = 'reading with DeBERTa'
  return native.is_usable(source, (_TARGET,), doing, needs='avx512f')


def attend_one(
  q_BHW: jax.Array,
  k_BSHW: jax.Array,
  v_BSHW: jax.Array,
  key_HWR: jax.Array,
  query_HWR: jax.Array,
  row_BS: jax.Array,
  valid_BS: jax.Array,
) -> jax.Array:
  """`attend` of one token of each row, [B, H, W]; row_BS of its distances."""
  score_BHS = jnp.einsum('BHW,BSHW->BHS', q_BHW, k_BSHW)
  far_BHR = jnp.einsum('BHW,HWR->BHR', q_BHW, key_HWR)
  score_BHS += jnp.take_along_axis(far_BHR, row_BS[:, None], axis=2)
  far_BSHW = query_HWR.transpose(2, 0, 1)[row_BS]
  score_BHS += jnp.einsum('BSHW,BSHW->BHS', k_BSHW, far_BSHW)
  weight_BHS, total_BH = _exponentials(
    score_BHS, _scale(q_BHW), valid_BS[:, None]
  )
  weight_BHS = weight_BHS.astype(v_BSHW.dtype)
  mean_BHW = jnp.einsum('BHS,BSHW->BHW', weight_BHS, v_BSHW)
  return (mean_BHW / total_BH[..., None]).astype(q_BHW.dtype)


def _scale(q: jax.Array) -> float:
  """One for all three products of a pair."""
  return (3 * q.shape[-1]) ** -0.5


def _attend_by_xla(
  q_BTHW, k_BSHW, v_BSHW, key_HWR, query_HWR, row, valid_BS
) -> jax.Array:
  """Heads come first, as the tables are of a head and of all rows."""
  q_HBTW, k_HBSW, v_HBSW = (
    jnp.moveaxis(x, 2, 0) for x in (q_BTHW, k_BSHW, v_BSHW)
  )
  score_HBTS = jnp.einsum('HBTW,HBSW->HBTS', q_HBTW, k_HBSW)
  # A last distance, which is never read.
  down, up = np.append(row, row[-1]), np.append(row[::-1], row[0])
  score_HBTS += _by_distance(q_HBTW, key_HWR[:, :, down])
  # A key's distances to queries go up where those of a query to keys go down.
  score_HBTS += _by_distance(k_HBSW, query_HWR[:, :, up]).mT
  weight_HBTS, total_HBT = _exponentials(
    score_HBTS, _scale(q_BTHW), valid_BS[:, None]
  )
  weight_HBTS = weight_HBTS.astype(v_BSHW.dtype)
  mean_HBTW = jnp.einsum('HBTS,HBSW->HBTW', weight_HBTS, v_HBSW)
  mean_HBTW /= total_HBT[..., None]
  return jnp.moveaxis(mean_HBTW.astype(q_BTHW.dtype), 0, 2)


def _exponentials(score, scale, valid) -> tuple[jax.Array, jax.Array]:
  """exp(score − top) over the last axis and its sum, float32."""
  score = score.astype(jnp.float32) * scale
  # A large number, not -inf: rows that fill up a batch have no valid token.
  score = jnp.where(valid, score, jnp.finfo(jnp.float32).min)
  weight = jnp.exp(score - score.max(axis=-1, keepdims=True))
  return weight, weight.sum(axis=-1)


def _by_distance(x_HBTW: jax.Array, rel_HWU: jax.Array) -> jax.Array:
  """Products of each token with the rows of its distances, [H, B, T, S].

  rel_HWU has the rows of the distances T − 1 down to −T. Some tokens at a time
  need little more than half of them.
  """
  T = x_HBTW.shape[2]
  step = -(-T // _PARTS)
  parts = []
  for start in range(0, T, step):
    part_HBTW = x_HBTW[:, :, start : start + step]
    end = 2 * T - start
    near_HWU = rel_HWU[:, :, end - T - part_HBTW.shape[2] : end]
    product_HBTU = jnp.einsum('HBTW,HWU->HBTU', part_HBTW, near_HWU)
    parts.append(_skew(product_HBTU))
  return jnp.concatenate(parts, axis=2)


def _skew(x_HBTU: jax.Array) -> jax.Array:
  """[..., T, T + S] by distance -> [..., T, S]: (t, s) is (t, T − 1 + s − t).

  Rows that are one shorter start one later each; no gather, which would cost
  as much as the products around it.
  """
  *lead, T, U = x_HBTU.shape
  flat = x_HBTU.reshape(*lead, T * U)[..., T - 1 : T - 1 + T * (U - 1)]
  return flat.reshape(*lead, T, U - 1)[..., : U - T]
