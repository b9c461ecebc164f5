"""Decoder-only transformers as pure functions on weights.

One function, `extend`, does prefill, decoding and scoring. What Llama, Gemma
1 to 3, Qwen 2 and 3 and InternLM2 differ in are fields of `DecoderConfig`; the
reference is their eager attention in transformers 5.23. All have rotate-half
RoPE, RMS norms before each half of a block, and a gated MLP.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import sharding
from erp_jax.models import attention, bits, experts, int8, layers
from erp_jax.models import cache as cache_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """Shapes and constants of one decoder; hashable, so static under jit."""

  vocab_size: int
  num_layers: int
  width: int
  mlp: int  # Of one expert, where there are experts.
  heads: int
  kv_heads: int
  head_dim: int
  max_position: int
  norm_eps: float
  tied: bool  # The output head is the embedding.
  num_labels: int = 0  # Of a head `score` in place of the vocabulary's.
  activation: str = 'silu'  # Of the MLP's gate, or 'gelu_tanh'.
  embed_scaled: bool = False  # By sqrt(width), rounded to the weights' dtype.
  norm_plus_one: bool = False  # Norms multiply by 1 + weight.
  post_norms: bool = False  # Norms on what each half of a block adds, too.
  qkv_bias: bool = False
  out_bias: bool = False
  qkv_fused: bool = False  # One matrix: each kv head's queries, key, value.
  qk_norm: bool = False  # Per head, before RoPE.
  query_scale: float = 0.0  # Of the scores; 0 is head_dim ** -0.5.
  attn_softcap: float = 0.0
  logit_softcap: float = 0.0
  rope_theta: float
  rope_factor: float = 1.0  # Llama 3.1 frequency scaling; 1 means none.
  rope_low: float = 1.0
  rope_high: float = 4.0
  rope_original: int = 8192  # Context length before scaling.
  rope_linear: float = 1.0  # Positions are divided by it.
  rope_local_theta: float = 0.0  # Of windowed layers, unscaled; 0 is the same.
  window: int = 0  # Last keys, its own included, that a windowed layer sees.
  windowed: tuple[bool, ...] = ()  # Which layers are; empty for none.
  num_experts: int = 0  # 0 is one dense MLP.
  experts_per_token: int = 0
  renormalize_experts: bool = False  # The chosen experts' weights sum to 1.

  @property
  def group(self) -> int:
    """R: query heads for each key and value head."""
    return self.heads // self.kv_heads


class _Context(NamedTuple):
  """What is the same for all layers: visible keys, windows, rotary angles."""

  seen: attention.Seen
  near: attention.Seen
  table: tuple[jax.Array, jax.Array]
  local: tuple[jax.Array, jax.Array]  # Of windowed layers.


def empty_cache(
  cfg: DecoderConfig,
  num_prompts: int,
  num_per_prompt: int,
  size: int,
  dtype: jax.typing.DTypeLike,
) -> cache_lib.Suffix:
  """A suffix cache of `size` entries for each of P x K sequences.

  Of bfloat16 on CPU it holds the bits, see `bits`.
  """
  dtype = bits.stored(dtype)
  lead = (cfg.num_layers, num_prompts, num_per_prompt, cfg.kv_heads)
  return cache_lib.Suffix(
    cache_lib.on_mesh(jnp.zeros((*lead, cfg.head_dim, size), dtype)),
    cache_lib.on_mesh(jnp.zeros((*lead, size, cfg.head_dim), dtype)),
    jnp.zeros((num_prompts, num_per_prompt, size), jnp.int32),
  )


def prefill(
  params: Any, cfg: DecoderConfig, token_PT: jax.Array, num_layers: int = 0
) -> tuple[jax.Array, cache_lib.Suffix]:
  """The full causal forward: hidden states [P, T, D] and the K = 1 cache.

  Right-padded prompts need no more than this: what follows a token never
  changes it. Their lengths matter when the cache becomes a prefix. With
  `num_layers`, the states are those after that many layers, without the final
  norm; 0 is all of them and the norm.
  """
  P, T = token_PT.shape
  token_PKT = token_PT[:, None]
  position_PKT = jnp.broadcast_to(jnp.arange(T), token_PKT.shape)
  visible_PKTS = jnp.broadcast_to(jnp.tri(T, dtype=bool), (P, 1, T, T))
  if num_layers:
    params = {
      **params,
      'layers': jax.tree.map(lambda x: x[:num_layers], params['layers']),
    }
    windowed = cfg.windowed[:num_layers]
    cfg = dataclasses.replace(cfg, num_layers=num_layers, windowed=windowed)
  suffix = empty_cache(cfg, P, 1, T, params['embed_VD'].dtype)
  args = (params, cfg, token_PKT, position_PKT, None, suffix, 0, visible_PKTS)
  hidden_PKTD, suffix = _extend(*args)
  if not num_layers:
    hidden_PKTD = _norm(hidden_PKTD, params['norm_D'], cfg)
  return hidden_PKTD[:, 0], suffix


def extend(
  params: Any,
  cfg: DecoderConfig,
  token_PKT: jax.Array,
  position_PKT: jax.Array,
  prefix: cache_lib.Prefix | None,
  suffix: cache_lib.Suffix,
  slot: jax.Array | int,
  visible_PKTS: jax.Array,
) -> tuple[jax.Array, cache_lib.Suffix]:
  """Reads T more tokens of each of P x K sequences.

  Args:
    params: the weights; their dtype is that of the matmuls and caches. Those of
      the layers may be packed as bits.
    position_PKT: of each token in its sequence, the prefix counted.
    prefix: what the K sequences of a prompt share, or None. Every new token
      sees all of it up to its length, or what is in its layer's window.
    suffix: donate it: the new entries are written in place. It and the prefix
      may be of more than P prompts, and have more than S entries: the first P
      and S are read.
    slot: the new tokens' entries become suffix[slot : slot + T], for all
      sequences; slot + T must not pass the cache's size. A ring buffer is the
      caller's choice of slots and visibility.
    visible_PKTS: the suffix entries, after that write, that each token sees;
      a windowed layer sees the near ones among them.

  Returns the final-norm hidden states [P, K, T, D] and the new suffix cache.
  """
  args = (token_PKT, position_PKT, prefix, suffix, slot, visible_PKTS)
  hidden_PKTD, suffix = _extend(params, cfg, *args)
  return _norm(hidden_PKTD, params['norm_D'], cfg), suffix


def logits(params: Any, cfg: DecoderConfig, hidden: jax.Array) -> jax.Array:
  """Logits [..., V] in float32 of final-norm hidden states [..., D].

  The vocabulary may be larger than the tokenizer's: ids that it lacks have
  logits too, and must be masked before sampling.
  """
  table = params['embed_VD' if cfg.tied else 'head_VD']
  return _cap(int8.logits(hidden, table), cfg.logit_softcap)


def score(params: Any, hidden: jax.Array) -> jax.Array:
  """Scores [..., num_labels] in float32 of final-norm hidden states."""
  return int8.logits(hidden, params['score_JD'])


def _begin(
  params: Any,
  cfg: DecoderConfig,
  token_PKT: jax.Array,
  position_PKT: jax.Array,
  prefix_size: int,
  len_P: jax.Array | None,
  position_PKS: jax.Array,
  slot: jax.Array | int,
  visible_PKTS: jax.Array,
) -> tuple[jax.Array, _Context]:
  """Embeddings [P, K, T, D], and what all layers know: see `extend`.

  `prefix_size` 0 is no prefix, `position_PKS` that of the suffix.
  """
  S = visible_PKTS.shape[-1]
  table = layers.rope_table(position_PKT, _frequencies(cfg))
  local = table
  if cfg.rope_local_theta:
    freq = layers.rope_frequencies(cfg.head_dim, cfg.rope_local_theta)
    local = layers.rope_table(position_PKT, freq)
  x_PKTD = int8.take(params['embed_VD'], token_PKT)
  x_PKTD = sharding.constrain(x_PKTD, 'batch', None, None, None)
  if cfg.embed_scaled:
    x_PKTD *= jnp.asarray(cfg.width**0.5, x_PKTD.dtype)
  return x_PKTD, _Context(
    attention.seen(position_PKT, prefix_size, len_P, slot, visible_PKTS),
    attention.near(
      cfg.window, position_PKT, prefix_size, position_PKS[..., :S]
    ),
    table,
    local,
  )


def _run_layers(
  stack: Any,
  cfg: DecoderConfig,
  x_PKTD: jax.Array,
  context: _Context,
  windowed_L: jax.Array,
  shared: tuple[jax.Array, jax.Array] | None,
  own: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """States after some layers, and their new keys [..., W, T] and values.

  Args:
    stack: weights of these layers.
    windowed_L: which of them see a window.
    shared: their keys and values in the prefix.
    own: those in the suffix, which are read alone. They are written after all
      layers: the new entries are a part of their own, and those that they
      replace are hidden.
  """
  scores = layers.Scores(
    cfg.query_scale or cfg.head_dim**-0.5, cfg.attn_softcap
  )

  def block(x_PKTD, inputs):
    at, layer, windowed = inputs
    layer = bits.unpack(layer)
    sees, angles = context.seen, context.table
    if cfg.windowed:
      sees = jax.tree.map(lambda s, n: s & (n | ~windowed), sees, context.near)
      angles = jax.tree.map(
        lambda a, b: jnp.where(windowed, b, a), angles, context.local
      )
    y_PKTD = _norm(x_PKTD, layer['attn_norm_LD'], cfg)
    q_PKTGRW, key_PKGWT, value_PKGTW = _project(layer, y_PKTD, angles, cfg)
    new = (key_PKGWT, value_PKGTW)
    attn_PKTGRW = attention.attend(q_PKTGRW, new, shared, own, at, sees, scores)
    attn_PKTD = _attn_out(layer, attn_PKTGRW.astype(x_PKTD.dtype))
    if cfg.post_norms:
      attn_PKTD = _norm(attn_PKTD, layer['attn_post_norm_LD'], cfg)
    x_PKTD += attn_PKTD
    y_PKTD = _norm(x_PKTD, layer['mlp_norm_LD'], cfg)
    mlp_PKTD = _mlp(layer, y_PKTD, cfg)
    if cfg.post_norms:
      mlp_PKTD = _norm(mlp_PKTD, layer['mlp_post_norm_LD'], cfg)
    kept = tuple(bits.as_kept(x, own[0].dtype) for x in new)
    return x_PKTD + mlp_PKTD, kept

  at_L = jnp.arange(len(windowed_L))
  return jax.lax.scan(block, x_PKTD, (at_L, stack, windowed_L))


def _extend(
  params, cfg, token_PKT, position_PKT, prefix, suffix, slot, visible_PKTS
):
  """`extend` without the final norm."""
  size, len_P, shared = 0, None, None
  if prefix is not None:
    size, len_P = prefix.key_LPGWS.shape[-1], prefix.len_P
    shared = (prefix.key_LPGWS, prefix.value_LPGSW)
  x_PKTD, context = _begin(
    *(params, cfg, token_PKT, position_PKT, size, len_P),
    *(suffix.position_PKS, slot, visible_PKTS),
  )
  windowed_L = np.asarray(cfg.windowed or (False,) * cfg.num_layers)
  x_PKTD, new = _run_layers(
    *(params['layers'], cfg, x_PKTD, context, windowed_L),
    *(shared, (suffix.key_LPKGWS, suffix.value_LPKGSW)),
  )
  return x_PKTD, cache_lib.write(suffix, *new, position_PKT, slot)


def _frequencies(cfg: DecoderConfig):
  freq = layers.rope_frequencies(
    cfg.head_dim,
    cfg.rope_theta,
    cfg.rope_factor,
    cfg.rope_low,
    cfg.rope_high,
    cfg.rope_original,
  )
  return freq / cfg.rope_linear


def _norm(x, scale, cfg):
  return layers.rms_norm(x, scale, cfg.norm_eps, cfg.norm_plus_one)


def _cap(x, cap):
  return cap * jnp.tanh(x / cap) if cap else x


def _project(layer, y_PKTD, table, cfg):
  """Rotated queries by group, and keys and values in the cache's layout."""
  P, K, T, _ = y_PKTD.shape
  G, R, W = cfg.kv_heads, cfg.group, cfg.head_dim
  if cfg.qkv_fused:
    qkv_PKTGJW = int8.einsum('PKTD,DGJW->PKTGJW', y_PKTD, layer['wqkv_LDGJW'])
    q_PKTHW = qkv_PKTGJW[..., :R, :].reshape(P, K, T, G * R, W)
    key_PKTGW, value_PKTGW = qkv_PKTGJW[..., R, :], qkv_PKTGJW[..., R + 1, :]
  else:
    q_PKTHW = int8.einsum('PKTD,DHW->PKTHW', y_PKTD, layer['wq_LDHW'])
    key_PKTGW = int8.einsum('PKTD,DGW->PKTGW', y_PKTD, layer['wk_LDGW'])
    value_PKTGW = int8.einsum('PKTD,DGW->PKTGW', y_PKTD, layer['wv_LDGW'])
  if cfg.qkv_bias:
    q_PKTHW += layer['bq_LHW']
    key_PKTGW += layer['bk_LGW']
    value_PKTGW += layer['bv_LGW']
  if cfg.qk_norm:
    q_PKTHW = _norm(q_PKTHW, layer['q_norm_LW'], cfg)
    key_PKTGW = _norm(key_PKTGW, layer['k_norm_LW'], cfg)
  q_PKTHW = layers.rotate(q_PKTHW, table)
  key_PKTGW = layers.rotate(key_PKTGW, table)
  return (
    q_PKTHW.reshape(P, K, T, G, R, W),
    key_PKTGW.transpose(0, 1, 3, 4, 2),
    value_PKTGW.transpose(0, 1, 3, 2, 4),
  )


def _attn_out(layer, out_PKTGRW):
  *lead, G, R, W = out_PKTGRW.shape
  out_PKTHW = out_PKTGRW.reshape(*lead, G * R, W)
  out_PKTD = int8.einsum('PKTHW,HWD->PKTD', out_PKTHW, layer['wo_LHWD'])
  return out_PKTD + layer['bo_LD'] if 'bo_LD' in layer else out_PKTD


def _mlp(layer, y_PKTD, cfg):
  act = layers.ACTIVATIONS[cfg.activation]
  if cfg.num_experts:
    mix_BD = experts.mix(
      layer,
      y_PKTD.reshape(-1, cfg.width),
      cfg.experts_per_token,
      cfg.renormalize_experts,
      act,
    )
    return mix_BD.reshape(y_PKTD.shape)
  # Rounded once, not after each step: half the time, and a smaller error.
  gate_PKTF = int8.sums('PKTD,DF->PKTF', y_PKTD, layer['gate_LDF'])
  up_PKTF = int8.sums('PKTD,DF->PKTF', y_PKTD, layer['up_LDF'])
  h_PKTF = (act(gate_PKTF) * up_PKTF).astype(y_PKTD.dtype)
  return int8.einsum('PKTF,FD->PKTD', h_PKTF, layer['down_LFD'])
