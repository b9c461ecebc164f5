"""Top-k and top-p: the logits of all but the likeliest ids become -inf.

Both keep what lies at or above a threshold, so ids that tie are kept or left
out together, whatever their order: all that tie at the k-th place stay.
"""

import jax
import jax.numpy as jnp

_BLOCK = 256
_ONE_BITS = 0x3F800000  # Of float32 1.0.


def keep_likeliest(logits_BV: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Logits with -inf outside the top k, and then outside the top p.

  An id is in the top p if those likelier than it hold less than `top_p` of
  what the top k left: the likeliest always is, and one before which there is
  exactly `top_p` is not. Masses and their sums are float32; a threshold that
  is closer than about 1e-6 to a sum may fall to either side of it.

  Args:
    logits_BV: float32, divided by the temperature; -inf marks ids that are
      never returned. Every row has at least one finite entry.
    top_k: 0 keeps all, and so does V or more.
    top_p: in (0, 1]; 1 keeps all.
  """
  if 0 < top_k < logits_BV.shape[-1]:
    kth_B = jax.lax.top_k(logits_BV, top_k)[0][:, -1]
    logits_BV = jnp.where(logits_BV >= kth_B[:, None], logits_BV, -jnp.inf)
  if top_p < 1:
    logits_BV = jnp.where(_in_top_p(logits_BV, top_p), logits_BV, -jnp.inf)
  return logits_BV


def _in_top_p(logits_BV: jax.Array, top_p: float) -> jax.Array:
  """True at the ids of the top p, [B, V].

  Masses against the peak's are floats in [0, 1], whose bits are integers of the
  same order: the threshold is found by bisection among those, 30 passes over
  the vocabulary. Sorting it takes six times as long (128 × 49152, CPU).
  """
  num_rows, vocab_size = logits_BV.shape
  mass_BV = jnp.exp(logits_BV - logits_BV.max(axis=-1, keepdims=True))
  pad = -vocab_size % _BLOCK  # Summed by blocks: fewer roundings than in a row.
  mass_BJI = jnp.pad(mass_BV, ((0, 0), (0, pad))).reshape(num_rows, -1, _BLOCK)
  bits_BJI = jax.lax.bitcast_convert_type(mass_BJI, jnp.int32)
  total = lambda mass_BJI: mass_BJI.sum(axis=-1).sum(axis=-1)
  target_B = top_p * total(mass_BJI)

  def halve(_, ends):
    low_B, high_B = ends  # Above low lies top_p or more, above high less.
    middle_B = (low_B + high_B) // 2
    above_BJI = bits_BJI > middle_B[:, None, None]
    is_less_B = total(jnp.where(above_BJI, mass_BJI, 0)) < target_B
    return (
      jnp.where(is_less_B, low_B, middle_B),
      jnp.where(is_less_B, middle_B, high_B),
    )

  low_B = jnp.full(num_rows, -1, jnp.int32)
  high_B = jnp.full(num_rows, _ONE_BITS, jnp.int32)
  _, least_B = jax.lax.fori_loop(0, 30, halve, (low_B, high_B))
  bits_BV = bits_BJI.reshape(num_rows, -1)[:, :vocab_size]
  return bits_BV >= least_B[:, None]
