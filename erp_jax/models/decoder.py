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

from erp_jax.core import sharding
from erp_jax.models import bits, experts, int8, layers


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


class Prefix(NamedTuple):
  """Keys and values that all K sequences of a prompt share.

  Entry s has position s; those at and after len_P are padding. Keys are kept
  [..., W, S]: on CPU the scores of a decode step are then 8 times cheaper.
  """

  key_LPGWS: jax.Array
  value_LPGSW: jax.Array
  len_P: jax.Array


class Suffix(NamedTuple):
  """Keys, values and positions that each sequence has for itself."""

  key_LPKGWS: jax.Array
  value_LPKGSW: jax.Array
  position_PKS: jax.Array


class _Seen(NamedTuple):
  """Which keys a token sees: the new ones, older ones, and the prefix's."""

  new_PKTS: jax.Array
  old_PKTS: jax.Array
  prefix_PKTS: jax.Array


def empty_cache(
  cfg: DecoderConfig,
  num_prompts: int,
  num_per_prompt: int,
  size: int,
  dtype: jax.typing.DTypeLike,
) -> Suffix:
  """A suffix cache of `size` entries for each of P x K sequences.

  Of bfloat16 on CPU it holds the bits, see `bits`.
  """
  dtype = bits.stored(dtype)
  lead = (cfg.num_layers, num_prompts, num_per_prompt, cfg.kv_heads)
  return Suffix(
    _on_mesh(jnp.zeros((*lead, cfg.head_dim, size), dtype)),
    _on_mesh(jnp.zeros((*lead, size, cfg.head_dim), dtype)),
    jnp.zeros((num_prompts, num_per_prompt, size), jnp.int32),
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
  params: Any, cfg: DecoderConfig, token_PT: jax.Array, num_layers: int = 0
) -> tuple[jax.Array, Suffix]:
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
  prefix: Prefix | None,
  suffix: Suffix,
  slot: jax.Array | int,
  visible_PKTS: jax.Array,
) -> tuple[jax.Array, Suffix]:
  """Reads T more tokens of each of P x K sequences.

  Args:
    params: the weights; their dtype is that of the matmuls and caches. Those of
      the layers may be packed as bits.
    position_PKT: of each token in its sequence, the prefix counted.
    prefix: what the K sequences of a prompt share, or None. Every new token
      sees all of it up to its length, or what is in its layer's window.
    suffix: donate it: the new entries are written in place.
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


def _extend(
  params, cfg, token_PKT, position_PKT, prefix, suffix, slot, visible_PKTS
):
  """`extend` without the final norm."""
  seen = _seen(position_PKT, prefix, suffix, slot, visible_PKTS)
  near = _near(cfg, position_PKT, prefix, suffix)
  table = layers.rope_table(position_PKT, _frequencies(cfg))
  local = table
  if cfg.rope_local_theta:
    freq = layers.rope_frequencies(cfg.head_dim, cfg.rope_local_theta)
    local = layers.rope_table(position_PKT, freq)
  scores = layers.Scores(
    cfg.query_scale or cfg.head_dim**-0.5, cfg.attn_softcap
  )

  def block(x_PKTD, inputs):
    layer, windowed, shared, own = bits.unpack(inputs)
    sees, angles = seen, table
    if cfg.windowed:
      sees = jax.tree.map(lambda s, n: s & (n | ~windowed), seen, near)
      angles = jax.tree.map(
        lambda a, b: jnp.where(windowed, b, a), table, local
      )
    y_PKTD = _norm(x_PKTD, layer['attn_norm_LD'], cfg)
    q_PKTGRW, key_PKGWT, value_PKGTW = _project(layer, y_PKTD, angles, cfg)
    new = (key_PKGWT, value_PKGTW)
    # The cache is only read inside the scan, and written once after it: the
    # new entries are a part of their own, and those they replace are hidden.
    parts = [layers.attend_own(q_PKTGRW, *new, sees.new_PKTS, scores)]
    if new[0].shape[-1] < own[0].shape[-1]:
      parts.append(layers.attend_own(q_PKTGRW, *own, sees.old_PKTS, scores))
    if shared is not None:
      parts.append(
        layers.attend_shared(q_PKTGRW, *shared, sees.prefix_PKTS, scores)
      )
    attn_PKTD = _attn_out(layer, layers.merge(parts).astype(x_PKTD.dtype))
    if cfg.post_norms:
      attn_PKTD = _norm(attn_PKTD, layer['attn_post_norm_LD'], cfg)
    x_PKTD += attn_PKTD
    y_PKTD = _norm(x_PKTD, layer['mlp_norm_LD'], cfg)
    mlp_PKTD = _mlp(layer, y_PKTD, cfg)
    if cfg.post_norms:
      mlp_PKTD = _norm(mlp_PKTD, layer['mlp_post_norm_LD'], cfg)
    return x_PKTD + mlp_PKTD, bits.like(new, inputs[-1])

  x_PKTD = int8.take(params['embed_VD'], token_PKT)
  x_PKTD = sharding.constrain(x_PKTD, 'batch', None, None, None)
  if cfg.embed_scaled:
    x_PKTD *= jnp.asarray(cfg.width**0.5, x_PKTD.dtype)
  windowed_L = jnp.asarray(cfg.windowed or (False,) * cfg.num_layers)
  shared = None if prefix is None else prefix[:2]
  x_PKTD, (key_LPKGWT, value_LPKGTW) = jax.lax.scan(
    block, x_PKTD, (params['layers'], windowed_L, shared, suffix[:2])
  )
  update = jax.lax.dynamic_update_slice_in_dim
  suffix = Suffix(
    _on_mesh(update(suffix.key_LPKGWS, key_LPKGWT, slot, axis=-1)),
    _on_mesh(update(suffix.value_LPKGSW, value_LPKGTW, slot, axis=-2)),
    update(suffix.position_PKS, position_PKT.astype(jnp.int32), slot, axis=-1),
  )
  return x_PKTD, suffix


def _seen(position_PKT, prefix, suffix, slot, visible_PKTS) -> _Seen:
  """What each token sees in a layer without a window."""
  P, _, T = position_PKT.shape
  at_S = jnp.arange(visible_PKTS.shape[-1])
  replaced_S = (at_S >= slot) & (at_S < slot + T)
  seen_PS = jnp.zeros((P, 0), bool)
  if prefix is not None:
    prefix_S = jnp.arange(prefix.key_LPGWS.shape[-1])
    seen_PS = prefix_S < prefix.len_P[:, None]
  return _Seen(
    jax.lax.dynamic_slice_in_dim(visible_PKTS, slot, T, axis=-1),
    visible_PKTS & ~replaced_S,
    seen_PS[:, None, None],
  )


def _near(cfg, position_PKT, prefix, suffix) -> _Seen:
  """Which keys lie in the window of each token."""
  size = 0 if prefix is None else prefix.key_LPGWS.shape[-1]

  def near(key_position):
    return position_PKT[..., None] - key_position < cfg.window

  return _Seen(
    near(position_PKT[..., None, :]),
    near(suffix.position_PKS[..., None, :]),
    near(jnp.arange(size)),
  )


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


def _on_mesh(cache):
  """A cache [L, P, K, G, ...] by prompt and key head on the mesh in force."""
  return sharding.constrain(cache, None, 'batch', None, 'kv_heads', None, None)


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
  gate_PKTF = int8.einsum('PKTD,DF->PKTF', y_PKTD, layer['gate_LDF'])
  up_PKTF = int8.einsum('PKTD,DF->PKTF', y_PKTD, layer['up_LDF'])
  return int8.einsum(
    'PKTF,FD->PKTD', act(gate_PKTF) * up_PKTF, layer['down_LFD']
  )
