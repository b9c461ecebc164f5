import json

import jax.numpy as jnp
import pytest

from erp_jax.core import errors
from erp_jax.models import pooling

_MODULES = [
  {'type': 'sentence_transformers.models.Transformer', 'path': ''},
  {'type': 'sentence_transformers.models.Pooling', 'path': '1_Pooling'},
]


@pytest.fixture
def folder(tmp_path):
  (tmp_path / '1_Pooling').mkdir()
  _write(tmp_path / 'modules.json', _MODULES)
  return tmp_path


def _write(path, value):
  path.write_text(json.dumps(value))


def test_pool_by_hand():
  x_BTD = jnp.arange(12.0).reshape(2, 3, 2)
  valid_BT = jnp.array([[True, True, False], [False, False, False]])
  mean_BD = pooling.pool(x_BTD, valid_BT, 'mean')
  assert mean_BD.tolist() == [[1.0, 2.0], [0.0, 0.0]]
  assert pooling.pool(x_BTD, valid_BT, 'cls').tolist() == [[0, 1], [6, 7]]
  assert pooling.pool(x_BTD, valid_BT, 'last').tolist() == [[2, 3], [6, 7]]


@pytest.mark.parametrize(
  ('config', 'mode'),
  [
    ({'pooling_mode': 'cls'}, 'cls'),
    ({'pooling_mode': ['lasttoken'], 'include_prompt': True}, 'last'),
    (
      {'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False},
      'cls',
    ),
    (
      {'pooling_mode_cls_token': False, 'pooling_mode_mean_tokens': True},
      'mean',
    ),
    (
      {'pooling_mode_mean_tokens': False, 'pooling_mode_lasttoken': True},
      'last',
    ),
  ],
)
def test_pooling_is_read_from_the_checkpoint(folder, config, mode):
  _write(folder / '1_Pooling/config.json', config)
  for default in pooling.MODES:
    assert pooling.read_mode(folder, default) == mode


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    ({'pooling_mode': 'max'}, 'pooling max; supported are mean'),
    ({'pooling_mode': ['cls', 'mean']}, r'pooling cls \+ mean; supp'),
    ({}, 'has pooling ; supported are mean'),
    ({'pooling_mode': 'cls', 'include_prompt': False}, 'include_prompt = fals'),
  ],
)
def test_refuses_other_pooling(folder, config, message):
  _write(folder / '1_Pooling/config.json', config)
  with pytest.raises(errors.UserError, match=message):
    pooling.read_mode(folder, 'mean')


@pytest.mark.parametrize(
  ('modules', 'message'),
  [
    ([*_MODULES, {'type': 'm.Dense', 'path': '2_Dense'}], 'Dense; supported'),
    (_MODULES[:1], 'lists the modules Transformer; supported'),
    ({}, 'json .* must hold a list'),
    (_MODULES, '1_Pooling/config.json cannot be'),
  ],
)
def test_refuses_other_pipelines(folder, modules, message):
  _write(folder / 'modules.json', modules)
  with pytest.raises(errors.UserError, match=message):
    pooling.read_mode(folder, 'mean')


def test_without_a_pipeline_pooling_is_the_default(tmp_path):
  assert pooling.read_mode(tmp_path, 'last') == 'last'


def test_lower_case_is_read(tmp_path):
  assert not pooling.lower_cases(tmp_path)
  for value in (True, False):
    config = {'max_seq_length': 512, 'do_lower_case': value}
    _write(tmp_path / 'sentence_bert_config.json', config)
    assert pooling.lower_cases(tmp_path) == value
