"""Text encoders as pure functions on weights: BERT, and gte v1.5.

Follows BertModel and GteModel of transformers 5.23 without their poolers,
which embedders do not use: norms after the residual sum, every token sees its
whole row, exact (erf) GELU. gte turns queries and keys by their positions
instead of adding a table, and its MLP is gated.
Matrices multiply in the dtype of the weights; what they give is float32, and
so is all between them.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import sharding
from erp_jax.models import bits, layers, tensor_names
from erp_jax.models import params as params_lib

# Models with a head over the network put one of these before its names.
_PREFIXES = ('', 'bert.', 'new.', 'gte.')

# The scores of at most so many queries are held at once: at gte's 8192 tokens
# all of them would be 4 GiB a row and layer.
_MAX_QUERIES = 1024

# Where checkpoints keep a layer's norms and linear maps.
_BERT_NAMES = {
  'query_key_value': 'attention.self.query_key_value',  # Joined by `load`.
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

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


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

  def norm(name):
    return params_lib.layer_norm(prefix + name, L, D)

  def stack_norm(key):
    return norm(f'encoder.layer.{{layer}}.{names[key]}')

  def linear(key, inputs, outputs, bias=True):
    name = f'{prefix}encoder.layer.{{layer}}.{names[key]}'
    return params_lib.linear(name, L, inputs, outputs, bias)

  embed = (D,), ('embed',)
  heads = (H, W), ('heads', 'head_dim')
  mlp = (F,), ('mlp',)
  if cfg.gated:
    pair = (2, F), (None, 'mlp')
    first = {'up_gate': linear('up_gate', embed, pair, bias=False)}
  else:
    first = {'up': linear('up', embed, mlp)}
  tree = {
    'word_VD': table(cfg.vocab_size, 'vocab', 'word'),
    'norm': norm('embeddings.LayerNorm'),
    'layers': first
    | {
      'query_key_value': linear(
        'query_key_value', embed, ((3, H, W), (None, 'heads', 'head_dim'))
      ),
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
  embed, pooled = (((cfg.width,), (axis,)) for axis in ('embed', None))
  return params_lib.linear(f'{prefix}pooler.dense', 0, embed, pooled)


def load(
  cfg: EncoderConfig,
  tensors: Mapping[str, Any],
  dtype: jax.typing.DTypeLike,
) -> Any:
  """Values of `weights` from a checkpoint, with or without a head on top.

  Packed as bits, where that is faster.
  Raises UserError naming the tensors that are missing, misshapen or extra.
  """
  word = 'embeddings.word_embeddings.weight'
  prefix = next((p for p in _PREFIXES if p + word in tensors), '')
  ignored = [f'{prefix}embeddings.position_ids']  # In older files.
  for param in params_lib.leaves(unused_weights(cfg, prefix)):
    ignored += param.file_names()
  if prefix:
    ignored += ['cls.*', 'lm_head.*', 'classifier.*']  # The heads.
  if not cfg.gated:
    tensors = tensor_names.join_query_key_value(tensors)
  declared = weights(cfg, prefix)
  return bits.pack(params_lib.load(declared, tensors, dtype, tuple(ignored)))


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
  word_BTD = bits.unpack(params['word_VD'][token_BT])
  x_BTD, dtype = word_BTD.astype(jnp.float32), word_BTD.dtype
  table = None
  if cfg.rope_theta:
    angle = np.arange(length)[:, None] * frequencies(cfg)
    table = tuple(jnp.asarray(f(angle), jnp.float32) for f in (np.cos, np.sin))
  else:
    x_BTD += bits.unpack(params['position_TD'][:length])
  if cfg.num_token_types:
    x_BTD += bits.unpack(params['type_YD'][0])
  x_BTD = layers.layer_norm(x_BTD, bits.unpack(params['norm']), cfg.norm_eps)
  x_BTD = sharding.constrain(x_BTD, 'batch', None, None)

  def block(x_BTD, layer):
    layer = bits.unpack(layer)
    attn_BTD = _attend(x_BTD.astype(dtype), layer, valid_BT, table)
    x_BTD = layers.layer_norm(
      x_BTD + attn_BTD, layer['attn_norm'], cfg.norm_eps
    )
    mlp_BTD = _mlp(x_BTD.astype(dtype), layer)
    return layers.layer_norm(
      x_BTD + mlp_BTD, layer['mlp_norm'], cfg.norm_eps
    ), None

  stack = params['layers']
  if num_layers:
    stack = jax.tree.map(lambda weight: weight[:num_layers], stack)
  return jax.lax.scan(block, x_BTD, stack)[0].astype(dtype)


def frequencies(cfg: EncoderConfig) -> np.ndarray:
  """Radians per position of each of the head_dim / 2 pairs, float64."""
  pair = np.arange(0, cfg.head_dim, 2) / cfg.head_dim
  return cfg.rope_theta**-pair / cfg.rope_divisor


def _attend(x_BTD, layer, valid_BT, table):
  """Self-attention of every token to the valid ones of its row.

  Heads before positions and the division after the product with the values: a
  quarter less time than plainly, at 256 tokens on CPU.
  """
  packed, out = layer['query_key_value'], layer['out']
  qkv_BTJHW = _einsum('BTD,DJHW->BTJHW', x_BTD, packed['w']) + packed['b']
  qkv_BTJHW = qkv_BTJHW.astype(x_BTD.dtype)
  q_BHTW, k_BHTW, v_BHSW = qkv_BTJHW.transpose(2, 0, 3, 1, 4)
  if table:
    q_BHTW, k_BHTW = (layers.rotate(x, table) for x in (q_BHTW, k_BHTW))
  many = q_BHTW.shape[2] > _MAX_QUERIES
  attend = _mean_value_by_parts if many else _mean_value
  # Every token is a key of its row too.
  mean_BHTW = attend(q_BHTW, k_BHTW.mT, v_BHSW, valid_BT)
  return _einsum('BHTW,HWD->BTD', mean_BHTW, out['w']) + out['b']


def _mean_value(q_BHTW, k_BHWS, v_BHSW, valid_BS):
  """Values by the softmax over the valid keys, in the dtype of the values."""
  score_BHTS = _einsum('BHTW,BHWS->BHTS', q_BHTW, k_BHWS)
  score_BHTS *= q_BHTW.shape[-1] ** -0.5
  # A large number, not -inf: rows that fill up a batch have no valid token.
  # Added, not chosen: XLA for CPU then makes one loop of the whole attention.
  lowest = jnp.finfo(jnp.float32).min / 2
  hidden_BS = jnp.where(valid_BS, 0.0, lowest)
  score_BHTS += hidden_BS[:, None, None, :]
  top = score_BHTS.max(axis=-1, keepdims=True)
  weight_BHTS = jnp.exp(score_BHTS - top)
  total = weight_BHTS.sum(axis=-1, keepdims=True)
  weight_BHTS = weight_BHTS.astype(v_BHSW.dtype)
  sum_BHTW = _einsum('BHTS,BHSW->BHTW', weight_BHTS, v_BHSW)
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
    both_BTCF = _einsum('BTD,DCF->BTCF', x_BTD, layer['up_gate']['w'])
    h_BTF = layers.gelu(both_BTCF[:, :, 1]) * both_BTCF[:, :, 0]
  else:
    up = layer['up']
    h_BTF = layers.gelu(_einsum('BTD,DF->BTF', x_BTD, up['w']) + up['b'])
  down = layer['down']
  h_BTF = h_BTF.astype(x_BTD.dtype)
  return _einsum('BTF,FD->BTD', h_BTF, down['w']) + down['b']
