"""DecoderConfig from a hub config.json or from GGUF metadata."""

from collections.abc import Mapping
from typing import Any

from erp_jax.core import errors
from erp_jax.models import decoder

_HF_ARCHITECTURES = ('LlamaForCausalLM',)
_GGUF_ARCHITECTURES = ('llama',)
_ROPE_TYPES = ('default', 'llama3')


def from_hf(config: Mapping[str, Any]) -> decoder.DecoderConfig:
  """DecoderConfig of a config.json, as transformers 4.x or 5.x writes it.

  Raises UserError for an architecture, RoPE type or layer option that is not
  supported, and for a missing field.
  """
  names = config.get('architectures') or ['none']
  _check('architectures', names[0], _HF_ARCHITECTURES)
  _check('hidden_act', config.get('hidden_act', 'silu'), ('silu',))
  for option in ('attention_bias', 'mlp_bias'):
    _check(option, config.get(option, False), (False,))
  heads = _field(config, 'num_attention_heads')
  width = _field(config, 'hidden_size')
  return decoder.DecoderConfig(
    vocab_size=_field(config, 'vocab_size'),
    num_layers=_field(config, 'num_hidden_layers'),
    width=width,
    mlp=_field(config, 'intermediate_size'),
    heads=heads,
    kv_heads=config.get('num_key_value_heads') or heads,
    head_dim=config.get('head_dim') or width // heads,
    norm_eps=_field(config, 'rms_norm_eps'),
    tied=config.get('tie_word_embeddings', False),
    max_position=_field(config, 'max_position_embeddings'),
    **_rope(config),
  )


def from_gguf(metadata: Mapping[str, Any], tied: bool) -> decoder.DecoderConfig:
  """DecoderConfig of a GGUF file's metadata.

  `tied` is not among them: the head is tied when the file has no
  output.weight. Raises UserError for what is not supported.
  """
  name = 'general.architecture'
  _check(name, metadata.get(name), _GGUF_ARCHITECTURES)

  def get(key):
    return _field(metadata, f'llama.{key}')

  scaling = metadata.get('llama.rope.scaling.type', 'none')
  _check('llama.rope.scaling.type', scaling, ('none',))
  _check('llama.expert_count', metadata.get('llama.expert_count', 0), (0,))
  heads = get('attention.head_count')
  width = get('embedding_length')
  tokens = metadata.get('tokenizer.ggml.tokens', ())
  return decoder.DecoderConfig(
    vocab_size=metadata.get('llama.vocab_size') or len(tokens),
    num_layers=get('block_count'),
    width=width,
    mlp=get('feed_forward_length'),
    heads=heads,
    kv_heads=metadata.get('llama.attention.head_count_kv', heads),
    head_dim=metadata.get('llama.attention.key_length', width // heads),
    rope_theta=metadata.get('llama.rope.freq_base', 10000.0),
    norm_eps=get('attention.layer_norm_rms_epsilon'),
    tied=tied,
    max_position=get('context_length'),
  )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
  # transformers 5.x: rope_parameters holds all; 4.x: rope_theta beside a
  # rope_scaling that is null for plain RoPE and whose 'type' is an older name
  # of 'rope_type'.
  rope = config.get('rope_parameters') or config.get('rope_scaling') or {}
  kind = rope.get('rope_type') or rope.get('type') or 'default'
  _check('rope_type', kind, _ROPE_TYPES)
  theta = rope.get('rope_theta') or config.get('rope_theta') or 10000.0
  if kind == 'default':
    return {'rope_theta': theta}
  return {
    'rope_theta': theta,
    'rope_factor': _field(rope, 'factor'),
    'rope_low': _field(rope, 'low_freq_factor'),
    'rope_high': _field(rope, 'high_freq_factor'),
    'rope_original': _field(rope, 'original_max_position_embeddings'),
  }


def _field(mapping: Mapping[str, Any], name: str) -> Any:
  if name not in mapping:
    raise errors.UserError(
      f'the model config has no field {name!r}: it is incomplete or of '
      'another kind of model; use the config that came with the weights.'
    )
  return mapping[name]


def _check(name: str, value: Any, allowed: tuple[Any, ...]):
  if value not in allowed:
    raise errors.UserError(
      f'{name}={value!r} in the model config is not supported: use a '
      f'checkpoint where it is one of {list(allowed)}.'
    )
