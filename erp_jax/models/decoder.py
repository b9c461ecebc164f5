"""Decoder-only transformers (the Llama family) as pure functions on weights.

One function, `extend`, does prefill, decoding and scoring. It follows
LlamaForCausalLM of transformers 5.23: rotate-half RoPE, pre-norm blocks, SiLU
gated MLP, no biases.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from erp_jax.models import layers
from erp_jax.models import params as params_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """Shapes and constants of one decoder; hashable, so static under jit."""

  vocab_size: int
  num_layers: int
  width: int
  mlp: int
  heads: int
  kv_heads: int
  head_dim: int
  rope_theta: float
  rope_factor: float = 1.0  # Llama 3.1 frequency scaling; 1 means none.
  rope_low: float = 1.0
  rope_high: float = 4.0
  rope_original: int = 8192  # Context length before scaling.
  norm_eps: float
  tied: bool  # The output head is the embedding.
  max_position: int


class Prefix(NamedTuple):
  """Keys and values that all K sequences of a prompt share.

  Entries at and after len_P are padding. Keys are kept [..., W, S]: on CPU
  the scores of a decode step are then 8 times cheaper.
  """

  key_LPGWS: jax.Array
  value_LPGSW: jax.Array
  len_P: jax.Array


class Suffix(NamedTuple):
  """Keys and values that each sequence has for itself."""

  key_LPKGWS: jax.Array
  value_LPKGSW: jax.Array


def weights(cfg: DecoderConfig) -> dict[str, Any]:
  """Params of the network, under the names of the hub's Llama checkpoints."""
  L, D, F = cfg.num_layers, cfg.width, cfg.mlp
  H, G, W = cfg.heads, cfg.kv_heads, cfg.head_dim

  def linear(shape, axes, name, in_axes):
    name = f'model.layers.{{layer}}.{name}.weight'
    return params_lib.Param((L, *shape), ('layers', *axes), name, in_axes)

  def norm(shape, axes, name):
    return params_lib.Param(shape, axes, name, mean=1.0, std=0.1)

  stack = ('layers', 'embed')
  tree = {
    'embed_VD': params_lib.Param(
      (cfg.vocab_size, D), ('vocab', 'embed'), 'model.embed_tokens.weight'
    ),
    'norm_D': norm((D,), ('embed',), 'model.norm.weight'),
    'layers': {
      'attn_norm_LD': norm(
        (L, D), stack, 'model.layers.{layer}.input_layernorm.weight'
      ),
      'wq_LDHW': linear(
        (D, H, W), ('embed', 'heads', 'head_dim'), 'self_attn.q_proj', 1
      ),
      'wk_LDGW': linear(
        (D, G, W), ('embed', 'kv_heads', 'head_dim'), 'self_attn.k_proj', 1
      ),
      'wv_LDGW': linear(
        (D, G, W), ('embed', 'kv_heads', 'head_dim'), 'self_attn.v_proj', 1
      ),
      'wo_LHWD': linear(
        (H, W, D), ('heads', 'head_dim', 'embed'), 'self_attn.o_proj', 2
      ),
      'mlp_norm_LD': norm(
        (L, D), stack, 'model.layers.{layer}.post_attention_layernorm.weight'
      ),
      'gate_LDF': linear((D, F), ('embed', 'mlp'), 'mlp.gate_proj', 1),
      'up_LDF': linear((D, F), ('embed', 'mlp'), 'mlp.up_proj', 1),
      'down_LFD': linear((F, D), ('mlp', 'embed'), 'mlp.down_proj', 1),
    },
  }
  if not cfg.tied:
    tree['head_VD'] = params_lib.Param(
      (cfg.vocab_size, D), ('vocab', 'embed'), 'lm_head.weight'
    )
  return tree


def empty_cache(
  cfg: DecoderConfig,
  num_prompts: int,
  num_per_prompt: int,
  size: int,
  dtype: jax.typing.DTypeLike,
) -> Suffix:
  """A suffix cache of `size` entries for each of P x K sequences."""
  lead = (cfg.num_layers, num_prompts, num_per_prompt, cfg.kv_heads)
  return Suffix(
    jnp.zeros((*lead, cfg.head_dim, size), dtype),
    jnp.zeros((*lead, size, cfg.head_dim), dtype),
  )


def as_prefix(suffix: Suffix, len_P: jax.Array, size: int) -> Prefix:
  """The cache of one sequence per prompt as a prefix padded to `size`."""
  pad = size - suffix.key_LPKGWS.shape[-1]
  assert pad >= 0 and suffix.key_LPKGWS.shape[2] == 1
  key_LPGWS = suffix.key_LPKGWS[:, :, 0]
  value_LPGSW = suffix.value_LPKGSW[:, :, 0]
  return Prefix(
    jnp.pad(key_LPGWS, ((0, 0),) * 4 + ((0, pad),)),
    jnp.pad(value_LPGSW, ((0, 0),) * 3 + ((0, pad), (0, 0))),
    len_P,
  )


def prefill(
  params: Any, cfg: DecoderConfig, token_PT: jax.Array
) -> tuple[jax.Array, Suffix]:
  """The full causal forward: hidden states [P, T, D] and the K = 1 cache.

  Right-padded prompts need no more than this: what follows a token never
  changes it. Their lengths matter when the cache becomes a prefix.
  """
  P, T = token_PT.shape
  token_PKT = token_PT[:, None]
  position_PKT = jnp.broadcast_to(jnp.arange(T), token_PKT.shape)
  visible_PKTS = jnp.broadcast_to(jnp.tri(T, dtype=bool), (P, 1, T, T))
  dtype = params['embed_VD'].dtype
  suffix = empty_cache(cfg, P, 1, T, dtype)
  hidden_PKTD, suffix = extend(
    params, cfg, token_PKT, position_PKT, None, suffix, 0, visible_PKTS
  )
  return hidden_PKTD[:, 0], suffix


def extend(
  params: Any,
  cfg: DecoderConfig,
  token_PKT: jax.Array,
  position_PKT: jax.Array,
  prefix: Prefix | None,
  suffix: Suffix,
  slot: jax.Array | int,
  visible_PKTS: jax.Array,
) -> tuple[jax.Array, Suffix]:
  """Reads T more tokens of each of P x K sequences.

  Args:
    params: the weights; their dtype is that of the matmuls and caches.
    position_PKT: of each token in its sequence, the prefix counted.
    prefix: what the K sequences of a prompt share, or None. Every new token
      sees all of it up to its length.
    suffix: donate it: the new entries are written in place.
    slot: the new tokens' entries become suffix[slot : slot + T], for all
      sequences; slot + T must not pass the cache's size. A ring buffer is the
      caller's choice of slots and visibility.
    visible_PKTS: the suffix entries, after that write, that each token sees.

  Returns the final-norm hidden states [P, K, T, D] and the new suffix cache.
  """
  T, S = token_PKT.shape[-1], visible_PKTS.shape[-1]
  table = layers.rope_table(position_PKT, _frequencies(cfg))
  # The cache is only read inside the scan, and written once after it: the new
  # entries are a part of their own, and the ones they replace are hidden.
  at_S = jnp.arange(S)
  replaced_S = (at_S >= slot) & (at_S < slot + T)
  old_PKTS = visible_PKTS & ~replaced_S
  new_PKTS = jax.lax.dynamic_slice_in_dim(visible_PKTS, slot, T, axis=-1)

  def block(x_PKTD, inputs):
    layer, shared, own = inputs
    y_PKTD = layers.rms_norm(x_PKTD, layer['attn_norm_LD'], cfg.norm_eps)
    q_PKTGRW, key_PKGWT, value_PKGTW = _project(layer, y_PKTD, table)
    parts = [layers.attend_own(q_PKTGRW, key_PKGWT, value_PKGTW, new_PKTS)]
    if T < S:
      parts.append(layers.attend_own(q_PKTGRW, *own, old_PKTS))
    if prefix is not None:
      prefix_S = jnp.arange(shared[0].shape[-1])
      seen_PS = prefix_S < prefix.len_P[:, None]
      parts.append(layers.attend_shared(q_PKTGRW, *shared, seen_PS))
    out_PKTGRW = layers.merge(parts).astype(x_PKTD.dtype)
    wo_HWD = layer['wo_LHWD']
    out_PKTHW = out_PKTGRW.reshape(*token_PKT.shape, *wo_HWD.shape[:2])
    x_PKTD += jnp.einsum('PKTHW,HWD->PKTD', out_PKTHW, wo_HWD)
    x_PKTD += _mlp(layer, x_PKTD, cfg)
    return x_PKTD, (key_PKGWT, value_PKGTW)

  x_PKTD = params['embed_VD'][token_PKT]
  shared = None if prefix is None else prefix[:2]
  x_PKTD, (key_LPKGWT, value_LPKGTW) = jax.lax.scan(
    block, x_PKTD, (params['layers'], shared, suffix)
  )
  update = jax.lax.dynamic_update_slice_in_dim
  suffix = Suffix(
    update(suffix.key_LPKGWS, key_LPKGWT, slot, axis=-1),
    update(suffix.value_LPKGSW, value_LPKGTW, slot, axis=-2),
  )
  return layers.rms_norm(x_PKTD, params['norm_D'], cfg.norm_eps), suffix


def logits(params: Any, cfg: DecoderConfig, hidden: jax.Array) -> jax.Array:
  """Logits [..., V] in float32 of final-norm hidden states [..., D].

  The vocabulary may be larger than the tokenizer's: ids that it lacks have
  logits too, and must be masked before sampling.
  """
  head_VD = params['embed_VD' if cfg.tied else 'head_VD']
  return jnp.tensordot(
    hidden, head_VD, axes=(-1, -1), preferred_element_type=jnp.float32
  )


def _frequencies(cfg: DecoderConfig):
  return layers.rope_frequencies(
    cfg.head_dim,
    cfg.rope_theta,
    cfg.rope_factor,
    cfg.rope_low,
    cfg.rope_high,
    cfg.rope_original,
  )


def _project(layer, y_PKTD, table):
  """Rotated queries by group, and keys and values in the cache's layout."""
  q_PKTHW = jnp.einsum('PKTD,DHW->PKTHW', y_PKTD, layer['wq_LDHW'])
  key_PKTGW = jnp.einsum('PKTD,DGW->PKTGW', y_PKTD, layer['wk_LDGW'])
  value_PKTGW = jnp.einsum('PKTD,DGW->PKTGW', y_PKTD, layer['wv_LDGW'])
  q_PKTHW = layers.rotate(q_PKTHW, table)
  key_PKTGW = layers.rotate(key_PKTGW, table)
  *lead, G, W = key_PKTGW.shape
  return (
    q_PKTHW.reshape(*lead, G, -1, W),
    key_PKTGW.transpose(0, 1, 3, 4, 2),
    value_PKTGW.transpose(0, 1, 3, 2, 4),
  )


def _mlp(layer, x_PKTD, cfg):
  y_PKTD = layers.rms_norm(x_PKTD, layer['mlp_norm_LD'], cfg.norm_eps)
  gate_PKTF = jnp.einsum('PKTD,DF->PKTF', y_PKTD, layer['gate_LDF'])
  up_PKTF = jnp.einsum('PKTD,DF->PKTF', y_PKTD, layer['up_LDF'])
  return jnp.einsum(
    'PKTF,FD->PKTD', jax.nn.silu(gate_PKTF) * up_PKTF, layer['down_LFD']
  )
