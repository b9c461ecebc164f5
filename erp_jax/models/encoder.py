"""Text encoders as pure functions on weights: BERT, and gte v1.5.

Follows BertModel and GteModel of transformers 5.23 without their poolers,
which embedders do not use: norms after the residual sum, every token sees its
whole row, exact (erf) GELU. gte turns queries and keys by their positions
instead of adding a table, and its MLP is gated.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import sharding
from erp_jax.models import layers
from erp_jax.models import params as params_lib

# Models with a head over the network put one of these before its names.
_PREFIXES = ('', 'bert.', 'new.', 'gte.')

# The scores of at most so many queries are held at once: at gte's 8192 tokens
# all of them would be 4 GiB a row and layer.
_MAX_QUERIES = 1024

# Where checkpoints keep a layer's norms and linear maps.
_BERT_NAMES = {
  'query': 'attention.self.query',
  'key': 'attention.self.key',
  'value': 'attention.self.value',
  'out': 'attention.output.dense',
  'attn_norm': 'attention.output.LayerNorm',
  'up': 'intermediate.dense',
  'down': 'output.dense',
  'mlp_norm': 'output.LayerNorm',
}
_GTE_NAMES = {
  'query_key_value': 'attention.qkv_proj',
  'out': 'attention.o_proj',
  'attn_norm': 'attn_ln',
  'up_gate': 'mlp.up_gate_proj',
  'down': 'mlp.down_proj',
  'mlp_norm': 'mlp_ln',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
  """Shapes and constants of one encoder; hashable, so static under jit.

  Pair i of a head turns by rope_theta^(-2i / head_dim) / rope_divisor radians
  per position; rope_theta 0 stands for a table of absolute positions.
  """

  vocab_size: int
  num_layers: int
  width: int
  mlp: int
  heads: int
  norm_eps: float
  max_position: int
  num_token_types: int  # 0: no table.
  rope_theta: float = 0.0
  rope_divisor: float = 1.0
  gated: bool = False  # up * gelu(gate), not gelu(up): gte's blocks and names.

  @property
  def head_dim(self) -> int:
    return self.width // self.heads


def weights(cfg: EncoderConfig, prefix: str = '') -> dict[str, Any]:
  """Params of the network, under the names of its checkpoints.

  `prefix` is what those put before each name, see `load`.
  """
  L, D, F = cfg.num_layers, cfg.width, cfg.mlp
  H, W = cfg.heads, cfg.head_dim
  names = _GTE_NAMES if cfg.gated else _BERT_NAMES

  def table(rows, axis, name):
    name = f'{prefix}embeddings.{name}_embeddings.weight'
    return params_lib.Param((rows, D), (axis, 'embed'), name)

  def norm(name, shape, axes):
    return {
      'scale': params_lib.Param(
        shape, axes, f'{prefix}{name}.weight', mean=1.0, std=0.1
      ),
      'bias': params_lib.Param(shape, axes, f'{prefix}{name}.bias', std=0.1),
    }

  def stack_norm(key):
    name = f'encoder.layer.{{layer}}.{names[key]}'
    return norm(name, (L, D), ('layers', 'embed'))

  def linear(key, inputs, outputs, bias=True):
    name = f'{prefix}encoder.layer.{{layer}}.{names[key]}'
    (in_sizes, in_axes), (out_sizes, out_axes) = inputs, outputs
    weight = params_lib.Param(
      (L, *in_sizes, *out_sizes),
      ('layers', *in_axes, *out_axes),
      f'{name}.weight',
      in_axes=len(in_axes),
    )
    if not bias:
      return {'w': weight}
    return {
      'w': weight,
      'b': params_lib.Param(
        (L, *out_sizes), ('layers', *out_axes), f'{name}.bias', in_axes=0
      ),
    }

  embed = (D,), ('embed',)
  heads = (H, W), ('heads', 'head_dim')
  mlp = (F,), ('mlp',)
  if cfg.gated:
    packed = {
      'query_key_value': linear(
        'query_key_value', embed, ((3, H, W), (None, 'heads', 'head_dim'))
      ),
      'up_gate': linear('up_gate', embed, ((2, F), (None, 'mlp')), bias=False),
    }
  else:
    packed = {
      key: linear(key, embed, heads) for key in ('query', 'key', 'value')
    }
    packed['up'] = linear('up', embed, mlp)
  tree = {
    'word_VD': table(cfg.vocab_size, 'vocab', 'word'),
    'norm': norm('embeddings.LayerNorm', (D,), ('embed',)),
    'layers': packed
    | {
      'out': linear('out', heads, embed),
      'attn_norm': stack_norm('attn_norm'),
      'down': linear('down', mlp, embed),
      'mlp_norm': stack_norm('mlp_norm'),
    },
  }
  if not cfg.rope_theta:
    tree['position_TD'] = table(cfg.max_position, None, 'position')
  if cfg.num_token_types:
    tree['type_YD'] = table(cfg.num_token_types, None, 'token_type')
  return tree


def unused_weights(cfg: EncoderConfig, prefix: str = '') -> dict[str, Any]:
  """Params that checkpoints may hold and no embedding needs: the pooler.

  Published parameter counts include it where the checkpoint does (MiniLM).
  """
  D, name = cfg.width, f'{prefix}pooler.dense'
  square = params_lib.Param((D, D), ('embed', None), f'{name}.weight', 1)
  return {'w': square, 'b': params_lib.Param((D,), (None,), f'{name}.bias', 0)}


def load(
  cfg: EncoderConfig,
  tensors: Mapping[str, Any],
  dtype: jax.typing.DTypeLike,
) -> Any:
  """Values of `weights` from a checkpoint, with or without a head on top.

  Raises UserError naming the tensors that are missing, misshapen or extra.
  """
  word = 'embeddings.word_embeddings.weight'
  prefix = next((p for p in _PREFIXES if p + word in tensors), '')
  ignored = [f'{prefix}embeddings.position_ids']  # In older files.
  for param in params_lib.leaves(unused_weights(cfg, prefix)):
    ignored += param.file_names()
  if prefix:
    ignored += ['cls.*', 'lm_head.*', 'classifier.*']  # The heads.
  return params_lib.load(weights(cfg, prefix), tensors, dtype, tuple(ignored))


def encode(
  params: Any,
  cfg: EncoderConfig,
  token_BT: jax.Array,
  valid_BT: jax.Array,
  num_layers: int = 0,
) -> jax.Array:
  """Hidden states, [B, T, D], in the dtype of the weights.

  Padding (valid_BT False) lies on the right, because positions count from the
  left; its own rows are finite and meaningless. `num_layers` stops after so
  many layers; 0 is all.
  """
  length = token_BT.shape[1]
  x_BTD = params['word_VD'][token_BT]
  table = None
  if cfg.rope_theta:
    angle = np.arange(length)[:, None] * frequencies(cfg)
    table = tuple(jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))
  else:
    x_BTD += params['position_TD'][:length]
  if cfg.num_token_types:
    x_BTD += params['type_YD'][0]
  x_BTD = layers.layer_norm(x_BTD, params['norm'], cfg.norm_eps)
  x_BTD = sharding.constrain(x_BTD, 'batch', None, None)

  def block(x_BTD, layer):
    attn_BTD = _attend(x_BTD, layer, valid_BT, table)
    x_BTD = layers.layer_norm(
      x_BTD + attn_BTD, layer['attn_norm'], cfg.norm_eps
    )
    mlp_BTD = _mlp(x_BTD, layer)
    return layers.layer_norm(
      x_BTD + mlp_BTD, layer['mlp_norm'], cfg.norm_eps
    ), None

  stack = params['layers']
  if num_layers:
    stack = jax.tree.map(lambda weight: weight[:num_layers], stack)
  return jax.lax.scan(block, x_BTD, stack)[0]


def frequencies(cfg: EncoderConfig) -> np.ndarray:
  """Radians per position of each of the head_dim / 2 pairs, float64."""
  pair = np.arange(0, cfg.head_dim, 2) / cfg.head_dim
  return cfg.rope_theta**-pair / cfg.rope_divisor


def _attend(x_BTD, layer, valid_BT, table):
  """Self-attention of every token to the valid ones of its row.

  Heads before positions, keys as [W, S] and the division after the product
  with the values: a quarter less time than plainly, at 256 tokens on CPU.
  """
  query, key, value = _query_key_value(layer)
  q_BHTW = jnp.einsum('BTD,DHW->BHTW', x_BTD, query['w'])
  q_BHTW += query['b'][:, None, :]
  x_BSD = x_BTD  # Every token is a key of its row too.
  k_BHWS = jnp.einsum('BSD,DHW->BHWS', x_BSD, key['w']) + key['b'][:, :, None]
  v_BHSW = jnp.einsum('BSD,DHW->BHSW', x_BSD, value['w'])
  v_BHSW += value['b'][:, None, :]
  if table:
    q_BHTW = layers.rotate(q_BHTW, table)
    k_BHWS = layers.rotate(k_BHWS.mT, table).mT
  many = q_BHTW.shape[2] > _MAX_QUERIES
  attend = _mean_value_by_parts if many else _mean_value
  mean_BHTW = attend(q_BHTW, k_BHWS, v_BHSW, valid_BT)
  out = layer['out']
  return jnp.einsum('BHTW,HWD->BTD', mean_BHTW, out['w']) + out['b']


def _query_key_value(layer):
  """The three linear maps of a layer, which gte's checkpoints pack into one."""
  if 'query' in layer:
    return layer['query'], layer['key'], layer['value']
  w, b = layer['query_key_value']['w'], layer['query_key_value']['b']
  return [{'w': w[:, i], 'b': b[i]} for i in range(3)]


def _mean_value(q_BHTW, k_BHWS, v_BHSW, valid_BS):
  """Values by the softmax over the valid keys, in the dtype of the values."""
  score_BHTS = jnp.einsum(
    'BHTW,BHWS->BHTS', q_BHTW, k_BHWS, preferred_element_type=jnp.float32
  )
  score_BHTS *= q_BHTW.shape[-1] ** -0.5
  # A large number, not -inf: rows that fill up a batch have no valid token.
  lowest = jnp.finfo(jnp.float32).min
  score_BHTS = jnp.where(valid_BS[:, None, None, :], score_BHTS, lowest)
  top = score_BHTS.max(axis=-1, keepdims=True)
  weight_BHTS = jnp.exp(score_BHTS - top)
  total = weight_BHTS.sum(axis=-1, keepdims=True)
  sum_BHTW = jnp.einsum(
    'BHTS,BHSW->BHTW',
    weight_BHTS.astype(v_BHSW.dtype),
    v_BHSW,
    preferred_element_type=jnp.float32,
  )
  return (sum_BHTW / total).astype(v_BHSW.dtype)


def _mean_value_by_parts(q_BHTW, k_BHWS, v_BHSW, valid_BS):
  """`_mean_value` with the scores of _MAX_QUERIES at a time."""

  def of_token(q_BHW):
    q_BHTW = q_BHW[:, :, None]
    return _mean_value(q_BHTW, k_BHWS, v_BHSW, valid_BS)[:, :, 0]

  q_TBHW = jnp.moveaxis(q_BHTW, 2, 0)
  mean_TBHW = jax.lax.map(of_token, q_TBHW, batch_size=_MAX_QUERIES)
  return jnp.moveaxis(mean_TBHW, 0, 2)


def _mlp(x_BTD, layer):
  if 'up_gate' in layer:
    both_DCF = layer['up_gate']['w']
    up_BTF = jnp.einsum('BTD,DF->BTF', x_BTD, both_DCF[:, 0])
    gate_BTF = jnp.einsum('BTD,DF->BTF', x_BTD, both_DCF[:, 1])
    h_BTF = layers.gelu(gate_BTF) * up_BTF
  else:
    up = layer['up']
    h_BTF = layers.gelu(jnp.einsum('BTD,DF->BTF', x_BTD, up['w']) + up['b'])
  down = layer['down']
  return jnp.einsum('BTF,FD->BTD', h_BTF, down['w']) + down['b']
