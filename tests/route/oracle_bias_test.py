import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import oracle_bias

_MAX_OF_FIVE = 1.162964  # Expected maximum of five standard Gaussians.


def _simulate(seed, num, k, er_sd=0.5, noise_sd=1.2, num_models=5):
  """Rewards N(ER, 1.2²) with ER ~ N(0, 0.5²), and a policy with some regret.

  Its true regret is known; it sees ER with noise of its own.
  """
  rng = np.random.default_rng(seed)
  er_NM = er_sd * rng.normal(size=(num, num_models))
  noise_NKM = noise_sd * rng.normal(size=(num, k, num_models))
  guess_NM = er_NM + 0.4 * rng.normal(size=er_NM.shape)
  share_NM = np.eye(num_models)[guess_NM.argmax(axis=1)]
  regret_N = er_NM.max(axis=1) - (share_NM * er_NM).sum(axis=1)
  return er_NM[:, None] + noise_NKM, share_NM, regret_N


@pytest.mark.parametrize('k, paper', [(32, 0.05), (4, 0.33)])
def test_bounds_hold_and_miss_by_what_theory_says(k, paper):
  reward_NKM, share_NM, truth_N = _simulate(0, 10_000, k)
  plug_in_N, split_half_N = oracle_bias.estimate(reward_NKM).regret(share_NM)
  upper_N, lower_N = plug_in_N - truth_N, split_half_N - truth_N
  error = 4 * np.array([upper_N.std(), lower_N.std()]) / np.sqrt(len(truth_N))
  assert error.max() < 0.03
  # The mean of K samples has variance .25 + 1.44 / K, that of a half twice the
  # noise; ER given it is shrunk towards 0.
  upper = _MAX_OF_FIVE * (np.sqrt(0.25 + 1.44 / k) - 0.5)
  lower = _MAX_OF_FIVE * (0.25 / np.sqrt(0.25 + 2.88 / k) - 0.5)
  assert upper == pytest.approx(paper, abs=0.004)
  assert upper_N.mean() == pytest.approx(upper, abs=error[0])
  assert lower_N.mean() == pytest.approx(lower, abs=error[1])
  assert upper_N.mean() - error[0] > 0 > lower_N.mean() + error[1]


def test_two_samples_by_hand():
  # Halves {first}, {second} and back, whatever the seed.
  reward_NKM = np.array([[[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]]])
  share_NM = np.array([[0.5, 0.0, 0.5]])
  # First chooses arm 0, worth 0 on the second; that chooses 1, worth 1.
  for seed in range(3):
    oracle = oracle_bias.estimate(reward_NKM, seed=seed)
    assert oracle.half_best_N == pytest.approx((0 + 1) / 2)
    plug_in_N, split_half_N = oracle.regret(share_NM)
    assert plug_in_N == pytest.approx(1.5 - (1.5 + 0.5) / 2)
    assert split_half_N == pytest.approx(0.5 - (1.5 + 0.5) / 2)


def test_arms_that_tie_share_the_choice():
  reward_NKM = np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
  # Arms 0 and 1 tie first, worth 0 and 1 then; arm 1 wins then, worth 1 first.
  assert oracle_bias.estimate(reward_NKM).half_best_N == pytest.approx(0.75)


def test_uneven_cells_agree_with_a_loop():
  reward_NKM, share_NM, _ = _simulate(1, 30, 7, num_models=3)
  rng = np.random.default_rng(2)
  reward_NKM[rng.random(reward_NKM.shape) < 0.4] = np.nan
  reward_NKM[4, 0, 0] = np.inf
  reward_NKM[6, 1:, 2] = np.nan
  oracle = oracle_bias.estimate(reward_NKM, seed=5, num_halvings=8)
  counts_NM = np.isfinite(reward_NKM).sum(axis=1)
  rows = np.flatnonzero((counts_NM > 1).all(axis=1))
  assert oracle.rows.tolist() == rows.tolist()
  assert oracle.num_left_out == 30 - len(rows) > 0
  draws = np.random.default_rng(5)
  expected = np.zeros(len(rows))
  for _ in range(8):
    order = draws.permutation(7)
    for i, n in enumerate(rows):
      halves = []
      for m in range(3):
        sample = [reward_NKM[n, j, m] for j in order]
        sample = [value for value in sample if np.isfinite(value)]
        cut = len(sample) // 2
        halves.append((np.mean(sample[:cut]), np.mean(sample[cut:])))
      for a, b in ((0, 1), (1, 0)):
        best = max(range(3), key=lambda m: halves[m][a])
        policy = sum(share_NM[n, m] * halves[m][b] for m in range(3))
        expected[i] += (halves[best][b] - policy) / 16
  plug_in_N, split_half_N = oracle.regret(share_NM[rows])
  np.testing.assert_allclose(split_half_N, expected, atol=1e-12)
  mean_NM = np.nanmean(np.where(np.isfinite(reward_NKM), reward_NKM, np.nan), 1)
  np.testing.assert_allclose(
    plug_in_N, (mean_NM.max(1) - (share_NM * mean_NM).sum(1))[rows]
  )


def test_halvings_repeat_with_the_seed_and_settle_with_their_number():
  reward_NKM, share_NM, _ = _simulate(3, 50, 8)

  def split_half(**changes):
    oracle = oracle_bias.estimate(reward_NKM, **changes)
    return oracle.regret(share_NM).split_half_N

  assert (split_half() == split_half(seed=0)).all()
  spread = {}
  for num in (1, 20):
    draws = [split_half(seed=s, num_halvings=num) for s in range(10)]
    spread[num] = np.std(draws, axis=0).mean()
  assert spread[20] == pytest.approx(spread[1] / np.sqrt(20), rel=0.3)


def test_one_sample_leaves_the_plug_in_with_a_reason():
  reward_NKM, share_NM, _ = _simulate(4, 6, 1)
  oracle = oracle_bias.estimate(reward_NKM)
  plug_in_N, split_half_N = oracle.regret(share_NM)
  assert 'K = 1' in oracle.reason and np.isnan(split_half_N).all()
  reward_NM = reward_NKM[:, 0]
  expected_N = reward_NM.max(axis=1) - (share_NM * reward_NM).sum(axis=1)
  np.testing.assert_allclose(plug_in_N, expected_N)


def test_input_errors():
  reward_NKM, share_NM, _ = _simulate(5, 6, 2)
  with pytest.raises(errors.UserError, match='num_halvings is 0'):
    oracle_bias.estimate(reward_NKM, num_halvings=0)
  with pytest.raises(ValueError, match='shares are'):
    oracle_bias.estimate(reward_NKM).regret(share_NM[:4])
  reward_NKM[:, :, 1] = np.nan
  with pytest.raises(errors.UserError, match='no prompt has a sample of every'):
    oracle_bias.estimate(reward_NKM)
