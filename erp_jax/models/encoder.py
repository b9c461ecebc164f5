"""BERT encoders as pure functions on weights.

Follows BertModel of transformers 5.23 without its pooler, which embedders do
not use: absolute positions, norms after the residual sum, exact (erf) GELU.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from erp_jax.core import errors
from erp_jax.models import params as params_lib

# In checkpoints, without use here: older files carry the position indices.
IGNORED = ('embeddings.position_ids', 'pooler.*')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
  """Shapes and constants of one encoder; hashable, so static under jit."""

  vocab_size: int
  num_layers: int
  width: int
  mlp: int
  heads: int
  norm_eps: float
  max_position: int
  num_token_types: int


def from_hf(config: Mapping[str, Any]) -> EncoderConfig:
  """EncoderConfig of a hub config.json.

  Raises UserError for what is not a BERT encoder with absolute positions and
  exact GELU, and for a missing field.
  """
  for name, default, allowed in (
    ('model_type', 'none', 'bert'),
    ('hidden_act', 'gelu', 'gelu'),
    ('position_embedding_type', 'absolute', 'absolute'),
    ('is_decoder', False, False),
  ):
    value = config.get(name, default)
    if value != allowed:
      raise errors.UserError(
        f'the encoder config has {name} = {value!r}, only {allowed!r} is '
        'supported: choose a BERT encoder.'
      )
  try:
    return EncoderConfig(
      vocab_size=config['vocab_size'],
      num_layers=config['num_hidden_layers'],
      width=config['hidden_size'],
      mlp=config['intermediate_size'],
      heads=config['num_attention_heads'],
      norm_eps=config['layer_norm_eps'],
      max_position=config['max_position_embeddings'],
      num_token_types=config['type_vocab_size'],
    )
  except KeyError as error:
    raise errors.UserError(
      f'the encoder config has no {error}: download the checkpoint again.'
    ) from error


def weights(cfg: EncoderConfig) -> dict[str, Any]:
  """Params of the network, under BertModel's names without a prefix."""
  L, D, F, H = cfg.num_layers, cfg.width, cfg.mlp, cfg.heads
  W = D // H

  def table(rows, axis, name):
    name = f'embeddings.{name}_embeddings.weight'
    return params_lib.Param((rows, D), (axis, 'embed'), name)

  def norm(name, inputs):
    shape, axes = inputs
    name = f'{name}.LayerNorm'
    return {
      'scale': params_lib.Param(
        shape, axes, f'{name}.weight', mean=1.0, std=0.1
      ),
      'bias': params_lib.Param(shape, axes, f'{name}.bias', std=0.1),
    }

  def linear(name, inputs, outputs):
    name = f'encoder.layer.{{layer}}.{name}'
    (in_sizes, in_axes), (out_sizes, out_axes) = inputs, outputs
    return {
      'w': params_lib.Param(
        (L, *in_sizes, *out_sizes),
        ('layers', *in_axes, *out_axes),
        f'{name}.weight',
        in_axes=len(in_axes),
      ),
      'b': params_lib.Param(
        (L, *out_sizes), ('layers', *out_axes), f'{name}.bias', in_axes=0
      ),
    }

  embed = (D,), ('embed',)
  stack = (L, D), ('layers', 'embed')
  heads = (H, W), ('heads', 'head_dim')
  mlp = (F,), ('mlp',)
  layer = 'encoder.layer.{layer}'
  return {
    'word_VD': table(cfg.vocab_size, 'vocab', 'word'),
    'position_TD': table(cfg.max_position, None, 'position'),
    'type_YD': table(cfg.num_token_types, None, 'token_type'),
    'norm': norm('embeddings', embed),
    'layers': {
      'query': linear('attention.self.query', embed, heads),
      'key': linear('attention.self.key', embed, heads),
      'value': linear('attention.self.value', embed, heads),
      'out': linear('attention.output.dense', heads, embed),
      'attn_norm': norm(f'{layer}.attention.output', stack),
      'up': linear('intermediate.dense', embed, mlp),
      'down': linear('output.dense', mlp, embed),
      'mlp_norm': norm(f'{layer}.output', stack),
    },
  }


def encode(
  params: Any, cfg: EncoderConfig, token_BT: jax.Array, valid_BT: jax.Array
) -> jax.Array:
  """Hidden states of the last layer, [B, T, D], in the dtype of the weights.

  Padding (valid_BT False) lies on the right, because positions are absolute;
  its own rows are finite and meaningless.
  """
  length = token_BT.shape[1]
  x_BTD = params['word_VD'][token_BT] + params['position_TD'][:length]
  x_BTD = _norm(x_BTD + params['type_YD'][0], params['norm'], cfg.norm_eps)

  def block(x_BTD, layer):
    attn_BTD = _attend(x_BTD, layer, valid_BT)
    x_BTD = _norm(x_BTD + attn_BTD, layer['attn_norm'], cfg.norm_eps)
    mlp_BTD = _mlp(x_BTD, layer)
    return _norm(x_BTD + mlp_BTD, layer['mlp_norm'], cfg.norm_eps), None

  return jax.lax.scan(block, x_BTD, params['layers'])[0]


def _attend(x_BTD, layer, valid_BT):
  """Self-attention of every token to the valid ones of its row.

  Heads before positions, keys as [W, S] and the division after the product
  with the values: a quarter less time than plainly, at 256 tokens on CPU.
  """
  query, key, value, out = (layer[k] for k in ('query', 'key', 'value', 'out'))
  q_BHTW = jnp.einsum('BTD,DHW->BHTW', x_BTD, query['w'])
  q_BHTW += query['b'][:, None, :]
  x_BSD = x_BTD  # Every token is a key of its row too.
  k_BHWS = jnp.einsum('BSD,DHW->BHWS', x_BSD, key['w']) + key['b'][:, :, None]
  v_BHSW = jnp.einsum('BSD,DHW->BHSW', x_BSD, value['w'])
  v_BHSW += value['b'][:, None, :]
  score_BHTS = jnp.einsum('BHTW,BHWS->BHTS', q_BHTW, k_BHWS)
  score_BHTS = score_BHTS.astype(jnp.float32) * q_BHTW.shape[-1] ** -0.5
  # A large number, not -inf: rows that fill up a batch have no valid token.
  lowest = jnp.finfo(jnp.float32).min
  score_BHTS = jnp.where(valid_BT[:, None, None, :], score_BHTS, lowest)
  top = score_BHTS.max(axis=-1, keepdims=True)
  weight_BHTS = jnp.exp(score_BHTS - top)
  total = weight_BHTS.sum(axis=-1, keepdims=True)
  sum_BHTW = jnp.einsum('BHTS,BHSW->BHTW', weight_BHTS, v_BHSW)
  mean_BHTW = (sum_BHTW / total).astype(x_BTD.dtype)
  return jnp.einsum('BHTW,HWD->BTD', mean_BHTW, out['w']) + out['b']


def _mlp(x_BTD, layer):
  up, down = layer['up'], layer['down']
  h_BTF = jnp.einsum('BTD,DF->BTF', x_BTD, up['w']) + up['b']
  h_BTF = 0.5 * h_BTF * (1 + jax.lax.erf(h_BTF * 0.5**0.5))
  return jnp.einsum('BTF,FD->BTD', h_BTF, down['w']) + down['b']


def _norm(x_BTD, norm, eps):
  """LayerNorm in float32."""
  wide_BTD = x_BTD.astype(jnp.float32)
  mean = wide_BTD.mean(axis=-1, keepdims=True)
  var = wide_BTD.var(axis=-1, keepdims=True)
  normed_BTD = (wide_BTD - mean) * jax.lax.rsqrt(var + eps)
  return (normed_BTD * norm['scale'] + norm['bias']).astype(x_BTD.dtype)
