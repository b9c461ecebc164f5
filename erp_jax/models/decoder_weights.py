"""Every weight of a decoder: shape, logical axes, name in the checkpoint."""

from typing import Any

from erp_jax.models import decoder
from erp_jax.models import params as params_lib

_LAYER = 'model.layers.{layer}'


def declare(cfg: decoder.DecoderConfig) -> dict[str, Any]:
  """Params of the network, under the names of the hub's Llama checkpoints.

  Gemma and Qwen share them; `tensor_names` maps those of other files.
  """
  D = cfg.width
  tree = {
    'embed_VD': _table('model.embed_tokens', cfg.vocab_size, 'vocab', D),
    'norm_D': _norm(cfg, (D,), ('embed',), 'model.norm'),
    'layers': {**_attention(cfg), **_mlp(cfg), **_norms(cfg)},
  }
  if cfg.num_labels:
    tree['score_JD'] = _table('score', cfg.num_labels, None, D)
  elif not cfg.tied:
    tree['head_VD'] = _table('lm_head', cfg.vocab_size, 'vocab', D)
  return tree


def _table(name, rows, axis, width) -> params_lib.Param:
  return params_lib.Param((rows, width), (axis, 'embed'), f'{name}.weight')


def _norm(cfg, shape, axes, name) -> params_lib.Param:
  mean = 0.0 if cfg.norm_plus_one else 1.0
  return params_lib.Param(shape, axes, f'{name}.weight', mean=mean, std=0.1)


def _norms(cfg) -> dict[str, Any]:
  def norm(name):
    shape, axes = (cfg.num_layers, cfg.width), ('layers', 'embed')
    return _norm(cfg, shape, axes, f'{_LAYER}.{name}_layernorm')

  if not cfg.post_norms:
    return {
      'attn_norm_LD': norm('input'),
      'mlp_norm_LD': norm('post_attention'),
    }
  return {
    'attn_norm_LD': norm('input'),
    'attn_post_norm_LD': norm('post_attention'),
    'mlp_norm_LD': norm('pre_feedforward'),
    'mlp_post_norm_LD': norm('post_feedforward'),
  }


def _attention(cfg) -> dict[str, Any]:
  L, D = cfg.num_layers, cfg.width
  H, G, R, W = cfg.heads, cfg.kv_heads, cfg.group, cfg.head_dim
  queries = (H, W), ('heads', 'head_dim')
  keys = (G, W), ('kv_heads', 'head_dim')
  # Of each key head: its R query heads, its key, its value.
  fused = (G, R + 2, W), ('kv_heads', None, 'head_dim')

  def linear(name, outputs):
    shape, axes = outputs
    name = f'{_LAYER}.self_attn.{name}.weight'
    axes = ('layers', 'embed', *axes)
    return params_lib.Param((L, D, *shape), axes, name, 1)

  def bias(name, outputs):
    shape, axes = outputs
    name = f'{_LAYER}.self_attn.{name}.bias'
    return params_lib.Param((L, *shape), ('layers', *axes), name, 0, std=0.1)

  def head_norm(name):
    axes = ('layers', 'head_dim')
    return _norm(cfg, (L, W), axes, f'{_LAYER}.self_attn.{name}')

  tree = {
    'wo_LHWD': params_lib.Param(
      (L, H, W, D),
      ('layers', 'heads', 'head_dim', 'embed'),
      f'{_LAYER}.self_attn.o_proj.weight',
      2,
    )
  }
  if cfg.qkv_fused:
    tree |= {'wqkv_LDGJW': linear('qkv_proj', fused)}
  else:
    tree |= {
      'wq_LDHW': linear('q_proj', queries),
      'wk_LDGW': linear('k_proj', keys),
      'wv_LDGW': linear('v_proj', keys),
    }
  if cfg.qkv_bias:
    tree |= {
      'bq_LHW': bias('q_proj', queries),
      'bk_LGW': bias('k_proj', keys),
      'bv_LGW': bias('v_proj', keys),
    }
  if cfg.out_bias:
    tree |= {'bo_LD': bias('o_proj', ((D,), ('embed',)))}
  if cfg.qk_norm:
    tree |= {'q_norm_LW': head_norm('q_norm'), 'k_norm_LW': head_norm('k_norm')}
  return tree


def _mlp(cfg) -> dict[str, Any]:
  L, D, F, X = cfg.num_layers, cfg.width, cfg.mlp, cfg.num_experts
  lead, lead_axes, letters, place = (L,), ('layers',), 'L', 'mlp'
  if X:
    lead, lead_axes, letters = (L, X), ('layers', 'experts'), 'LX'
    place = 'mlp.experts.{expert}'

  def matrix(key, shape, axes):
    name = f'{_LAYER}.{place}.{key}_proj.weight'
    return params_lib.Param((*lead, *shape), (*lead_axes, *axes), name, 1)

  up, down = ('embed', 'mlp'), ('mlp', 'embed')
  tree = {
    f'gate_{letters}DF': matrix('gate', (D, F), up),
    f'up_{letters}DF': matrix('up', (D, F), up),
    f'down_{letters}FD': matrix('down', (F, D), down),
  }
  if X:
    tree['router_LDX'] = params_lib.Param(
      (L, D, X), ('layers', 'embed', None), f'{_LAYER}.mlp.gate.weight', 1
    )
  return tree
