"""Win shares against all choices of samples, quadrature and drawn prompts."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from erp_jax.core import errors, resample
from erp_jax.route import evaluate, winrates


def _brute_force(reward_KM):
  """Shares over every choice of one sample per arm."""
  arms = [column[np.isfinite(column)] for column in reward_KM.T]
  share_M = np.zeros(len(arms))
  choices = list(itertools.product(*arms))
  for choice in choices:
    winners = np.array(choice) == max(choice)
    share_M += winners / winners.sum()
  return share_M / len(choices)


def test_samples_win_as_over_all_choices():
  rng = np.random.default_rng(0)
  reward_NKM = rng.integers(0, 4, (25, 3, 4)).astype(float)
  reward_NKM[5:15] = rng.standard_normal((10, 3, 4))
  reward_NKM[rng.random(reward_NKM.shape) < 0.2] = np.nan
  reward_NKM[0] = 7.0  # All equal.
  reward_NKM[1] = np.arange(4)  # One always wins.
  reward_NKM[2, 0] = [np.inf, -np.inf, 1.0, 2.0]
  reward_NKM[3, :, 1] = np.nan
  share_NM = winrates.best_of_samples(reward_NKM)
  num_checked = 0
  for n in range(25):
    if not np.isfinite(reward_NKM[n]).any(axis=0).all():
      assert np.isnan(share_NM[n]).all()
      continue
    expected_M = _brute_force(reward_NKM[n])
    np.testing.assert_allclose(share_NM[n], expected_M, atol=1e-12)
    num_checked += 1
  assert num_checked > 15 and np.isnan(share_NM[3]).all()
  np.testing.assert_allclose(share_NM[0], 0.25)
  np.testing.assert_allclose(share_NM[1], [0, 0, 0, 1], atol=1e-12)


def test_one_sample_wins_as_its_mean_does():
  rng = np.random.default_rng(1)
  reward_NM = rng.integers(0, 3, (40, 3)).astype(float)
  np.testing.assert_allclose(
    winrates.best_of_samples(reward_NM[:, None]), winrates.best(reward_NM)
  )


def test_ties_are_shared_and_missing_values_stay_missing():
  value_NM = np.array([[1, 1, 0], [2, 2, 2], [0, 1, 3], [np.nan, 1, 2.0]])
  expected_NM = [[0.5, 0.5, 0], [1 / 3] * 3, [0, 0, 1], [np.nan] * 3]
  np.testing.assert_allclose(winrates.best(value_NM), expected_NM)
  rounded_NM = value_NM[:3] + [[0, 1e-15, 0]]
  np.testing.assert_allclose(winrates.best(rounded_NM), expected_NM[:3])
  assert winrates.best(value_NM[:3] + [[0, 1e-6, 0]])[0, 0] == 0
  np.testing.assert_allclose(
    evaluate.win_share(value_NM[:3]), np.mean(expected_NM[:3], axis=0)
  )


def test_gaussian_samples_win_as_integrals_say():
  mean_NM = np.array([[0.0, 0.0], [1.0, -0.5], [3.0, 0.0]])
  share_NM = winrates.best_of_gaussians(mean_NM, np.array([1.0, 4.0]))
  gap_N = mean_NM[:, 0] - mean_NM[:, 1]
  expected_N = stats.norm.cdf(gap_N / np.sqrt(5))
  np.testing.assert_allclose(share_NM[:, 0], expected_N, atol=1e-6)
  mean_M, sd_M = np.array([0.3, 0.0, -0.4]), np.array([1.0, 0.5, 2.0])
  (share_M,) = winrates.best_of_gaussians(mean_M[None], sd_M**2)
  for m in range(3):
    others = [other for other in range(3) if other != m]
    density = lambda x, m=m, others=others: (
      stats.norm.pdf(x, mean_M[m], sd_M[m])
      * np.prod([stats.norm.cdf(x, mean_M[o], sd_M[o]) for o in others])
    )
    expected, _ = integrate.quad(density, -15, 15, points=[0], limit=200)
    assert share_M[m] == pytest.approx(expected, abs=3e-5)


def test_gaussians_without_variance_are_their_means():
  mean_NM = np.array([[1.0, 2.0], [3.0, 3.0]])
  share_NM = winrates.best_of_gaussians(mean_NM, np.zeros(2))
  np.testing.assert_array_equal(share_NM, [[0, 1], [0.5, 0.5]])
  unknown_NM = winrates.best_of_gaussians(mean_NM, np.array([1.0, np.nan]))
  assert np.isnan(unknown_NM).all()


def test_sample_variance_is_over_cells_with_several():
  rng = np.random.default_rng(2)
  reward_NKM = rng.standard_normal((30, 4, 2))
  reward_NKM[:5, 1:, 0] = np.nan  # One sample each.
  var_M = winrates.sample_variance(reward_NKM)
  expected = reward_NKM[5:, :, 0].var(axis=1, ddof=1).mean()
  assert var_M[0] == pytest.approx(expected)
  assert np.isnan(winrates.sample_variance(reward_NKM[:, :1])).all()


def test_intervals_are_of_drawn_prompts():
  rng = np.random.default_rng(3)
  true_NM = winrates.best(rng.standard_normal((50, 3)))
  predicted_NM = winrates.best(rng.standard_normal((50, 3)))
  true_NM[7] = np.nan
  category_N = np.array(['a', 'b'])[(np.arange(50) > 30).astype(int)]
  cfg = resample.BootstrapConfig(num_draws=100, seed=1)
  found = winrates.intervals(
    {'true': true_NM, 'predicted': predicted_NM}, category_N, cfg
  )
  kept_N = np.arange(50) != 7
  counts_QN = np.concatenate(list(resample.draw_counts(49, cfg)))
  rows = {None: np.ones(49, bool)}
  rows |= {c: category_N[kept_N] == c for c in ('a', 'b')}
  assert list(found) == [None, 'a', 'b']
  for category, rows_N in rows.items():
    for kind, share_NM in (
      ('true', true_NM[kept_N]),
      ('predicted', predicted_NM[kept_N]),
      ('difference', (predicted_NM - true_NM)[kept_N]),
    ):
      for m in range(3):
        value_N = share_NM[rows_N, m]
        drawn_Q = [
          np.average(value_N, weights=count_N[rows_N]) for count_N in counts_QN
        ]
        lo, hi = np.quantile(drawn_Q, [0.025, 0.975])
        leaf = found[category][kind][m]
        assert leaf['mean'] == pytest.approx(value_N.mean())
        assert (leaf['lo'], leaf['hi']) == pytest.approx((lo, hi))
  nothing = {'true': np.full((4, 2), np.nan)}
  assert winrates.intervals(nothing, np.array(['a'] * 4), cfg) == {}


_ARMS = ('a', 'b', 'c')
_MEAN_NM = np.array([[0.0, 2.0, 1.0], [0.5, 2.0, np.nan]])


@pytest.mark.parametrize(
  'pair, cost, expected',
  [
    ((), [1.0, 5.0, 3.0], (0, 1)),
    ((), [4.0, 5.0, 3.0], (1, 2)),
    ((), [4.0, 1.0, 3.0], (1, 2)),  # The best is the cheapest: second best.
    (('c', 'a'), [1.0, 5.0, 3.0], (0, 2)),
    ((), [np.nan, 5.0, 6.0], (1, 2)),
  ],
)
def test_the_pair_is_the_best_and_the_cheapest_or_as_named(
  pair, cost, expected
):
  cost_NM = np.array([cost, cost])
  assert winrates.choose_pair(pair, _ARMS, _MEAN_NM, cost_NM) == expected


def test_a_pair_of_unknown_arms_is_refused():
  with pytest.raises(errors.UserError, match="'d'; .*allowed: a, b, c"):
    winrates.choose_pair(('a', 'd'), _ARMS, _MEAN_NM, _MEAN_NM)
  alone_NM = np.array([[1.0, np.nan]])
  assert winrates.choose_pair((), _ARMS[:2], alone_NM, alone_NM) == (0, 1)


def test_bounds_make_a_proxy_unless_rewards_leave_them():
  cfg = winrates.WinRatesConfig(bounds={'judge': (-1.0, 3.0)})
  reward_NKM = np.array([[[0.0, np.nan]], [[3.0, -1.0]]])
  assert cfg.proxy('judge', reward_NKM) == 4
  assert np.isnan(cfg.proxy('logits', reward_NKM))
  assert winrates.WinRatesConfig().proxy('correct01', reward_NKM[:1]) == 0.25
  with pytest.raises(errors.UserError, match='run from -0.5 to 3.5: widen'):
    cfg.proxy('judge', reward_NKM + np.array([0, 0.5])[:, None, None])


@pytest.mark.parametrize(
  'setting, expected',
  [
    ({'win_share': 'modes'}, "'modes'; allowed: means, samples"),
    ({'gap': 'all'}, "'all'; allowed: best_known, samples"),
    ({'bounds': {'x': (1.0,)}}, 'bounds.x is .* lowest and the highest'),
    ({'bounds': {'x': (1.0, 0.0)}}, 'give two finite bounds'),
    ({'pair': ('a',)}, 'two different arms'),
    ({'pair': ('a', 'a')}, 'two different arms'),
    ({'groups': 1}, 'groups must be >= 2, got 1'),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    dataclasses.replace(winrates.WinRatesConfig(), **setting)
