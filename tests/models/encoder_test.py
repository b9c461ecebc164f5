import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors import numpy as safetensors_numpy

from erp_jax.core import errors
from erp_jax.models import encoder, encoder_config
from erp_jax.models import params as params_lib

_SHAPES = {
  'vocab_size': 97,
  'hidden_size': 24,
  'num_hidden_layers': 3,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'max_position_embeddings': 64,
}
# transformers 5.23 lacks gte's NTK: this is the same turn per position.
_NTK = {
  'rope_type': 'linear',
  'rope_theta': 160_000.0 * 2,
  'factor': 2 ** (2 / 8),
}
# The same networks as their authors' code writes it in config.json.
_AUTHORS = {
  'model_type': 'new',
  'architectures': ['NewModel'],
  'position_embedding_type': 'rope',
  'rope_theta': 160_000,
  'rope_scaling': {'type': 'ntk', 'factor': 2.0},
  'layer_norm_type': 'layer_norm',
  'hidden_act': 'gelu',
  'layer_norm_eps': 1e-12,
  'pack_qkv': True,
  'logn_attention_scale': False,
  'logn_attention_clip1': False,
  'type_vocab_size': 2,
  **_SHAPES,
}
# gte-large-en-v1.5, MODELS.md 4.1.
_GTE_LARGE = _AUTHORS | {
  'vocab_size': 30528,
  'hidden_size': 1024,
  'num_hidden_layers': 24,
  'num_attention_heads': 16,
  'intermediate_size': 4096,
  'max_position_embeddings': 8192,
}


def _gte(cls=transformers.GteModel, type_vocab_size=2, rope=_NTK):
  config = transformers.GteConfig(
    **_SHAPES,
    type_vocab_size=type_vocab_size,
    pad_token_id=0,
    rope_parameters=rope,
  )
  return cls._from_config(config, attn_implementation='eager')


def _bert(cls=transformers.BertModel):
  config = transformers.BertConfig(**_SHAPES)
  return cls._from_config(config, attn_implementation='eager')


_NETWORKS = {
  'bert': _bert,
  'bert with a head': lambda: _bert(transformers.BertForMaskedLM),
  'gte': _gte,
  'gte with a head': lambda: _gte(transformers.GteForSequenceClassification),
  'gte without token types or scaling': lambda: _gte(
    type_vocab_size=0,
    rope={'rope_type': 'default', 'rope_theta': 500_000.0},
  ),
}


@functools.cache
def _model(name):
  """A torch network with random values in every place."""
  torch.manual_seed(0)
  model = _NETWORKS[name]().eval()
  with torch.no_grad():
    for key, param in model.named_parameters():
      is_scale = 'norm.weight' in key.lower()
      param.normal_(1.0 if is_scale else 0.0, 0.2)
  return model


@pytest.fixture(scope='module', params=_NETWORKS)
def tiny(request, tmp_path_factory):
  """A torch network, and ours loaded from what it saved."""
  model = _model(request.param)
  folder = tmp_path_factory.mktemp('tiny')
  model.save_pretrained(folder)
  config = json.loads((folder / 'config.json').read_text())
  cfg = encoder_config.from_hf(config)
  tensors = safetensors_numpy.load_file(folder / 'model.safetensors')
  return model.base_model, cfg, encoder.load(cfg, tensors, jnp.float32)


two_networks = pytest.mark.parametrize('tiny', ['bert', 'gte'], indirect=True)


def _batch(num_rows=5, size=17):
  rng = np.random.default_rng(1)
  token_BT = rng.integers(1, 97, (num_rows, size))
  length_B = rng.integers(1, size + 1, num_rows)
  length_B[0] = size
  valid_BT = np.arange(size) < length_B[:, None]
  return np.where(valid_BT, token_BT, 0), valid_BT


@pytest.mark.parametrize('size', [17, 64])
def test_agrees_with_transformers_on_a_padded_batch(tiny, size):
  model, cfg, params = tiny
  token_BT, valid_BT = _batch(size=size)
  with torch.no_grad():
    states = model(
      torch.tensor(token_BT),
      attention_mask=torch.tensor(valid_BT).long(),
      output_hidden_states=True,
    ).hidden_states
  for num_layers, want_BTD in ((0, states[-1]), (1, states[1])):
    got_BTD = encoder.encode(params, cfg, token_BT, valid_BT, num_layers)
    np.testing.assert_allclose(
      np.asarray(got_BTD)[valid_BT], want_BTD.numpy()[valid_BT], atol=2e-5
    )


@two_networks
def test_padding_changes_nothing(tiny):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch()
  got_BTD = encoder.encode(params, cfg, token_BT, valid_BT)
  other_BT = np.where(valid_BT, token_BT, 50)
  wide_BT = np.pad(other_BT, ((0, 2), (0, 6)), constant_values=3)
  wide_valid_BT = np.pad(valid_BT, ((0, 2), (0, 6)))
  wide_BTD = encoder.encode(params, cfg, wide_BT, wide_valid_BT)
  assert np.isfinite(wide_BTD).all()  # Also rows with no valid token.
  np.testing.assert_allclose(
    np.asarray(wide_BTD)[:5, :17][valid_BT],
    np.asarray(got_BTD)[valid_BT],
    atol=5e-6,
  )


@two_networks
def test_attention_by_parts_is_the_same(tiny, monkeypatch):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch()
  want_BTD = encoder.encode(params, cfg, token_BT, valid_BT)
  monkeypatch.setattr(encoder, '_MAX_QUERIES', 7)  # 17 = 7 + 7 + 3.
  got_BTD = encoder.encode(params, cfg, token_BT, valid_BT)
  np.testing.assert_allclose(got_BTD, want_BTD, atol=5e-6)


def test_long_rows_do_not_hold_all_their_scores():
  cfg = encoder_config.from_hf(_AUTHORS | {'max_position_embeddings': 8192})
  params = jax.eval_shape(
    lambda: params_lib.init(
      encoder.weights(cfg), jax.random.key(0), jnp.float32
    )
  )
  size = 4096
  token_BT = jax.ShapeDtypeStruct((1, size), jnp.int32)
  valid_BT = jax.ShapeDtypeStruct((1, size), bool)
  encode = jax.jit(encoder.encode, static_argnums=1)
  program = encode.lower(params, cfg, token_BT, valid_BT).compile()
  num_scores = cfg.heads * size**2
  assert program.memory_analysis().temp_size_in_bytes < 0.8 * 4 * num_scores


@two_networks
def test_bfloat16_is_near_float32(tiny):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch()
  want_BTD = np.asarray(encoder.encode(params, cfg, token_BT, valid_BT))
  params = jax.tree.map(lambda value: value.astype(jnp.bfloat16), params)
  got_BTD = encoder.encode(params, cfg, token_BT, valid_BT)
  assert got_BTD.dtype == jnp.bfloat16
  error_BTD = np.asarray(got_BTD, np.float32) - want_BTD
  assert 0.001 < error_BTD[valid_BT].std() < 0.03 * want_BTD.std()


def test_gte_as_its_authors_write_it(tmp_path):
  model = _model('gte')
  model.save_pretrained(tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  want = encoder_config.from_hf(config)
  got = encoder_config.from_hf(_AUTHORS)
  assert got == want
  tensors = safetensors_numpy.load_file(tmp_path / 'model.safetensors')
  plain = encoder.load(got, tensors, jnp.float32)
  tensors = {f'new.{name}': value for name, value in tensors.items()}
  prefixed = encoder.load(got, tensors, jnp.float32)
  jax.tree.map(np.testing.assert_array_equal, plain, prefixed)


def test_gte_without_token_types_or_scaling_by_its_authors():
  config = {k: v for k, v in _AUTHORS.items() if k != 'type_vocab_size'}
  cfg = encoder_config.from_hf(config | {'rope_scaling': None})
  assert (cfg.num_token_types, cfg.rope_divisor) == (0, 1)
  assert cfg.rope_theta == 160_000


def test_gte_large_turns_and_size():
  cfg = encoder_config.from_hf(_GTE_LARGE)
  radians = encoder.frequencies(cfg)
  # MODELS.md 4.1, run with the authors' formula.
  assert radians[:3] == pytest.approx([0.978572, 0.658502, 0.443120], abs=1e-6)
  assert radians[-1] == pytest.approx(4.5444e-06, rel=1e-5)
  config = transformers.GteConfig(
    head_dim=64,
    hidden_size=1024,
    num_attention_heads=16,
    rope_parameters=_NTK | {'factor': 2 ** (2 / 64)},
  )
  rotary = transformers.models.gte.modeling_gte.GteRotaryEmbedding(config)
  np.testing.assert_allclose(radians, rotary.inv_freq.numpy(), rtol=1e-6)
  assert params_lib.count(encoder.weights(cfg)) == 434_139_136


def test_size_of_minilm(minilm_dir):
  config = json.loads((minilm_dir / 'config.json').read_text())
  cfg = encoder_config.from_hf(config)
  # MODELS.md counts the pooler too, which is in the file.
  num_unused = params_lib.count(encoder.unused_weights(cfg))
  assert num_unused == 147_840
  num_used = params_lib.count(encoder.weights(cfg))
  assert num_used + num_unused == 22_713_216


def test_a_tensor_too_many_is_named():
  cfg = encoder_config.from_hf(_AUTHORS | {'type_vocab_size': 0})
  tensors = {
    name: np.zeros(param.file_shape, np.float32)
    for param in params_lib.leaves(encoder.weights(cfg))
    for name in param.file_names()
  }
  tensors['embeddings.token_type_embeddings.weight'] = np.zeros((2, 24))
  with pytest.raises(errors.UserError, match='holds embeddings.token_type_emb'):
    encoder.load(cfg, tensors, jnp.float32)


@pytest.mark.parametrize(
  ('kind', 'change', 'message'),
  [
    ('bert', {'model_type': 'roberta'}, "model_type = 'roberta'"),
    ('bert', {'hidden_act': 'gelu_new'}, "hidden_act = 'gelu_new'"),
    ('bert', {'position_embedding_type': 'relative_key'}, 'relative_key'),
    ('bert', {'is_decoder': True}, 'is_decoder = True'),
    ('new', {'position_embedding_type': 'absolute'}, "type = 'absolute'"),
    ('new', {'layer_norm_type': 'rms_norm'}, "layer_norm_type = 'rms_norm'"),
    ('new', {'pack_qkv': False}, 'pack_qkv = False'),
    ('new', {'logn_attention_scale': True}, 'logn_attention_scale = True'),
    ('new', {'logn_attention_clip1': True}, 'logn_attention_clip1 = True'),
    (
      'new',
      {'rope_scaling': {'type': 'dynamic', 'factor': 2.0}},
      "rope_type = 'dynamic', supported is 'default' or 'linear' or 'ntk'",
    ),
    (
      'new',
      {'rope_scaling': {'type': 'ntk', 'factor': 2.0, 'mixed_b': 0.5}},
      'mixed_b = 0.5',
    ),
    ('new', {'rope_scaling': {'type': 'ntk'}}, "has no 'factor'"),
  ],
)
def test_refuses_other_architectures(kind, change, message):
  config = _AUTHORS if kind == 'new' else {'model_type': 'bert'} | _SHAPES
  config = {'layer_norm_eps': 1e-12, 'type_vocab_size': 2} | config
  encoder_config.from_hf(config)
  with pytest.raises(errors.UserError, match=message):
    encoder_config.from_hf(config | change)


@pytest.mark.parametrize('name', ['vocab_size', 'rope_theta'])
def test_refuses_a_config_with_a_missing_field(name):
  config = {key: value for key, value in _AUTHORS.items() if key != name}
  with pytest.raises(errors.UserError, match=f"no '{name}'"):
    encoder_config.from_hf(config)
