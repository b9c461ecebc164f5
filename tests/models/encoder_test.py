import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors import numpy as safetensors_numpy

from erp_jax.core import errors
from erp_jax.models import encoder, pooling
from erp_jax.models import params as params_lib


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """A random BertModel, and ours loaded from what it saved."""
  torch.manual_seed(0)
  config = transformers.BertConfig(
    vocab_size=97,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=32,
  )
  config._attn_implementation = 'eager'
  model = transformers.BertModel(config).eval()
  with torch.no_grad():
    for name, param in model.named_parameters():
      mean = 1.0 if name.endswith('LayerNorm.weight') else 0.0
      param.normal_(mean, 0.2)
  folder = tmp_path_factory.mktemp('bert')
  model.save_pretrained(folder)
  cfg = encoder.from_hf(json.loads((folder / 'config.json').read_text()))
  tensors = safetensors_numpy.load_file(folder / 'model.safetensors')
  params = params_lib.load(
    encoder.weights(cfg), tensors, jnp.float32, encoder.IGNORED
  )
  return model, cfg, params


def _batch(num_rows=5, size=17):
  rng = np.random.default_rng(1)
  token_BT = rng.integers(1, 97, (num_rows, size))
  length_B = rng.integers(1, size + 1, num_rows)
  length_B[0] = size
  valid_BT = np.arange(size) < length_B[:, None]
  return np.where(valid_BT, token_BT, 0), valid_BT


def test_agrees_with_transformers_on_a_padded_batch(tiny):
  model, cfg, params = tiny
  token_BT, valid_BT = _batch()
  with torch.no_grad():
    want_BTD = model(
      torch.tensor(token_BT), attention_mask=torch.tensor(valid_BT).long()
    ).last_hidden_state.numpy()
  got_BTD = np.asarray(encoder.encode(params, cfg, token_BT, valid_BT))
  np.testing.assert_allclose(got_BTD[valid_BT], want_BTD[valid_BT], atol=2e-5)


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


def test_pool_by_hand():
  x_BTD = jnp.arange(12.0).reshape(2, 3, 2)
  valid_BT = jnp.array([[True, True, False], [False, False, False]])
  mean_BD = pooling.pool(x_BTD, valid_BT, 'mean')
  assert mean_BD.tolist() == [[1.0, 2.0], [0.0, 0.0]]
  assert pooling.pool(x_BTD, valid_BT, 'cls').tolist() == [[0, 1], [6, 7]]


@pytest.mark.parametrize(
  ('config', 'mode'),
  [
    ({'pooling_mode': 'cls'}, 'cls'),
    (
      {'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False},
      'cls',
    ),
    (
      {'pooling_mode_cls_token': False, 'pooling_mode_mean_tokens': True},
      'mean',
    ),
  ],
)
def test_pooling_is_read_from_the_checkpoint(tmp_path, config, mode):
  modules = [
    {'type': 'sentence_transformers.models.Transformer', 'path': ''},
    {'type': 'sentence_transformers.models.Pooling', 'path': '1_Pooling'},
  ]
  (tmp_path / 'modules.json').write_text(json.dumps(modules))
  (tmp_path / '1_Pooling').mkdir()
  path = tmp_path / '1_Pooling/config.json'
  path.write_text(json.dumps(config))
  assert pooling.read_mode(tmp_path) == mode
  path.write_text(json.dumps({'pooling_mode': 'max'}))
  with pytest.raises(errors.UserError, match='pooling max; supported are mean'):
    pooling.read_mode(tmp_path)
  modules.append({'type': 'models.Dense', 'path': '2_Dense'})
  (tmp_path / 'modules.json').write_text(json.dumps(modules))
  with pytest.raises(errors.UserError, match='Dense; supported are Transf'):
    pooling.read_mode(tmp_path)
  (tmp_path / 'modules.json').write_text('{}')
  with pytest.raises(errors.UserError, match='json .* must hold a list'):
    pooling.read_mode(tmp_path)
  (tmp_path / 'modules.json').write_text(json.dumps(modules[:2]))
  path.unlink()
  with pytest.raises(errors.UserError, match='1_Pooling/config.json cannot be'):
    pooling.read_mode(tmp_path)


def test_pooling_without_a_pipeline_is_the_mean(tmp_path):
  assert pooling.read_mode(tmp_path) == 'mean'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'model_type': 'roberta'}, "model_type = 'roberta'"),
    ({'hidden_act': 'gelu_new'}, "hidden_act = 'gelu_new'"),
    ({'position_embedding_type': 'relative_key'}, 'relative_key'),
    ({'is_decoder': True}, 'is_decoder = True'),
  ],
)
def test_refuses_other_architectures(change, message):
  with pytest.raises(errors.UserError, match=message):
    encoder.from_hf({'model_type': 'bert', 'hidden_act': 'gelu', **change})


def test_refuses_a_config_with_a_missing_field():
  with pytest.raises(errors.UserError, match="no 'vocab_size'"):
    encoder.from_hf({'model_type': 'bert'})


def test_parameter_count_of_minilm(minilm_dir):
  config = json.loads((minilm_dir / 'config.json').read_text())
  # MODELS.md: 22 713 216 with the pooler's 147 840, which is left out.
  num_params = params_lib.count(encoder.weights(encoder.from_hf(config)))
  assert num_params == 22_713_216 - 147_840
