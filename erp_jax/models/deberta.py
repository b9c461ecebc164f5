"""DeBERTa-v3 reward models as pure functions on weights.

Follows DebertaV2ForSequenceClassification of transformers 5.23, evaluated:
disentangled attention over log-spaced relative positions, no absolute ones,
norms after the residual sum, exact (erf) GELU in the blocks and the pooler.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, sharding
from erp_jax.models import disentangled_attention, layers
from erp_jax.models import params as params_lib

# In checkpoints, without use here: what pretraining leaves behind, and the
# position indices of older files.
IGNORED = (
  'deberta.embeddings.position_embeddings.*',
  'deberta.embeddings.position_ids',
  'lm_predictions.*',
  'mask_predictions.*',
)

# Fields that change the network: (name, value where it is left out, allowed).
_FIXED = (
  ('model_type', 'none', 'deberta-v2'),
  ('hidden_act', 'gelu', 'gelu'),
  ('pooler_hidden_act', 'gelu', 'gelu'),
  ('relative_attention', False, True),
  ('share_att_key', False, True),
  ('norm_rel_ebd', 'none', 'layer_norm'),
  ('position_biased_input', True, False),
  ('conv_kernel_size', 0, 0),
  ('type_vocab_size', 0, 0),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaConfig:
  """Shapes and constants of one network; hashable, so static under jit."""

  vocab_size: int
  num_layers: int
  width: int
  mlp: int
  heads: int
  norm_eps: float
  buckets: int  # Of relative positions, on each side of zero.
  max_distance: int  # The one that the last bucket holds ends before this.


def from_hf(config: Mapping[str, Any]) -> DebertaConfig:
  """DebertaConfig of a hub config.json.

  Raises UserError for a field that makes it another network than that of
  DeBERTa-v3 with a head of one label, and for a missing field.
  """
  for name, default, allowed in _FIXED:
    _require(name, config.get(name, default), allowed)
  kinds = config.get('pos_att_type') or ()
  if isinstance(kinds, str):
    kinds = kinds.lower().split('|')
  _require('pos_att_type', '|'.join(sorted(map(str.strip, kinds))), 'c2p|p2c')
  for name in config.get('architectures') or ():
    _require('architectures', name, 'DebertaV2ForSequenceClassification')
  # Where a config says nothing of labels, transformers assumes two.
  num_labels = config.get('num_labels', len(config.get('id2label', (0, 1))))
  _require('number of labels', num_labels, 1)
  try:
    width, heads = config['hidden_size'], config['num_attention_heads']
    _require('embedding_size', config.get('embedding_size', width), width)
    _require(
      'pooler_hidden_size', config.get('pooler_hidden_size', width), width
    )
    head_dim = config.get('attention_head_size', width // heads)
    _require('heads x attention_head_size', heads * head_dim, width)
    max_distance = config.get('max_relative_positions', -1)
    if max_distance < 1:
      max_distance = config['max_position_embeddings']
    cfg = DebertaConfig(
      vocab_size=config['vocab_size'],
      num_layers=config['num_hidden_layers'],
      width=width,
      mlp=config['intermediate_size'],
      heads=heads,
      norm_eps=config['layer_norm_eps'],
      buckets=config['position_buckets'],
      max_distance=max_distance,
    )
  except KeyError as error:
    raise errors.UserError(
      f'the DeBERTa config has no {error}: download the checkpoint again.'
    ) from error
  if not 1 <= cfg.buckets // 2 < cfg.max_distance - 1:
    raise errors.UserError(
      f'the DeBERTa config has position_buckets = {cfg.buckets} for distances '
      f'up to {cfg.max_distance}; supported is 2 to twice that: choose a '
      'DeBERTa-v3 reward model.'
    )
  return cfg


def _require(name: str, value: Any, allowed: Any) -> None:
  if value != allowed:
    raise errors.UserError(
      f'the DeBERTa config has {name} = {value!r}, only {allowed!r} is '
      'supported: choose a DeBERTa-v3 reward model.'
    )


def weights(cfg: DebertaConfig) -> dict[str, Any]:
  """Params of the network, under the names of the torch class."""
  L, D, F, H = cfg.num_layers, cfg.width, cfg.mlp, cfg.heads
  W = D // H
  layer = 'deberta.encoder.layer.{layer}'

  def linear(name, inputs, outputs):
    return params_lib.linear(name, L, inputs, outputs)

  def norm(name):
    return params_lib.layer_norm(f'{name}.LayerNorm', L, D)

  embed = (D,), ('embed',)
  heads = (H, W), ('heads', 'head_dim')
  mlp = (F,), ('mlp',)
  return {
    'word_VD': params_lib.Param(
      (cfg.vocab_size, D),
      ('vocab', 'embed'),
      'deberta.embeddings.word_embeddings.weight',
    ),
    'norm': norm('deberta.embeddings'),
    'relative_RD': params_lib.Param(
      (2 * cfg.buckets, D),
      (None, 'embed'),
      'deberta.encoder.rel_embeddings.weight',
    ),
    'relative_norm': norm('deberta.encoder'),
    'layers': {
      'query': linear(f'{layer}.attention.self.query_proj', embed, heads),
      'key': linear(f'{layer}.attention.self.key_proj', embed, heads),
      'value': linear(f'{layer}.attention.self.value_proj', embed, heads),
      'out': linear(f'{layer}.attention.output.dense', heads, embed),
      'attn_norm': norm(f'{layer}.attention.output'),
      'up': linear(f'{layer}.intermediate.dense', embed, mlp),
      'down': linear(f'{layer}.output.dense', mlp, embed),
      'mlp_norm': norm(f'{layer}.output'),
    },
    # Its output axis has no name: one device axis per weight.
    'pooler': linear('pooler.dense', embed, ((D,), (None,))),
    'classifier': linear('classifier', embed, ((1,), (None,))),
  }


def relative_row(cfg: DebertaConfig, distance: np.ndarray) -> np.ndarray:
  """Row of relative_RD for query position − key position, any shape.

  Distances up to half the buckets have a row each; beyond, rows are spaced
  by their logarithm up to max_distance, and farther ones share the last.
  """
  half = cfg.buckets // 2
  far = np.maximum(np.abs(distance), half)
  log = np.log(far / half) / math.log((cfg.max_distance - 1) / half)
  bucket = np.ceil(log * (half - 1)).astype(np.int64) + half
  row = np.where(np.abs(distance) <= half, distance, np.sign(distance) * bucket)
  return np.clip(row + cfg.buckets, 0, 2 * cfg.buckets - 1)


def distance_tables(params: Any, cfg: DebertaConfig) -> dict[str, jax.Array]:
  """Each layer's key and query of every relative position, [L, H, W, R].

  They depend on weights alone: made once, used by every batch.
  """
  rel_RD = layers.layer_norm(
    params['relative_RD'], params['relative_norm'], cfg.norm_eps
  )

  def project(linear):
    rel_LHWR = jnp.einsum('RD,LDHW->LHWR', rel_RD, linear['w'])
    return rel_LHWR + linear['b'][..., None]

  stack = params['layers']
  return {
    'key_table': project(stack['key']),
    'query_table': project(stack['query']),
  }


def reward(
  params: Any,
  tables: dict[str, jax.Array],
  cfg: DebertaConfig,
  token_BT: jax.Array,
  valid_BT: jax.Array,
) -> jax.Array:
  """The classifier's raw logit at the first valid token, reward_B, float32.

  `tables` are `distance_tables`. The last layer computes that token alone.
  Padding (valid_BT False) may lie on either side, since positions are
  relative. A row without a valid token gives a finite number without meaning.
  """
  x_BTD = _run(params, tables, cfg, token_BT, valid_BT, cfg.num_layers - 1)
  first_B = jnp.argmax(valid_BT, axis=1)
  last = jax.tree.map(lambda x: x[-1], params['layers'] | tables)
  x_BD = _last_block(x_BTD, last, cfg, first_B, valid_BT)
  pooler, classifier = params['pooler'], params['classifier']
  # A second letter for the same width: the input and the output of the pooler.
  y_BE = jnp.einsum('BD,DE->BE', x_BD, pooler['w']) + pooler['b']
  y_BD = layers.gelu(y_BE)
  logit_BY = jnp.einsum('BD,DY->BY', y_BD, classifier['w']) + classifier['b']
  return logit_BY[:, 0].astype(jnp.float32)


def encode(
  params: Any,
  tables: dict[str, jax.Array],
  cfg: DebertaConfig,
  token_BT: jax.Array,
  valid_BT: jax.Array,
) -> jax.Array:
  """Hidden states of the last layer, [B, T, D], in the dtype of the weights.

  Rows of padding are finite and meaningless; no valid token attends to them.
  """
  return _run(params, tables, cfg, token_BT, valid_BT, cfg.num_layers)


def _run(params, tables, cfg, token_BT, valid_BT, num_layers):
  """States [B, T, D] after the first layers."""
  x_BTD = params['word_VD'][token_BT]
  x_BTD = layers.layer_norm(x_BTD, params['norm'], cfg.norm_eps)
  x_BTD = sharding.constrain(x_BTD, 'batch', None, None)
  stack = params['layers'] | tables
  row = _rows(cfg, token_BT.shape[1])

  def block(x_BTD, at):
    # By its index: a slice of the stack would be a copy.
    layer = jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, at, keepdims=False), stack
    )
    q_BTHW, k_BTHW, v_BTHW = (
      _project(x_BTD, layer[name]) for name in ('query', 'key', 'value')
    )
    attn_BTHW = disentangled_attention.attend(
      *(q_BTHW, k_BTHW, v_BTHW),
      *(layer['key_table'], layer['query_table'], row, valid_BT),
    )
    return _finish(x_BTD, attn_BTHW, layer, cfg), None

  return jax.lax.scan(block, x_BTD, jnp.arange(num_layers))[0]


def _last_block(x_BTD, layer, cfg, first_B, valid_BT):
  """States [B, D] of one token of each row after a layer."""
  T = x_BTD.shape[1]
  x_B1D = jnp.take_along_axis(x_BTD, first_B[:, None, None], axis=1)
  q_BHW = _project(x_B1D, layer['query'])[:, 0]
  row_BT = jnp.asarray(_rows(cfg, T))[T - 1 - first_B[:, None] + np.arange(T)]
  attn_BHW = disentangled_attention.attend_one(
    *(q_BHW, _project(x_BTD, layer['key']), _project(x_BTD, layer['value'])),
    *(layer['key_table'], layer['query_table'], row_BT, valid_BT),
  )
  return _finish(x_B1D, attn_BHW[:, None], layer, cfg)[:, 0]


def _rows(cfg, length):
  """Rows of the tables of the distances length − 1 down to 1 − length."""
  return relative_row(cfg, np.arange(length - 1, -length, -1))


def _project(x_BTD, linear):
  return jnp.einsum('BTD,DHW->BTHW', x_BTD, linear['w']) + linear['b']


def _finish(x_BTD, attn_BTHW, layer, cfg):
  """A layer from its attention on."""
  out, up, down = layer['out'], layer['up'], layer['down']
  attn_BTD = jnp.einsum('BTHW,HWD->BTD', attn_BTHW, out['w']) + out['b']
  x_BTD = layers.layer_norm(x_BTD + attn_BTD, layer['attn_norm'], cfg.norm_eps)
  h_BTF = jnp.einsum('BTD,DF->BTF', x_BTD, up['w']) + up['b']
  h_BTF = layers.gelu(h_BTF)
  mlp_BTD = jnp.einsum('BTF,FD->BTD', h_BTF, down['w']) + down['b']
  return layers.layer_norm(x_BTD + mlp_BTD, layer['mlp_norm'], cfg.norm_eps)
