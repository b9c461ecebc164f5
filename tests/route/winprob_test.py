import itertools

import numpy as np
import pytest
from scipy import stats

from erp_jax.core import errors
from erp_jax.route import winprob


def test_bounds_by_hand():
  gap_N = np.array([2.0, 0.0, -1.0, np.nan])
  equal_N = winprob.independent_bound(gap_N, 0.5, 0.5)
  np.testing.assert_allclose(equal_N, [1 - np.exp(-2), 0, 0, np.nan])
  unequal_N = winprob.independent_bound(gap_N, 0.25, 1.75)
  np.testing.assert_allclose(unequal_N, [1 - np.exp(-1), 0, 0, np.nan])
  any_N = winprob.any_bound(gap_N, 0.5, 0.5)
  np.testing.assert_allclose(any_N, [1 - np.exp(-1), 0, 0, np.nan])
  any_N = winprob.any_bound(gap_N, 0.25, 2.25)
  np.testing.assert_allclose(any_N, [1 - np.exp(-0.5), 0, 0, np.nan])
  assert winprob.independent_bound(np.array([1.0]), 0.0, 0.0) == 1
  assert winprob.hoeffding_proxy(-1.0, 3.0) == 4


def test_gaussians_keep_the_bounds_and_equal_the_plug_in():
  gap_N = np.linspace(0.0, 8.0, 41)
  for var_1, var_0 in ((1.0, 1.0), (0.3, 2.0)):
    chance_N = stats.norm.cdf(gap_N / np.sqrt(var_1 + var_0))
    assert (winprob.independent_bound(gap_N, var_1, var_0) <= chance_N).all()
    plug_in_N = winprob.plug_in(gap_N, var_1, var_0)
    np.testing.assert_allclose(plug_in_N, chance_N, atol=1e-15)
  small = winprob.plug_in(np.array([-20.0]), 1.0, 1.0)
  np.testing.assert_allclose(
    small, stats.norm.cdf(-20 / np.sqrt(2)), rtol=1e-10
  )


def test_only_the_second_bound_holds_for_dependent_responses():
  gap_N = np.linspace(0.0, 8.0, 41)
  # r_1 - d and r_0 of opposite sign: their difference has variance 4, not 2.
  chance_N = stats.norm.cdf(gap_N / 2)
  assert (winprob.any_bound(gap_N, 1.0, 1.0) <= chance_N).all()
  assert (winprob.independent_bound(gap_N, 1.0, 1.0) > chance_N).any()
  # With unequal variances it is (1 + 2)² where it was 1 + 4.
  chance_N = stats.norm.cdf(gap_N / 3)
  assert (winprob.any_bound(gap_N, 1.0, 4.0) <= chance_N).all()
  assert (winprob.independent_bound(gap_N, 1.0, 4.0) > chance_N).any()


def test_bounded_rewards_keep_the_bound_of_hoeffding():
  rng = np.random.default_rng(0)
  proxy = winprob.hoeffding_proxy(0.0, 1.0)
  grid = np.linspace(0, 1, 11)
  num_above = 0
  for _ in range(400):
    mass_1, mass_0 = rng.dirichlet(np.full(11, 0.1), size=2)
    gap = grid @ mass_1 - grid @ mass_0
    if gap < 0:
      gap, mass_1, mass_0 = -gap, mass_0, mass_1
    chance = (mass_1[:, None] * mass_0 * (grid[:, None] > grid)).sum()
    bound = winprob.independent_bound(np.array([gap]), proxy, proxy)[0]
    assert bound <= chance + 1e-12
    smaller = winprob.independent_bound(np.array([gap]), proxy / 8, proxy / 8)
    num_above += smaller[0] > chance
  assert num_above > 10  # An eighth of the proxy is not enough.


def test_a_sample_variance_is_no_proxy():
  # Arm 1 gets 1, or -0.1 once in ten times; arm 0 always 0.
  reward_1_NK = np.array([[1.0] * 9 + [-0.1]])
  strict_N, _ = winprob.win_rate(reward_1_NK, np.zeros((1, 2)))
  assert strict_N == pytest.approx(0.9)
  gap_N, var_N = reward_1_NK.mean(axis=1), reward_1_NK.var(axis=1, ddof=1)
  assert winprob.independent_bound(gap_N, var_N, 0.0) > 0.95
  proxy_1, proxy_0 = winprob.hoeffding_proxy(-0.1, 1.0), 0.0
  assert winprob.independent_bound(gap_N, proxy_1, proxy_0) < 0.9


def test_rates_count_all_pairs_as_a_loop_does():
  rng = np.random.default_rng(1)
  reward_1_NK = rng.integers(0, 4, (30, 5)).astype(float)
  reward_0_NK = rng.integers(0, 4, (30, 3)).astype(float)
  reward_1_NK[rng.random(reward_1_NK.shape) < 0.3] = np.nan
  reward_0_NK[2] = np.nan
  reward_1_NK[3, :2] = [np.inf, -np.inf]
  strict_N, half_ties_N = winprob.win_rate(reward_1_NK, reward_0_NK)
  for n in range(30):
    ones = reward_1_NK[n][np.isfinite(reward_1_NK[n])]
    zeros = reward_0_NK[n][np.isfinite(reward_0_NK[n])]
    if not len(ones) or not len(zeros):
      assert np.isnan([strict_N[n], half_ties_N[n]]).all()
      continue
    pairs = list(itertools.product(ones, zeros))
    strict = sum(a > b for a, b in pairs) / len(pairs)
    ties = sum(a == b for a, b in pairs) / len(pairs)
    assert strict_N[n] == pytest.approx(strict)
    assert half_ties_N[n] == pytest.approx(strict + ties / 2)
  assert np.isnan(strict_N).any()


def test_rates_are_unbiased_for_gaussians():
  rng = np.random.default_rng(2)
  reward_1_NK = 0.8 + rng.normal(size=(4000, 8))
  reward_0_NK = 2 * rng.normal(size=(4000, 4))
  strict_N, _ = winprob.win_rate(reward_1_NK, reward_0_NK)
  error = 4 * strict_N.std() / np.sqrt(4000)
  assert error < 0.02
  expected = stats.norm.cdf(0.8 / np.sqrt(5))
  assert strict_N.mean() == pytest.approx(expected, abs=error)


def test_the_plug_in_is_the_gaussians_chance():
  rng = np.random.default_rng(3)
  gap_N, var_1_N, var_0_N = rng.normal(size=20), *rng.random((2, 20))
  np.testing.assert_allclose(
    winprob.plug_in(gap_N, var_1_N, var_0_N),
    stats.norm.cdf(gap_N / np.sqrt(var_1_N + var_0_N)),
  )


def test_equal_rewards_have_a_plug_in():
  constant_N = np.zeros(3)
  gap_N = np.array([1.0, 0.0, -1.0])
  result_N = winprob.plug_in(gap_N, constant_N, constant_N)
  assert result_N.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize('low, high', [(1.0, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_rewards_without_bounds_have_no_proxy(low, high):
  with pytest.raises(errors.UserError, match='give two finite bounds'):
    winprob.hoeffding_proxy(low, high)
