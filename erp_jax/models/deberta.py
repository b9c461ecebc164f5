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
from erp_jax.models import layers
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

# Of a row's tokens, when scores by distance are computed.
_PARTS = 4


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
    stack = ((L,), ('layers',)) if '{layer}' in name else ((), ())
    (in_sizes, in_axes), (out_sizes, out_axes) = inputs, outputs
    return {
      'w': params_lib.Param(
        (*stack[0], *in_sizes, *out_sizes),
        (*stack[1], *in_axes, *out_axes),
        f'{name}.weight',
        in_axes=len(in_axes),
      ),
      'b': params_lib.Param(
        (*stack[0], *out_sizes),
        (*stack[1], *out_axes),
        f'{name}.bias',
        in_axes=0,
      ),
    }

  def norm(name):
    shape, axes = (D,), ('embed',)
    if '{layer}' in name:
      shape, axes = (L, *shape), ('layers', *axes)
    name = f'{name}.LayerNorm'
    return {
      'scale': params_lib.Param(
        shape, axes, f'{name}.weight', mean=1.0, std=0.1
      ),
      'bias': params_lib.Param(shape, axes, f'{name}.bias', std=0.1),
    }

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


def reward(
  params: Any, cfg: DebertaConfig, token_BT: jax.Array, valid_BT: jax.Array
) -> jax.Array:
  """The classifier's raw logit at the first valid token, reward_B, float32.

  Padding (valid_BT False) may lie on either side, since positions are
  relative. A row without a valid token gives a finite number without meaning.
  """
  x_BTD = encode(params, cfg, token_BT, valid_BT)
  first_B = jnp.argmax(valid_BT, axis=1)
  x_BD = jnp.take_along_axis(x_BTD, first_B[:, None, None], axis=1)[:, 0]
  pooler, classifier = params['pooler'], params['classifier']
  # A second letter for the same width: the input and the output of the pooler.
  y_BE = jnp.einsum('BD,DE->BE', x_BD, pooler['w']) + pooler['b']
  y_BD = layers.gelu(y_BE)
  logit_BY = jnp.einsum('BD,DY->BY', y_BD, classifier['w']) + classifier['b']
  return logit_BY[:, 0].astype(jnp.float32)


def encode(
  params: Any, cfg: DebertaConfig, token_BT: jax.Array, valid_BT: jax.Array
) -> jax.Array:
  """Hidden states of the last layer, [B, T, D], in the dtype of the weights.

  Rows of padding are finite and meaningless; no valid token attends to them.
  """
  x_BTD = params['word_VD'][token_BT]
  x_BTD = layers.layer_norm(x_BTD, params['norm'], cfg.norm_eps)
  x_BTD = sharding.constrain(x_BTD, 'batch', None, None)
  # Of the table, the rows that this length needs, each once.
  T = token_BT.shape[1]
  row = relative_row(cfg, np.arange(-T, T + 1))
  used_R, place = np.unique(row, return_inverse=True)
  rel_RD = params['relative_RD'][used_R]
  rel_RD = layers.layer_norm(rel_RD, params['relative_norm'], cfg.norm_eps)

  def block(x_BTD, layer):
    attn_BTD = _attend(x_BTD, layer, rel_RD, place, valid_BT)
    x_BTD = layers.layer_norm(
      x_BTD + attn_BTD, layer['attn_norm'], cfg.norm_eps
    )
    mlp_BTD = _mlp(x_BTD, layer)
    return layers.layer_norm(
      x_BTD + mlp_BTD, layer['mlp_norm'], cfg.norm_eps
    ), None

  return jax.lax.scan(block, x_BTD, params['layers'])[0]


def _attend(x_BTD, layer, rel_RD, place, valid_BS):
  """Disentangled self-attention of every token to the valid ones of its row.

  Content to content, content to position and position to content share one
  scale and one pair of projections, biases included. `place` holds the row of
  rel_RD for each distance from −T to T. Heads come first, as the tables of
  distances are of a head and of all rows.
  """
  query, key, value, out = (layer[k] for k in ('query', 'key', 'value', 'out'))
  scale = (3 * query['w'].shape[-1]) ** -0.5
  x_BSD = x_BTD  # Every token is a key of its row too.
  q_HBTW = jnp.einsum('BTD,DHW->HBTW', x_BTD, query['w'])
  q_HBTW += query['b'][:, None, None]
  k_HBSW = jnp.einsum('BSD,DHW->HBSW', x_BSD, key['w'])
  k_HBSW += key['b'][:, None, None]
  v_HBSW = jnp.einsum('BSD,DHW->HBSW', x_BSD, value['w'])
  v_HBSW += value['b'][:, None, None]
  score_HBTS = jnp.einsum('HBTW,HBSW->HBTS', q_HBTW, k_HBSW)

  # Distances in the order that _skew wants: down from T − 1 to −T.
  T = x_BTD.shape[1]
  down = np.arange(2 * T, 0, -1) - 1
  rel_HRW = jnp.einsum('RD,DHW->HRW', rel_RD, key['w']) + key['b'][:, None]
  score_HBTS += _by_distance(q_HBTW, rel_HRW[:, place[down]])
  # A key's distances to queries go up where those of a query to keys go down.
  rel_HRW = jnp.einsum('RD,DHW->HRW', rel_RD, query['w']) + query['b'][:, None]
  score_HBTS += _by_distance(k_HBSW, rel_HRW[:, place[2 * T - down]]).mT

  score_HBTS = score_HBTS.astype(jnp.float32) * scale
  # A large number, not -inf: rows that fill up a batch have no valid token.
  lowest = jnp.finfo(jnp.float32).min
  score_HBTS = jnp.where(valid_BS[:, None], score_HBTS, lowest)
  weight_HBTS = jnp.exp(score_HBTS - score_HBTS.max(axis=-1, keepdims=True))
  total_HBT = weight_HBTS.sum(axis=-1)
  weight_HBTS = weight_HBTS.astype(x_BTD.dtype)
  mean_HBTW = jnp.einsum('HBTS,HBSW->HBTW', weight_HBTS, v_HBSW)
  mean_HBTW = (mean_HBTW / total_HBT[..., None]).astype(x_BTD.dtype)
  return jnp.einsum('HBTW,HWD->BTD', mean_HBTW, out['w']) + out['b']


def _by_distance(x_HBTW: jax.Array, rel_HUW: jax.Array) -> jax.Array:
  """Products of each token with the rows of its distances, [H, B, T, S].

  rel_HUW has the rows of the distances T − 1 down to −T. Some tokens at a time
  need little more than half of them.
  """
  T = x_HBTW.shape[2]
  step = -(-T // _PARTS)
  parts = []
  for start in range(0, T, step):
    part_HBTW = x_HBTW[:, :, start : start + step]
    end = 2 * T - start
    near_HUW = rel_HUW[:, end - T - part_HBTW.shape[2] : end]
    product_HBTU = jnp.einsum('HBTW,HUW->HBTU', part_HBTW, near_HUW)
    parts.append(_skew(product_HBTU))
  return jnp.concatenate(parts, axis=2)


def _skew(x_HBTU: jax.Array) -> jax.Array:
  """[..., T, T + S] by distance -> [..., T, S]: (t, s) is (t, T − 1 + s − t).

  Rows that are one shorter start one later each; no gather, which would cost
  as much as the products around it.
  """
  *lead, T, U = x_HBTU.shape
  flat = x_HBTU.reshape(*lead, T * U)[..., T - 1 : T - 1 + T * (U - 1)]
  return flat.reshape(*lead, T, U - 1)[..., : U - T]


def _mlp(x_BTD, layer):
  up, down = layer['up'], layer['down']
  h_BTF = jnp.einsum('BTD,DF->BTF', x_BTD, up['w']) + up['b']
  h_BTF = layers.gelu(h_BTF)
  return jnp.einsum('BTF,FD->BTD', h_BTF, down['w']) + down['b']
