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


@pytest.mark.parametrize('baseline', [None, 0.3])
def test_moments_of_a_draw_are_r2_of_its_rows(baseline):
  """A baseline is relative to the columns' constants."""
  rng = np.random.default_rng(2)
  reward_NM = rng.normal(size=(30, 3)) + [0, 50, -20]
  prediction_NM = reward_NM + rng.normal(size=(30, 3))
  reward_NM[rng.random(reward_NM.shape) < 0.2] = np.nan
  counts_QN = rng.integers(0, 4, size=(5, 30)).astype(float)
  moments, centre_M = scores.draw_moments(
    *(reward_NM, prediction_NM), [counts_QN[:2], counts_QN[2:]]
  )
  given_QM = None if baseline is None else np.full((6, 3), baseline)
  found_QM = moments.r2(given_QM)
  for q, counts_N in enumerate([np.ones(30), *counts_QN]):
    for m in range(3):
      times_N = np.where(np.isfinite(reward_NM[:, m]), counts_N, 0).astype(int)
      rows = np.repeat(np.arange(30), times_N)
      truth, guess = reward_NM[rows, m], prediction_NM[rows, m]
      if baseline is None:
        expected = metrics.r2_score(truth, guess)
      else:
        about = baseline + centre_M[m]
        expected = 1 - sum((truth - guess) ** 2) / sum((truth - about) ** 2)
      assert found_QM[q, m] == pytest.approx(expected, abs=1e-10)
      assert moments.mean()[q, m] + centre_M[m] == pytest.approx(truth.mean())


@pytest.mark.parametrize('reward', [0.1, np.nan])
def test_moments_of_equal_rewards_have_no_r2(reward):
  reward_NM = np.full((7, 1), reward)
  moments, _ = scores.draw_moments(reward_NM, np.zeros((7, 1)))
  assert np.isnan(moments.r2()).all()
  assert np.isnan(moments.r2(np.ones((1, 1)))).all()
