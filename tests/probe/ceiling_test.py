import statistics

import numpy as np
import pytest

from erp_jax.core import resample
from erp_jax.probe import ceiling, scores


def _simulate(rng, num, k, er_sd=0.5, noise_sd=1.2):
  er_NM = er_sd * rng.normal(size=(num, 1))
  return er_NM, er_NM[:, None] + noise_sd * rng.normal(size=(num, k, 1))


def _of_samples(reward_NKM, counts=()):
  cells = ceiling.summarise(reward_NKM)
  return ceiling.noise_ceilings(
    cells.mean_NM, cells.noise_NM, cells.pooled_NM, counts
  )


@pytest.fixture
def uneven_NKM():
  """Arms with 0 to 6 samples a prompt, in places that differ."""
  rng = np.random.default_rng(0)
  reward_NKM = rng.normal(size=(40, 6, 2)) + 100
  reward_NKM[rng.random(reward_NKM.shape) < 0.4] = np.nan
  reward_NKM[3, 1:, 0] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
  reward_NKM[3, 0, 0] = 101.0
  reward_NKM[5, :, 0] = np.nan
  return reward_NKM


def test_the_formula_is_a_loop_over_cells_of_any_size(uneven_NKM):
  result = _of_samples(uneven_NKM)
  num_single = 0
  for m in range(2):
    cells = [row[np.isfinite(row)].tolist() for row in uneven_NKM[:, :, m]]
    cells = [cell for cell in cells if cell]
    borrowed = statistics.fmean(
      statistics.variance(cell) for cell in cells if len(cell) > 1
    )
    noise = statistics.fmean(
      (statistics.variance(cell) if len(cell) > 1 else borrowed) / len(cell)
      for cell in cells
    )
    spread = statistics.pvariance([statistics.fmean(cell) for cell in cells])
    assert result[m].value == pytest.approx(1 - noise / spread, abs=1e-9)
    assert result[m].num_prompts == len(cells)
    assert result[m].num_pooled == sum(len(cell) == 1 for cell in cells)
    num_single += result[m].num_pooled
  assert num_single > 0


def test_a_perfect_prediction_reaches_the_ceiling():
  rng = np.random.default_rng(1)
  er_NM, reward_NKM = _simulate(rng, 40_000, 4)
  reward_NKM[::3, 2:] = np.nan
  mean_N = ceiling.summarise(reward_NKM).mean_NM[:, 0]
  (result,) = _of_samples(reward_NKM)
  # Of both: about 1.5 relative errors of sqrt(2/N) of a share of 2/3.
  assert result.value == pytest.approx(scores.r2(mean_N, er_NM[:, 0]), abs=0.01)
  noise = 1.44 * (2 / 3 / 4 + 1 / 3 / 2)
  assert result.value == pytest.approx(1 - noise / (0.25 + noise), abs=0.015)


def test_the_interval_is_that_of_a_loop_over_the_same_draws(uneven_NKM):
  cfg = resample.BootstrapConfig(num_draws=200, seed=2)
  result = _of_samples(uneven_NKM, resample.draw_counts(40, cfg))
  cells = ceiling.summarise(uneven_NKM)
  for m in range(2):
    draws = []
    for counts_QN in resample.draw_counts(40, cfg):
      for counts_N in counts_QN:
        rows = np.repeat(np.arange(40), counts_N.astype(int))
        rows = rows[cells.num_NM[rows, m] > 0]
        noise = cells.noise_NM[rows, m].mean()
        draws.append(1 - noise / cells.mean_NM[rows, m].var())
    assert len(draws) == 200
    lo, hi = np.quantile(draws, [0.025, 0.975])
    assert result[m].lo == pytest.approx(lo, abs=1e-9)
    assert result[m].hi == pytest.approx(hi, abs=1e-9)


def test_intervals_cover_the_truth():
  cfg = resample.BootstrapConfig(num_draws=200)
  truth = 1 - (1.44 / 8) / (0.25 + 1.44 / 8)
  inside = 0
  for seed in range(150):
    _, reward_NKM = _simulate(np.random.default_rng(seed), 300, 8)
    (result,) = _of_samples(reward_NKM, resample.draw_counts(300, cfg))
    inside += result.lo <= truth <= result.hi
  # Binomial(150, .95) has a standard deviation of 2.7.
  assert 134 <= inside <= 149


def test_r2_is_divided_only_by_a_ceiling_above_noise():
  cfg = resample.BootstrapConfig(num_draws=200)
  for er_sd, can_divide in ((0.5, True), (0.0, False)):
    _, reward_NKM = _simulate(np.random.default_rng(3), 400, 8, er_sd)
    (result,) = _of_samples(reward_NKM, resample.draw_counts(400, cfg))
    assert result.can_divide == can_divide
  wide = ceiling.Ceiling(0.3, 0.04, 0.5, num_prompts=9, num_pooled=0)
  narrow = ceiling.Ceiling(0.3, 0.06, 0.5, num_prompts=9, num_pooled=0)
  assert narrow.can_divide and not wide.can_divide
  (result,) = _of_samples(reward_NKM)  # Without draws nothing is known.
  assert np.isnan(result.lo) and not result.can_divide


def test_noise_larger_than_the_variance_is_not_cut_at_zero():
  reward_NKM = np.array([[0.0, 4.0], [1.0, 5.0]])[:, :, None]
  (result,) = _of_samples(reward_NKM)
  assert result.value == pytest.approx(1 - 4 / 0.25)


@pytest.mark.parametrize(
  'reward_NK, reason',
  [
    ([[1.0], [2.0], [4.0]], 'K = 1'),
    ([[1.0, np.nan], [np.nan, 2.0]], 'K = 1'),
    ([[1.0, 3.0], [2.0, 2.0]], 'equal'),
    ([[1.0, 3.0], [np.nan, np.nan]], '1 prompts'),
  ],
)
def test_what_is_not_available_has_a_reason(reward_NK, reason):
  counts = [np.array([[1.0] * len(reward_NK)])]
  reward_NKM = np.array(reward_NK)[:, :, None]
  other_NKM = np.random.default_rng(0).normal(size=(len(reward_NK), 2, 1))
  padding = np.full((len(reward_NK), 2 - reward_NKM.shape[1], 1), np.nan)
  reward_NKM = np.concatenate([reward_NKM, padding], axis=1)
  result, other = _of_samples(
    np.concatenate([reward_NKM, other_NKM], axis=2), counts
  )
  assert reason in result.reason
  assert np.isnan([result.value, result.lo, result.hi]).all()
  assert not result.can_divide
  assert not other.reason and np.isfinite([other.value, other.lo]).all()
