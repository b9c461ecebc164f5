"""Variances against direct float64 inverses, P(win) against draws."""

import numpy as np
import pytest
from scipy import stats

from erp_jax.probe import ridge
from erp_jax.route import posterior


def _problem(seed, num, width, num_arms=3):
  rng = np.random.default_rng(seed)
  x_NE = rng.normal(size=(num, width)) * np.linspace(1, 0.02, width) + 0.5
  reward_NM = x_NE @ rng.normal(size=(width, num_arms))
  return x_NE, reward_NM + rng.normal(size=reward_NM.shape), rng


def _fit(x_NE, reward_NM, penalty_M, intercept=True, quantile=0.99):
  """The posterior, with the ridge fit that goes with it."""
  prediction_NM = np.empty(reward_NM.shape)
  for m, penalty in enumerate(penalty_M):
    cfg = ridge.RidgeConfig(beta=penalty, embedding='raw', intercept=intercept)
    probe = ridge.fit(x_NE, reward_NM[:, m : m + 1], cfg)
    prediction_NM[:, m] = ridge.predict(probe, x_NE)[:, 0]
  return posterior.fit(
    *(x_NE, reward_NM, prediction_NM, penalty_M, intercept, quantile)
  )


def _direct(x_NE, reward_NM, penalty, intercept, new_NE):
  """Variance of a prediction by (Z'Z + D)⁻¹, an intercept being a column."""
  one = lambda x_NE: np.column_stack([np.ones(len(x_NE)), x_NE])
  z, new = (one(x_NE), one(new_NE)) if intercept else (x_NE, new_NE)
  diagonal = np.full(z.shape[1], penalty)
  if intercept:
    diagonal[0] = 0.0
  inverse = np.linalg.inv(z.T @ z + np.diag(diagonal))
  hat = z @ inverse @ z.T
  residual_N = reward_NM - hat @ reward_NM
  noise = np.mean(residual_N**2 / (1 - np.diag(hat)))
  leverage_N = np.einsum('NE,EF,NF->N', new, inverse, new)
  return noise * leverage_N, leverage_N


@pytest.mark.parametrize('intercept', [True, False])
@pytest.mark.parametrize('num, width', [(200, 20), (30, 50)])
def test_variance_is_that_of_a_direct_inverse(num, width, intercept):
  """Each arm has its own penalty; the file has one float32 triangle."""
  x_NE, reward_NM, rng = _problem(0, num, width)
  penalty_M = np.array([0.01, 1.0, 30.0])
  made = _fit(x_NE, reward_NM, penalty_M, intercept)
  new_NE = rng.normal(size=(50, width))
  variance_NM, leverage_N = made.variance(new_NE)
  for m, penalty in enumerate(penalty_M):
    expected_N, expected_leverage_N = _direct(
      x_NE, reward_NM[:, m], penalty, intercept, new_NE
    )
    np.testing.assert_allclose(variance_NM[:, m], expected_N, rtol=2e-4)
    if m == 0:
      np.testing.assert_allclose(leverage_N, expected_leverage_N, rtol=2e-4)


def test_prompts_without_any_reward_do_not_count():
  x_NE, reward_NM, rng = _problem(1, 60, 8)
  reward_NM[40:] = np.nan
  some = _fit(x_NE, reward_NM, np.ones(3))
  less = _fit(x_NE[:40], reward_NM[:40], np.ones(3))
  new_NE = rng.normal(size=(5, 8))
  for found, expected in zip(
    some.variance(new_NE), less.variance(new_NE), strict=True
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_arm_with_half_of_the_rewards_is_less_sure():
  """Exact if its prompts are like the others, which doubling makes sure of."""
  x_NE, reward_NM, rng = _problem(2, 300, 8)
  x_NE, reward_NM = np.tile(x_NE, (2, 1)), np.tile(reward_NM, (2, 1))
  reward_NM[300:, 1] = np.nan
  made = _fit(x_NE, reward_NM, np.full(3, 2.0))
  new_NE = rng.normal(size=(20, 8))
  expected_N, _ = _direct(x_NE[:300], reward_NM[:300, 1], 2.0, True, new_NE)
  variance_NM, _ = made.variance(new_NE)
  np.testing.assert_allclose(variance_NM[:, 1], expected_N, rtol=2e-4)
  assert np.median(variance_NM[:, 1] / variance_NM[:, 0]) > 1.5


def test_intervals_cover():
  """Under the prior: 95 % of 400 fits' predictions, error .003 a fit's 20."""
  rng = np.random.default_rng(3)
  inside = []
  for _ in range(400):
    x_NE = rng.normal(size=(60, 30))
    theta_E = rng.normal(size=30) / np.sqrt(5.0)  # σ² = 1, β = 5.
    reward_NM = (x_NE @ theta_E + rng.normal(size=60))[:, None]
    cfg = ridge.RidgeConfig(beta=5.0, embedding='raw')
    probe = ridge.fit(x_NE, reward_NM, cfg)
    prediction_NM = ridge.predict(probe, x_NE)
    made = posterior.fit(
      x_NE, reward_NM, prediction_NM, probe.beta_M, True, 0.99
    )
    new_NE = rng.normal(size=(20, 30))
    error_N = (ridge.predict(probe, new_NE)[:, 0] - new_NE @ theta_E) ** 2
    inside.append((error_N < 1.96**2 * made.variance(new_NE)[0][:, 0]).mean())
  assert abs(np.mean(inside) - 0.95) < 0.012


def test_one_percent_of_new_prompts_have_a_leverage_over_the_limit():
  rng = np.random.default_rng(4)
  x_NE = rng.normal(size=(2000, 100))
  made = _fit(x_NE, rng.normal(size=(2000, 1)), np.array([1.0]))
  _, leverage_N = made.variance(rng.normal(size=(20_000, 100)))
  # The quantile itself has a standard error of .002.
  assert abs((leverage_N > made.limit).mean() - 0.01) < 0.006
  # Leaving each one out by hand.
  left_N = []
  for n in range(0, 2000, 400):
    others_NE = np.delete(x_NE, n, axis=0)
    reward_NM = np.zeros((1999, 1))
    one = posterior.fit(
      *(others_NE, reward_NM, reward_NM, np.array([1.0]), True, 0.99)
    )
    left_N.append(one.variance(x_NE[n : n + 1])[1][0])
  slack_N = ridge.one_minus_leverage(x_NE, np.ones(1), True)[:, 0]
  np.testing.assert_allclose(left_N, 1 / slack_N[::400] - 1, rtol=1e-5)


def test_equal_rewards_leave_no_doubt():
  x_NE, _, _ = _problem(5, 40, 5)
  made = _fit(x_NE, np.full((40, 2), 0.3), np.ones(2))
  np.testing.assert_allclose(made.variance(x_NE)[0], 0, atol=1e-25)


@pytest.mark.parametrize('spread', [1.0, 40.0])
@pytest.mark.parametrize('num_arms', [2, 3, 5])
def test_win_probability_is_how_often_draws_win(num_arms, spread):
  rng = np.random.default_rng(6)
  mean_NM = rng.normal(size=(20, num_arms))
  std_NM = np.exp(rng.uniform(-np.log(spread), 0, (20, num_arms)))
  win_NM = posterior.win_probability(mean_NM, std_NM)
  np.testing.assert_allclose(win_NM.sum(axis=1), 1, atol=1e-12)
  draws = 100_000
  for n in range(20):
    value_QM = mean_NM[n] + std_NM[n] * rng.normal(size=(draws, num_arms))
    share_M = np.bincount(value_QM.argmax(axis=1), minlength=num_arms) / draws
    # 3.9 standard errors in 20 x 5 comparisons, and the stated error.
    np.testing.assert_allclose(win_NM[n], share_M, atol=0.0062 + 0.003)


def test_two_arms_have_the_closed_form():
  mean_NM = np.array([[0.0, 0.3], [2.0, -1.0], [0.0, 0.0]])
  std_NM = np.array([[0.5, 0.2], [1.0, 3.0], [0.0, 0.0]])
  expected_N = stats.norm.cdf(
    [0.3 / np.hypot(0.5, 0.2), -3 / np.hypot(1, 3), 0]
  )
  win_NM = posterior.win_probability(mean_NM, std_NM)
  np.testing.assert_allclose(win_NM[:, 1], expected_N, rtol=1e-12)


def test_three_arms_within_the_stated_error_of_quadrature():
  rng = np.random.default_rng(7)
  mean_NM = rng.normal(size=(60, 4)) * 2
  std_NM = np.exp(rng.uniform(-np.log(10), 0, (60, 4)))
  grid = np.linspace(-9, 9, 6001)
  win_NM = posterior.win_probability(mean_NM, std_NM)
  for n in range(60):
    for m in range(4):
      value = mean_NM[n, m] + std_NM[n, m] * grid
      others = [j for j in range(4) if j != m]
      below = np.prod(
        [
          stats.norm.cdf((value - mean_NM[n, j]) / std_NM[n, j]) for j in others
        ],
        axis=0,
      )
      exact = np.sum(below * stats.norm.pdf(grid)) * (grid[1] - grid[0])
      assert abs(win_NM[n, m] - exact) < 1e-5


def test_arms_that_are_known_win_or_share():
  mean_NM = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
  win_NM = posterior.win_probability(mean_NM, np.zeros((2, 3)))
  np.testing.assert_array_equal(win_NM, [[0.5, 0.5, 0], [0, 1, 0]])
  # Two that are known and equal, and one that is above them half of the time.
  win_NM = posterior.win_probability(np.ones((1, 3)), np.array([[0.0, 0, 2]]))
  np.testing.assert_allclose(win_NM, [[0.25, 0.25, 0.5]], atol=0.003)


def test_a_triangle_of_another_size():
  x_NE, reward_NM, _ = _problem(8, 40, 5)
  made = _fit(x_NE, reward_NM, np.ones(3))
  with pytest.raises(ValueError, match='no triangle of 6'):
    posterior.Posterior(**vars(made) | {'mean_E': np.zeros(6)})
