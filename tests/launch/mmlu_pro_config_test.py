"""configs/mmlu_pro.py: appendix A.1, both ways of sampling."""

import pytest

from configs import mmlu_pro
from erp_jax.core import config, errors
from launch import pipeline_config


@pytest.mark.parametrize(
  ('arg', 'k', 'temperature'), [('', 8, 1.0), ('greedy', 1, 0.0)]
)
def test_builds(arg, k, temperature):
  values = mmlu_pro.get_config(arg)
  values.arms['qwen3-235b'].thinking = 'on'
  cfg = config.build(pipeline_config.Pipeline, values.to_dict())
  assert (cfg.sample.k, cfg.sample.temperature) == (k, temperature)
  assert {name: arm.nominal_b for name, arm in cfg.arms.items()} == {
    'llama31-8b': 8, 'llama31-70b': 70, 'qwen25-7b': 7, 'qwen3-235b': 235,
  }  # fmt: skip
  assert cfg.arms['qwen3-235b'].thinking == 'on'
  assert cfg.prompts.format == 'mmlu_pro'
  assert list(cfg.rewards) == ['verify']


def test_only_qwen3_has_a_switch_and_it_is_off():
  arms = mmlu_pro.get_config().arms
  assert {arm: arms[arm].thinking for arm in arms} == {
    'llama31-8b': 'default', 'llama31-70b': 'default',
    'qwen25-7b': 'default', 'qwen3-235b': 'off',
  }  # fmt: skip


def test_another_argument_is_refused():
  with pytest.raises(errors.UserError, match='mmlu_pro.py:greed is unknown'):
    mmlu_pro.get_config('greed')
