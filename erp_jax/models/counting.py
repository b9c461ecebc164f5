"""FLOPs and bytes that a network needs, from its declared shapes alone.

What is needed, not what a program happens to do: no padding, no masked half of
a causal attention, no repeated work. Matmuls alone; on all else a network
spends far fewer operations. A multiplication and an addition count as two.
"""

import math

import jax.numpy as jnp

from erp_jax.models import catalog, deberta, decoder
from erp_jax.models import params as params_lib


def flops_per_token(config: catalog.Config) -> int:
  """Of one token through all layers, attention's scores and any head aside.

  Of experts, those that a token chooses.
  """
  chosen = 1.0
  if _num_experts(config):
    chosen = config.experts_per_token / config.num_experts
  total = 0
  for param in _layer_matrices(config):
    size = math.prod(param.shape)
    total += 2 * (size * chosen if 'experts' in param.axes else size)
  return round(total)


def flops_per_pair(config: catalog.Config) -> int:
  """Of one query token that attends to one key token, in all layers.

  A window that hides keys is not counted. DeBERTa has two more scores, of
  content and position.
  """
  width = getattr(config, 'head_dim', 0) * config.heads or config.width
  products = 4 if isinstance(config, deberta.DebertaConfig) else 2
  return 2 * products * width * config.num_layers


def head_flops(config: decoder.DecoderConfig) -> int:
  """Of the vocabulary's logits, or the reward head's, at one position."""
  return 2 * config.width * (config.num_labels or config.vocab_size)


def causal_pairs(tokens: float, before: float = 0) -> float:
  """Pairs of so many new tokens with each other and those before them."""
  return tokens * (tokens + 1) / 2 + tokens * before


def weight_bytes(config: catalog.Config, dtype: str, tokens: float) -> float:
  """Of weights that a batch of so many tokens reads.

  A table whose rows are looked up is not read whole, and of experts only those
  that some token chose, as if each chose at random.
  """
  touched = 1.0
  if _num_experts(config):
    missed = 1 - config.experts_per_token / config.num_experts
    touched = 1 - missed**tokens
  total = 0.0
  for param in _layer_matrices(config):
    size = math.prod(param.shape)
    total += size * touched if 'experts' in param.axes else size
  if isinstance(config, decoder.DecoderConfig):
    total += head_flops(config) / 2
  return total * jnp.dtype(dtype).itemsize


def cache_bytes(config: decoder.DecoderConfig, dtype: str) -> int:
  """Keys and values of one token; with int8 weights they are bfloat16."""
  size = max(2, jnp.dtype(dtype).itemsize)
  return 2 * size * config.num_layers * config.kv_heads * config.head_dim


def _layer_matrices(config: catalog.Config) -> list[params_lib.Param]:
  return [
    param
    for param in params_lib.leaves(catalog.weights(config))
    if 'layers' in param.axes and len(param.file_shape) == 2
  ]


def _num_experts(config: catalog.Config) -> int:
  return getattr(config, 'num_experts', 0)
