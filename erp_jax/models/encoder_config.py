"""EncoderConfig from a hub config.json."""

from collections.abc import Mapping
from typing import Any

from erp_jax.core import errors
from erp_jax.models import encoder

# In either spelling: 'new' is the config of gte's authors, 'gte' that of
# transformers 5.x.
MODEL_TYPES = ('bert', 'gte', 'new')
_ROPE_TYPES = ('default', 'linear', 'ntk')


def from_hf(config: Mapping[str, Any]) -> encoder.EncoderConfig:
  """EncoderConfig of a config.json, as its authors or transformers write it.

  Raises UserError for what is not a BERT encoder with absolute positions or a
  gte v1.5 encoder, for an option of theirs that is not supported, and for a
  missing field.
  """
  kind = config.get('model_type', 'none')
  _check('model_type', kind, MODEL_TYPES)
  _check('hidden_act', config.get('hidden_act', 'gelu'), ('gelu',))
  shapes = {
    'vocab_size': _field(config, 'vocab_size'),
    'num_layers': _field(config, 'num_hidden_layers'),
    'width': _field(config, 'hidden_size'),
    'mlp': _field(config, 'intermediate_size'),
    'heads': _field(config, 'num_attention_heads'),
    'norm_eps': _field(config, 'layer_norm_eps'),
    'max_position': _field(config, 'max_position_embeddings'),
  }
  options = _bert(config) if kind == 'bert' else _gte(config, shapes)
  return encoder.EncoderConfig(**shapes, **options)


def _bert(config: Mapping[str, Any]) -> dict[str, Any]:
  """What differs from gte."""
  position = config.get('position_embedding_type', 'absolute')
  _check('position_embedding_type', position, ('absolute',))
  _check('is_decoder', config.get('is_decoder', False), (False,))
  return {'num_token_types': _field(config, 'type_vocab_size')}


def _gte(
  config: Mapping[str, Any], shapes: Mapping[str, Any]
) -> dict[str, Any]:
  """What differs from BERT; the checked options exist in 'new' alone."""
  for name, allowed in (
    ('position_embedding_type', 'rope'),
    ('layer_norm_type', 'layer_norm'),
    ('pack_qkv', True),
    ('logn_attention_scale', False),
    ('logn_attention_clip1', False),
  ):
    _check(name, config.get(name, allowed), (allowed,))
  # transformers 5.x has one group for all; 'new' has rope_theta and, null or
  # a group, rope_scaling.
  rope = config.get('rope_parameters') or config.get('rope_scaling') or {}
  kind = rope.get('rope_type') or rope.get('type') or 'default'
  _check('rope_type', kind, _ROPE_TYPES)
  _check('rope_scaling.mixed_b', rope.get('mixed_b'), (None,))
  theta = rope.get('rope_theta') or _field(config, 'rope_theta')
  factor = 1.0 if kind == 'default' else _field(rope, 'factor')
  divisor = factor
  if kind == 'ntk':
    # The fixed kind, at every length, and both changes at once: it is not the
    # 'dynamic' one of transformers (modeling.py of Alibaba-NLP/new-impl).
    head_dim = shapes['width'] // shapes['heads']
    theta, divisor = theta * factor, factor ** (2 / head_dim)
  return {
    'num_token_types': config.get('type_vocab_size', 0),
    'rope_theta': float(theta),
    'rope_divisor': float(divisor),
    'gated': True,
  }


def _field(mapping: Mapping[str, Any], name: str) -> Any:
  if name not in mapping:
    raise errors.UserError(
      f'the encoder config has no {name!r}: it is incomplete or of another '
      'kind of model; use the config that came with the weights.'
    )
  return mapping[name]


def _check(name: str, value: Any, allowed: tuple[Any, ...]):
  if value not in allowed:
    raise errors.UserError(
      f'the encoder config has {name} = {value!r}, supported is '
      f'{" or ".join(map(repr, allowed))}: choose such an encoder.'
    )
