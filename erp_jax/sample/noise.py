"""Random keys named by what is drawn, never by a position.

So batch size, restarts, host count, and other arms or prompts leave the noise
of a response as it is (ARCHITECTURE: sampling noise).
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np


def sha_words(name: str) -> np.ndarray:
  """The first two 32-bit words of SHA-256(name), as uint32 [2]."""
  return np.frombuffer(
    hashlib.sha256(name.encode()).digest()[:8], '>u4'
  ).astype(np.uint32)


def response_words(arm: str, prompt_ids: list[str], k: int) -> np.ndarray:
  """What names each response: its arm, prompt and k, as uint32 [N, K, 5]."""
  words_NKJ = np.empty((len(prompt_ids), k, 5), np.uint32)
  words_NKJ[..., :2] = sha_words(arm)
  for n, prompt_id in enumerate(prompt_ids):
    words_NKJ[n, :, 2:4] = sha_words(prompt_id)
  words_NKJ[..., 4] = np.arange(k)
  return words_NKJ


def response_keys(seed: int, words_BJ: jax.Array) -> jax.Array:
  """One key per response: the seed's key with each word folded in, [B]."""

  def fold(words_J):
    key = jax.random.key(seed)
    for j in range(words_J.shape[0]):
      key = jax.random.fold_in(key, words_J[j])
    return key

  return jax.vmap(fold)(jnp.asarray(words_BJ))
