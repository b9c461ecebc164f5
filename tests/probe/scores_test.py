import numpy as np
import pytest
from sklearn import metrics

from erp_jax.probe import scores


def test_r2_agrees_with_sklearn_and_skips_missing_rewards():
  rng = np.random.default_rng(0)
  reward_N = rng.normal(size=50) + 100
  prediction_N = reward_N + rng.normal(size=50)
  expected = metrics.r2_score(reward_N[3:], prediction_N[3:])
  reward_N[:3] = np.nan
  assert scores.r2(reward_N, prediction_N) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
  'reward_N', [[0.1, 0.1, 0.1], [1.0], [], [np.nan, 0.5], [np.nan, np.nan]]
)
def test_r2_of_equal_rewards_is_undefined(reward_N):
  reward_N = np.array(reward_N, float)
  assert np.isnan(scores.r2(reward_N, np.zeros(len(reward_N))))


def test_auroc_agrees_with_sklearn_ties_included():
  rng = np.random.default_rng(1)
  for _ in range(20):
    positive_N = rng.random(40) < 0.3
    score_N = rng.integers(0, 5, 40).astype(float)
    expected = metrics.roc_auc_score(positive_N, score_N)
    assert scores.auroc(positive_N, score_N) == pytest.approx(expected)


@pytest.mark.parametrize('positive', [True, False])
def test_auroc_of_one_class_is_undefined(positive):
  assert np.isnan(scores.auroc(np.full(3, positive), np.arange(3.0)))
