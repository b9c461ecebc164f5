"""Reward models on real weights rank answers; bad rewards leave the mean."""

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.data import prompts
from erp_jax.score import rewards
from tests.score import answers

_SMOLLM2 = 'package:smollm2-135m-instruct'


def _ignore(n, positions=0):
  del n, positions


def _score(prompts_, texts, **kwargs):
  cfg = rewards.RewardConfig(model=_SMOLLM2, dtype='float32', **kwargs)
  return rewards.scorer(cfg)(prompts_, texts, _ignore).rewards


@pytest.mark.slow
def test_relevance_ranks_right_above_off_topic():
  """ASSETS.md: right +2.1 to +2.4, related but wrong less, off-topic < -1."""
  france, two = _score(answers.PROMPTS, answers.TEXTS, kind='relevance')
  assert france[0] > 1.5 and france[0] > france[1] > 0 > france[2]
  # It can't tell 4 from 5: relevance is not correctness.
  assert min(two[0], two[1]) > 1 > -1 > two[2]
  assert np.isnan(france[3])  # An empty response has no mean.


@pytest.mark.slow
def test_relevance_does_not_depend_on_company():
  together = _score(
    answers.PROMPTS, answers.TEXTS, kind='relevance', batch_tokens=512
  )
  for n, texts in enumerate(answers.TEXTS):
    alone = _score(answers.PROMPTS[n : n + 1], [texts], kind='relevance')
    np.testing.assert_allclose(together[n], alone[0], atol=2e-4)


@pytest.mark.slow
def test_judge_of_smollm2_is_weak_but_real():
  """ASSETS.md: about -1.2 right, -1.35 wrong, -1.7 off-topic."""
  cfg_prompts = answers.PROMPTS[:1]
  (france,) = _score(cfg_prompts, [answers.TEXTS[0][:3]], kind='judge')
  assert np.isfinite(france).all()
  assert (np.abs(france) < 6).all()
  assert france[0] > france[2]
  (one,) = _score(cfg_prompts, [answers.TEXTS[0][:1]], kind='judge')
  np.testing.assert_allclose(one[0], france[0], atol=2e-4)


def test_verify_leaves_prompts_without_checks_out():
  checked = prompts.Prompt(
    'c', 'What is 2 + 2?', 'math', {'kind': 'number', 'answer': '4'}
  )
  score = rewards.scorer(rewards.RewardConfig(kind='verify'))
  texts = [['4', '5'], ['Paris']]
  got, num_cut, _ = score([checked, answers.PROMPTS[0]], texts, _ignore)
  assert num_cut == 0
  np.testing.assert_array_equal(got[0], [1, 0])
  assert np.isnan(got[1]).all()


def test_verify_names_a_prompt_with_bad_checks():
  wrong = prompts.Prompt('d', 'x', 'math', {'kind': 'nubmer', 'answer': '4'})
  with pytest.raises(errors.UserError, match="prompt 'd'.*nubmer"):
    rewards.check_prompts([rewards.RewardConfig(kind='verify')], [wrong])


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'kind': 'vote'}, "kind 'vote' is unknown"),
    ({'kind': 'judge'}, "for kind 'judge', which needs a decoder"),
    ({'kind': 'preference'}, 'needs the --workdir of a launch.train_reward'),
    ({'kind': 'verify', 'model': 'x'}, 'needs none'),
    ({'dtype': 'float16'}, "dtype is 'float16', but must .* float32, int8"),
    ({'bos': 'two'}, "bos is 'two', but must be one of auto, template, doubl"),
    ({'pair': 'raw'}, "pair is 'raw', but must be one of pair, joined"),
    ({'max_responses': -1}, 'max_responses >= 0'),
    ({'max_tokens': -1}, 'max_tokens >= 0'),
    (
      {'kind': 'judge', 'model': 'x', 'bos': 'doubled'},
      "bos is 'doubled', but kind 'judge' does not read it",
    ),
    (
      {'kind': 'preference', 'model': 'x', 'max_tokens': 9},
      'max_tokens is 9, but kind',
    ),
  ],
)
def test_config_mistakes(fields, message):
  with pytest.raises(errors.UserError, match=message):
    rewards.RewardConfig(**fields)
