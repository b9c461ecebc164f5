import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from scipy import special
from transformers.models.deberta_v2 import modeling_deberta_v2

from erp_jax.core import errors
from erp_jax.models import checkpoint, deberta, disentangled_attention
from erp_jax.models import params as params_lib

# The config of microsoft/deberta-v3-large with a head of one label.
_LARGE = {
  'architectures': ['DebertaV2ForSequenceClassification'],
  'model_type': 'deberta-v2',
  'attention_probs_dropout_prob': 0.1,
  'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.1,
  'hidden_size': 1024,
  'id2label': {'0': 'LABEL_0'},
  'initializer_range': 0.02,
  'intermediate_size': 4096,
  'max_position_embeddings': 512,
  'relative_attention': True,
  'position_buckets': 256,
  'norm_rel_ebd': 'layer_norm',
  'share_att_key': True,
  'pos_att_type': 'p2c|c2p',
  'layer_norm_eps': 1e-7,
  'max_relative_positions': -1,
  'position_biased_input': False,
  'num_attention_heads': 16,
  'num_hidden_layers': 24,
  'type_vocab_size': 0,
  'vocab_size': 128100,
}
_TINY = {
  'hidden_size': 24,
  'intermediate_size': 40,
  'layer_norm_eps': 1e-3,  # Large, so that its place matters.
  'max_position_embeddings': 64,
  'num_attention_heads': 4,
  'num_hidden_layers': 3,
  'position_buckets': 8,
  'vocab_size': 97,
}


@functools.partial(jax.jit, static_argnames='cfg')
def _reward(params, cfg, token_BT, valid_BT):
  tables = deberta.distance_tables(params, cfg)
  return deberta.reward(params, tables, cfg, token_BT, valid_BT)


@functools.partial(jax.jit, static_argnames='cfg')
def _encode(params, cfg, token_BT, valid_BT):
  tables = deberta.distance_tables(params, cfg)
  return deberta.encode(params, tables, cfg, token_BT, valid_BT)


def _make(folder, **fields):
  """A random torch reward model, and ours loaded from what it saved."""
  torch.manual_seed(0)
  config = transformers.DebertaV2Config(**_LARGE | _TINY | fields)
  model = transformers.DebertaV2ForSequenceClassification(config).eval()
  with torch.no_grad():
    for name, param in model.named_parameters():
      mean = 1.0 if name.endswith('LayerNorm.weight') else 0.0
      param.normal_(mean, 0.3)
  model.save_pretrained(folder)
  ckpt = checkpoint.open_checkpoint(str(folder))
  cfg = deberta.from_hf(ckpt.config)
  params = params_lib.load(
    deberta.weights(cfg), ckpt.tensors, jnp.float32, deberta.IGNORED
  )
  return model, cfg, params


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  return _make(tmp_path_factory.mktemp('deberta'))


def _batch(length):
  """Random ids right-padded to `length`, and where they are valid."""
  rng = np.random.default_rng(length)
  token_BT = rng.integers(1, 97, (6, length))
  num_B = np.array([length, 1, *rng.integers(1, length + 1, 4)])
  return token_BT, np.arange(length) < num_B[:, None]


def _check_against_torch(model, cfg, params, length):
  token_BT, valid_BT = _batch(length)
  with torch.no_grad():
    output = model(
      torch.tensor(token_BT), attention_mask=torch.tensor(valid_BT).long()
    )
  got_B = _reward(params, cfg, token_BT, valid_BT)
  assert got_B.dtype == jnp.float32
  assert np.ptp(got_B) > 0.1  # A comparison of constants would show nothing.
  np.testing.assert_allclose(got_B, output.logits[:, 0], atol=2e-5)


@pytest.fixture(params=['kernel', 'xla'])
def attention(request, monkeypatch):
  """Both ways of attending; the kernel's is skipped where it cannot be."""
  if request.param == 'xla':
    monkeypatch.setattr(disentangled_attention, 'is_usable', lambda: False)
  elif not disentangled_attention.is_usable():
    pytest.skip('no AVX-512 or no C++ compiler')
  jax.clear_caches()
  yield
  jax.clear_caches()


@pytest.mark.parametrize('length', [1, 2, 60, 100])
def test_agrees_with_torch(tiny, attention, length):
  _check_against_torch(*tiny, length)


def test_only_one_layer_agrees_with_torch(tmp_path):
  _check_against_torch(*_make(tmp_path, num_hidden_layers=1), 20)


@pytest.mark.parametrize('num_pads', [0, 7])
def test_the_last_layer_at_the_first_token_is_that_of_all(tiny, num_pads):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch(30)
  token_BT, valid_BT = (
    np.pad(x, [(0, 0), (num_pads, 0)]) for x in (token_BT, valid_BT)
  )
  x_BD = np.float64(_encode(params, cfg, token_BT, valid_BT)[:, num_pads])
  pooler, classifier = jax.tree.map(
    np.float64, (params['pooler'], params['classifier'])
  )
  y_BD = x_BD @ pooler['w'] + pooler['b']
  y_BD *= special.ndtr(y_BD)
  want_BY = y_BD @ classifier['w'] + classifier['b']
  got_B = _reward(params, cfg, token_BT, valid_BT)
  np.testing.assert_allclose(got_B, want_BY[:, 0], atol=1e-5)


def test_agrees_with_torch_where_the_config_has_a_largest_distance(tmp_path):
  model = _make(tmp_path, position_buckets=6, max_relative_positions=40)
  _check_against_torch(*model, 60)


def test_every_hidden_state_of_a_full_row_agrees_with_torch(tiny, attention):
  model, cfg, params = tiny
  token_BT, _ = _batch(60)
  valid_BT = np.ones_like(token_BT, bool)
  with torch.no_grad():
    want_BTD = model.deberta(torch.tensor(token_BT)).last_hidden_state
  got_BTD = _encode(params, cfg, token_BT, valid_BT)
  np.testing.assert_allclose(got_BTD, want_BTD, atol=2e-5)


@pytest.mark.parametrize(
  ('side', 'num_pads'), [('left', 5), ('left', 60), ('right', 60)]
)
def test_padding_changes_nothing(tiny, side, num_pads):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch(40)
  widths = [(0, 0), (num_pads, 0) if side == 'left' else (0, num_pads)]
  if side == 'left':
    # The row's tokens to the right end.
    order_BT = np.argsort(valid_BT, axis=1, kind='stable')
    moved_BT = np.take_along_axis(token_BT, order_BT, axis=1)
    padded = moved_BT, np.take_along_axis(valid_BT, order_BT, axis=1)
  else:
    padded = token_BT, valid_BT
  padded = [np.pad(x, widths) for x in padded]
  want_B = _reward(params, cfg, token_BT, valid_BT)
  got_B = _reward(params, cfg, *padded)
  np.testing.assert_allclose(got_B, want_B, atol=1e-5)


def test_a_row_without_a_token_is_finite_and_harmless(tiny):
  _, cfg, params = tiny
  token_BT, valid_BT = _batch(40)
  want_B = _reward(params, cfg, token_BT, valid_BT)
  valid_BT[2:] = False
  got_B = _reward(params, cfg, token_BT, valid_BT)
  assert np.isfinite(got_B).all()
  np.testing.assert_allclose(got_B[:2], want_B[:2], atol=1e-5)


@pytest.mark.parametrize(
  ('buckets', 'max_distance'), [(256, 512), (8, 64), (6, 40), (7, 33), (2, 9)]
)
def test_rows_of_relative_positions_are_those_of_torch(buckets, max_distance):
  cfg = deberta.from_hf(
    _LARGE
    | {'position_buckets': buckets, 'max_relative_positions': max_distance}
  )
  distance = np.arange(-4096, 4097)
  bucket = modeling_deberta_v2.make_log_bucket_position(
    torch.tensor(distance), buckets, max_distance
  )
  want = (bucket.long() + buckets).clamp(0, 2 * buckets - 1).numpy()
  np.testing.assert_array_equal(deberta.relative_row(cfg, distance), want)


def test_rows_of_relative_positions_by_hand():
  cfg = deberta.from_hf(_LARGE)

  def row(distance):
    size = abs(distance)
    if size > 128:
      size = 128 + math.ceil(127 * math.log(size / 128, 511 / 128))
    return 256 + max(-256, min(255, math.copysign(size, distance)))

  for distance in (0, 1, -1, 127, 128, -128, 129, 300, -300, 509, 1000, -1000):
    assert deberta.relative_row(cfg, np.array(distance)) == row(distance)


def test_parameter_count_of_the_large_model():
  tree = deberta.weights(deberta.from_hf(_LARGE))
  # As MODELS.md, section 0.
  assert params_lib.count(tree) == 435_062_785


def test_leftovers_of_pretraining_are_ignored_and_others_are_not(tiny):
  _, cfg, params = tiny
  tree = deberta.weights(cfg)
  tensors = dict(params_lib.to_tensors(tree, params))
  for name in (
    'deberta.embeddings.position_embeddings.weight',
    'deberta.embeddings.position_ids',
    'mask_predictions.dense.weight',
    'lm_predictions.lm_head.bias',
  ):
    tensors[name] = np.zeros(3, np.float32)
  loaded = params_lib.load(tree, tensors, jnp.float32, deberta.IGNORED)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  tensors['deberta.encoder.conv.conv.weight'] = np.zeros(3, np.float32)
  with pytest.raises(errors.UserError, match='holds deberta.encoder.conv'):
    params_lib.load(tree, tensors, jnp.float32, deberta.IGNORED)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model_type': 'bert'}, "model_type = 'bert', only 'deberta-v2'"),
    ({'hidden_act': 'gelu_new'}, "hidden_act = 'gelu_new', only 'gelu'"),
    ({'pooler_hidden_act': 'tanh'}, "pooler_hidden_act = 'tanh', only 'gelu'"),
    ({'relative_attention': False}, 'relative_attention = False, only True'),
    ({'share_att_key': False}, 'share_att_key = False, only True'),
    ({'norm_rel_ebd': 'none'}, "norm_rel_ebd = 'none', only 'layer_norm'"),
    ({'position_biased_input': True}, 'position_biased_input = True, only Fal'),
    ({'conv_kernel_size': 3}, 'conv_kernel_size = 3, only 0'),
    ({'type_vocab_size': 2}, 'type_vocab_size = 2, only 0'),
    ({'pos_att_type': 'c2p'}, "pos_att_type = 'c2p', only 'c2p|p2c'"),
    ({'pos_att_type': ['c2p', 'p2p']}, "pos_att_type = 'c2p.p2p', only"),
    ({'pos_att_type': None}, "pos_att_type = '', only"),
    ({'embedding_size': 128}, 'embedding_size = 128, only 1024'),
    ({'pooler_hidden_size': 8}, 'pooler_hidden_size = 8, only 1024'),
    ({'attention_head_size': 32}, 'heads x attention_head_size = 512, only'),
    ({'id2label': {'0': 'a', '1': 'b'}}, 'number of labels = 2, only 1'),
    ({'num_labels': 3}, 'number of labels = 3, only 1'),
    ({'architectures': ['DebertaV2Model']}, "architectures = 'DebertaV2Model'"),
    ({'position_buckets': -1}, 'position_buckets = -1 for distances up to 512'),
    ({'max_relative_positions': 100}, '256 for distances up to 100'),
  ],
)
def test_another_network_is_refused_by_name(fields, message):
  with pytest.raises(errors.UserError, match=message):
    deberta.from_hf(_LARGE | fields)


@pytest.mark.parametrize(
  ('left_out', 'message'),
  [
    ('vocab_size', "no 'vocab_size'"),
    ('position_biased_input', 'position_biased_input = True'),
    ('id2label', 'number of labels = 2'),
  ],
)
def test_what_a_config_leaves_out_is_as_transformers_has_it(left_out, message):
  config = {name: x for name, x in _LARGE.items() if name != left_out}
  with pytest.raises(errors.UserError, match=message):
    deberta.from_hf(config)


def test_both_spellings_of_a_config_are_the_same():
  saved = json.loads(transformers.DebertaV2Config(**_LARGE).to_json_string())
  assert saved['pos_att_type'] == ['p2c', 'c2p']
  assert deberta.from_hf(saved) == deberta.from_hf(_LARGE)
