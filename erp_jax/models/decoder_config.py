"""DecoderConfig from a hub config.json or from GGUF metadata.

What a family always does is a row of a table; everything else is read from
the checkpoint's own fields, in the spelling of transformers 4.x or 5.x.
"""

from collections.abc import Mapping
from typing import Any

from erp_jax.core import errors
from erp_jax.models import decoder

_GEMMA = {
  'activation': 'gelu_tanh',
  'embed_scaled': True,
  'norm_plus_one': True,
}
_GEMMA2 = {**_GEMMA, 'post_norms': True}
_GEMMA3 = {**_GEMMA2, 'qk_norm': True}
_FAMILIES = {
  'Gemma': _GEMMA,
  'Gemma2': _GEMMA2,
  'Gemma3': _GEMMA3,
  'Gemma3Text': _GEMMA3,
  'InternLM2': {'qkv_fused': True},
  'Llama': {},
  'Qwen2': {'qkv_bias': True},
  'Qwen3': {'qk_norm': True},
  'Qwen3Moe': {'qk_norm': True},
}
# The rest of an architecture's name -> whether it has a head `score`.
_HEADS = {'ForCausalLM': False, 'ForSequenceClassification': True}
# Named so in its checkpoint's own code; Qwen's of that ending has two layers.
_INTERNLM2_REWARD = 'InternLM2ForRewardModel'
# transformers 4.x names no layers: Gemma 2 has a window in all but every
# second one, Gemma 3 in all but every sixth.
_WINDOW_PERIOD = {'Gemma2': 2, 'Gemma3': 6, 'Gemma3Text': 6}
# 'dynamic' changes nothing up to max_position, and we read no further.
_PLAIN_ROPE = ('default', 'dynamic')
_ROPE_TYPES = (*_PLAIN_ROPE, 'linear', 'llama3')
_GGUF_FAMILIES = {'gemma3': 'Gemma3', 'llama': 'Llama', 'qwen2': 'Qwen2'}
# Of Gemma 3, where GGUF has no field for it.
_LOCAL_THETA = 10000.0


def from_hf(config: Mapping[str, Any]) -> decoder.DecoderConfig:
  """DecoderConfig of a config.json, as transformers 4.x or 5.x writes it.

  Raises UserError for an architecture, RoPE type or layer option that is not
  supported, and for a missing field.
  """
  family, has_score = _family(config)
  for option in ('bias', 'mlp_bias', 'use_bidirectional_attention'):
    _check(option, config.get(option) or False, (False,))
  heads = _field(config, 'num_attention_heads')
  width = _field(config, 'hidden_size')
  fields = dict(
    vocab_size=_field(config, 'vocab_size'),
    num_layers=_field(config, 'num_hidden_layers'),
    width=width,
    mlp=_field(config, 'intermediate_size'),
    heads=heads,
    kv_heads=config.get('num_key_value_heads') or heads,
    head_dim=config.get('head_dim') or width // heads,
    norm_eps=_field(config, 'rms_norm_eps'),
    # Gemma's published configs leave it to the default of its class.
    tied=config.get('tie_word_embeddings', family.startswith('Gemma')),
    max_position=_field(config, 'max_position_embeddings'),
    num_labels=len(config.get('id2label') or '-') if has_score else 0,
    attn_softcap=config.get('attn_logit_softcapping') or 0.0,
    logit_softcap=config.get('final_logit_softcapping') or 0.0,
    **_FAMILIES[family],
  )
  _check_activation(config, fields)
  if config.get('attention_bias'):
    fields |= {'qkv_bias': True, 'out_bias': True}
  if scalar := config.get('query_pre_attn_scalar'):
    fields['query_scale'] = scalar**-0.5
  fields |= _rope(config) | _window(config, family) | _experts(config)
  return decoder.DecoderConfig(**fields)


def from_gguf(metadata: Mapping[str, Any], tied: bool) -> decoder.DecoderConfig:
  """DecoderConfig of a GGUF file's metadata.

  `tied` is not among them: the head is tied when the file has no
  output.weight. Raises UserError for what is not supported.
  """
  name = 'general.architecture'
  arch = metadata.get(name)
  _check(name, arch, tuple(_GGUF_FAMILIES))
  family = _GGUF_FAMILIES[arch]

  def get(key, default=None):
    if default is None:
      return _field(metadata, f'{arch}.{key}')
    return metadata.get(f'{arch}.{key}', default)

  for key, plain in (('rope.scaling.type', 'none'), ('expert_count', 0)):
    _check(f'{arch}.{key}', get(key, plain), (plain,))
  heads = get('attention.head_count')
  width = get('embedding_length')
  num_layers = get('block_count')
  fields = dict(
    vocab_size=get('vocab_size', len(metadata['tokenizer.ggml.tokens'])),
    num_layers=num_layers,
    width=width,
    mlp=get('feed_forward_length'),
    heads=heads,
    kv_heads=get('attention.head_count_kv', heads),
    head_dim=get('attention.key_length', width // heads),
    rope_theta=get('rope.freq_base', 10000.0),
    norm_eps=get('attention.layer_norm_rms_epsilon'),
    tied=tied,
    max_position=get('context_length'),
    **_FAMILIES[family],
  )
  if family in _WINDOW_PERIOD:
    fields |= {
      'window': get('attention.sliding_window'),
      'windowed': _periodic(num_layers, _WINDOW_PERIOD[family]),
      'rope_local_theta': get('rope.freq_base_swa', _LOCAL_THETA),
    }
  return decoder.DecoderConfig(**fields)


def _family(config: Mapping[str, Any]) -> tuple[str, bool]:
  """The family, and whether its head is `score`."""
  name = (config.get('architectures') or ['none'])[0]
  allowed = {f + h: (f, has) for f in _FAMILIES for h, has in _HEADS.items()}
  allowed[_INTERNLM2_REWARD] = 'InternLM2', True
  _check('architectures', name, tuple(allowed))
  return allowed[name]


def _check_activation(config, fields) -> None:
  # transformers 4.x ignores Gemma 1's hidden_act, 5.x reads 'gelu' as tanh.
  name = config.get('hidden_activation') or config.get('hidden_act', 'silu')
  allowed = ('silu',)
  if fields.get('activation') == 'gelu_tanh':
    allowed = ('gelu_pytorch_tanh', 'gelu')
  _check('hidden_act', name, allowed)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
  # transformers 5.x: rope_parameters holds all, for Gemma 3 by kind of layer;
  # 4.x: rope_theta beside a rope_scaling that is null for plain RoPE and whose
  # 'type' is an older name of 'rope_type'.
  rope = config.get('rope_parameters') or config.get('rope_scaling') or {}
  local = config.get('rope_local_base_freq') or 0.0
  if 'full_attention' in rope:
    sliding = rope['sliding_attention']
    _check('rope_type', sliding.get('rope_type', 'default'), ('default',))
    rope, local = rope['full_attention'], _field(sliding, 'rope_theta')
  kind = rope.get('rope_type') or rope.get('type') or 'default'
  _check('rope_type', kind, _ROPE_TYPES)
  theta = rope.get('rope_theta') or config.get('rope_theta') or 10000.0
  fields = {'rope_theta': theta, 'rope_local_theta': local}
  if kind == 'linear':
    fields['rope_linear'] = _field(rope, 'factor')
  if kind == 'llama3':
    fields |= {
      'rope_factor': _field(rope, 'factor'),
      'rope_low': _field(rope, 'low_freq_factor'),
      'rope_high': _field(rope, 'high_freq_factor'),
      'rope_original': _field(rope, 'original_max_position_embeddings'),
    }
  return fields


def _window(config: Mapping[str, Any], family: str) -> dict[str, Any]:
  """Which layers have a window, and how long it is."""
  if config.get('use_sliding_window', True) and config.get('sliding_window'):
    num_layers = _field(config, 'num_hidden_layers')
    if 'layer_types' in config:
      windowed = tuple(
        kind == 'sliding_attention' for kind in config['layer_types']
      )
    elif family in _WINDOW_PERIOD:
      period = config.get('sliding_window_pattern') or _WINDOW_PERIOD[family]
      windowed = _periodic(num_layers, period)
    else:
      first = _field(config, 'max_window_layers')
      windowed = tuple(i >= first for i in range(num_layers))
    if any(windowed):
      return {'window': config['sliding_window'], 'windowed': windowed}
  return {}


def _periodic(num_layers: int, period: int) -> tuple[bool, ...]:
  """All but every `period`-th layer."""
  return tuple((i + 1) % period != 0 for i in range(num_layers))


def _experts(config: Mapping[str, Any]) -> dict[str, Any]:
  num = config.get('num_experts') or config.get('num_local_experts') or 0
  if not num:
    return {}
  _check('mlp_only_layers', config.get('mlp_only_layers') or [], ([],))
  _check('decoder_sparse_step', config.get('decoder_sparse_step', 1), (1,))
  return {
    'mlp': _field(config, 'moe_intermediate_size'),
    'num_experts': num,
    'experts_per_token': _field(config, 'num_experts_per_tok'),
    'renormalize_experts': config.get('norm_topk_prob', False),
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
