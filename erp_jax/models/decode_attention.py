"""A decode step's attention on CPU: our own kernel, compiled where it runs.

XLA's CPU backend multiplies a few queries with many keys on one thread, and
copies each layer's cache before it does. The kernel reads keys and values where
they lie.
"""

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.models import layers, native

_TARGETS = {
  jnp.dtype('float32'): 'DecodeAttentionFloat32',
  jnp.dtype('uint16'): 'DecodeAttentionBfloat16',
}


def is_usable() -> bool:
  """Whether this process can run it: see `native.is_usable`."""
  return native.is_usable(
    'decode_attention.cc', tuple(_TARGETS.values()), 'decoding'
  )


def fits(q_PKTGRW: jax.Array, key_LPKGWS: jax.Array) -> bool:
  """Whether `attend` can do it: one token each, caches that it can read."""
  return q_PKTGRW.shape[2] == 1 and key_LPKGWS.dtype in _TARGETS and is_usable()


def attend(
  q_PKTGRW: jax.Array,
  new: tuple[jax.Array, jax.Array],
  shared: tuple[jax.Array, jax.Array],
  own: tuple[jax.Array, jax.Array],
  layer: jax.Array,
  new_PKTS: jax.Array,
  old_PKTS: jax.Array,
  prefix_PKTS: jax.Array,
  scores: layers.Scores,
) -> jax.Array:
  """Softmax attention of one token (T = 1), [P, K, T, G, R, W] in float32.

  Args:
    new: its key [P, K, G, W, T] and value [P, K, G, T, W].
    shared: the keys and values of prefixes, of all layers.
    own: those of suffixes. Like the prefixes, they may be of more prompts, and
      have more entries, than are read.
    new_PKTS: whether it sees itself; old_PKTS the suffix's entries, prefix_PKTS
      the prefix's.
  """
  P, K, _, G, R, W = q_PKTGRW.shape
  wide = lambda x, *shape: x.reshape(shape).astype(jnp.float32)
  seen_PKS = jnp.concatenate([new_PKTS, old_PKTS], axis=-1)[:, :, 0]
  # Without a window, the same for all K.
  shape = (P, K, 1, prefix_PKTS.shape[-1])
  prefix_PKS = jnp.broadcast_to(prefix_PKTS, shape)[:, :, 0]
  call = jax.ffi.ffi_call(
    _TARGETS[own[0].dtype], jax.ShapeDtypeStruct((P, K, G, R, W), jnp.float32)
  )
  out_PKGRW = call(
    wide(q_PKTGRW, P, K, G, R, W),
    wide(new[0], P, K, G, W),
    wide(new[1], P, K, G, W),
    *(*shared, *own, prefix_PKS, seen_PKS, jnp.int32(layer)),
    scale=np.float32(scores.scale),
    softcap=np.float32(scores.softcap),
  )
  return out_PKGRW[:, :, None]
