"""Attention of new tokens to their prompt, older tokens and each other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from erp_jax.models import cache as cache_lib
from erp_jax.models import decode_attention, layers


class Seen(NamedTuple):
  """Which keys a token sees: the new ones, older ones, and the prefix's."""

  new_PKTS: jax.Array
  old_PKTS: jax.Array
  prefix_PKTS: jax.Array


def seen(
  position_PKT: jax.Array,
  prefix_size: int,
  len_P: jax.Array | None,
  slot: jax.Array | int,
  visible_PKTS: jax.Array,
) -> Seen:
  """What each token sees in a layer without a window."""
  P, _, T = position_PKT.shape
  at_S = jnp.arange(visible_PKTS.shape[-1])
  replaced_S = (at_S >= slot) & (at_S < slot + T)
  seen_PS = jnp.zeros((P, 0), bool)
  if prefix_size:
    seen_PS = jnp.arange(prefix_size) < len_P[:P, None]
  return Seen(
    jax.lax.dynamic_slice_in_dim(visible_PKTS, slot, T, axis=-1),
    visible_PKTS & ~replaced_S,
    seen_PS[:, None, None],
  )


def near(
  window: int,
  position_PKT: jax.Array,
  prefix_size: int,
  position_PKS: jax.Array,
) -> Seen:
  """Which keys lie in the window of each token."""

  def within(key_position):
    return position_PKT[..., None] - key_position < window

  return Seen(
    within(position_PKT[..., None, :]),
    within(position_PKS[: len(position_PKT), :, None]),
    within(jnp.arange(prefix_size)),
  )


def skips_unseen() -> bool:
  """Whether a decode step reads only what is seen of a cache, whatever size."""
  return decode_attention.is_usable()


def attend(
  q_PKTGRW: jax.Array,
  new: tuple[jax.Array, jax.Array],
  shared: tuple[jax.Array, jax.Array] | None,
  own: tuple[jax.Array, jax.Array],
  layer: jax.Array,
  sees: Seen,
  scores: layers.Scores,
) -> jax.Array:
  """Softmax attention over all keys at once, [P, K, T, G, R, W] in float32.

  Args:
    new: keys [P, K, G, W, T] and values [P, K, G, T, W] of the T tokens.
    shared: those of prefixes, of all layers.
    own: those of suffixes. Both may be of more than P prompts, and have more
      entries than `sees` tells of.
    layer: which one it is.
  """
  if shared is not None and decode_attention.fits(q_PKTGRW, own[0]):
    return decode_attention.attend(
      q_PKTGRW, new, shared, own, layer, *sees, scores
    )
  P, S = len(q_PKTGRW), sees.old_PKTS.shape[-1]
  parts = [layers.attend_own(q_PKTGRW, *new, sees.new_PKTS, scores)]
  if new[0].shape[-1] < S:
    old = (
      cache_lib.of_layer(own[0], layer, {0: P, 4: S}),
      cache_lib.of_layer(own[1], layer, {0: P, 3: S}),
    )
    parts.append(layers.attend_own(q_PKTGRW, *old, sees.old_PKTS, scores))
  if shared is not None:
    prompt = (cache_lib.of_layer(x, layer, {0: P}) for x in shared)
    parts.append(
      layers.attend_shared(q_PKTGRW, *prompt, sees.prefix_PKTS, scores)
    )
  return layers.merge(parts)
