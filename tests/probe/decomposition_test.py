import numpy as np
import pytest

from erp_jax.probe import ceiling, decomposition, scores


def _simulate(rng, num, k, shift_M, prompt_sd, interaction_sd, noise_sd):
  er_NM = shift_M + prompt_sd * rng.normal(size=(num, 1))
  er_NM = er_NM + interaction_sd * rng.normal(size=(num, len(shift_M)))
  noise_NKM = noise_sd * rng.normal(size=(num, k, len(shift_M)))
  return er_NM, er_NM[:, None] + noise_NKM


def _decompose(reward_NKM):
  return decomposition.decompose(ceiling.summarise(reward_NKM))


def test_a_balanced_table_gives_the_classical_mean_squares():
  num, k, arms = 7, 3, 4
  rng = np.random.default_rng(0)
  reward_NKM = rng.normal(size=(num, k, arms)) + rng.normal(size=(num, 1, 1))
  grand = reward_NKM.mean()
  prompts = arm = both = error = 0.0
  for n in range(num):
    for m in range(arms):
      p, a = reward_NKM[n].mean(), reward_NKM[:, :, m].mean()
      cell = reward_NKM[n, :, m].mean()
      for j in range(k):
        prompts += (p - grand) ** 2
        arm += (a - grand) ** 2
        both += (cell - p - a + grand) ** 2
        error += (reward_NKM[n, j, m] - cell) ** 2
  ms_prompt = prompts / (num - 1)
  ms_arm = arm / (arms - 1)
  ms_both = both / ((num - 1) * (arms - 1))
  ms_error = error / (num * arms * (k - 1))
  # Random prompts, fixed arms; arm effects and interactions are by the number
  # of arms, not that minus one.
  per_arm = (arms - 1) / arms
  result = _decompose(reward_NKM)
  assert result.noise == pytest.approx(ms_error)
  assert result.prompt == pytest.approx((ms_prompt - ms_error) / (arms * k))
  assert result.interaction == pytest.approx(per_arm * (ms_both - ms_error) / k)
  assert result.arm == pytest.approx(per_arm * (ms_arm - ms_both) / (num * k))
  assert result.interaction_upper == pytest.approx(per_arm * ms_both / k)
  assert result.prompt_upper == pytest.approx(ms_prompt / (arms * k))


def test_parts_are_unbiased_with_uneven_numbers_of_samples():
  rng = np.random.default_rng(1)
  shift_M = np.array([0.0, 0.3, -0.6])
  parts = []
  for _ in range(400):
    _, reward_NKM = _simulate(rng, 30, 6, shift_M, 0.7, 0.4, 1.1)
    missing_NKM = rng.random(reward_NKM.shape) < 0.3
    missing_NKM[:, :2] = False
    reward_NKM[missing_NKM] = np.nan
    result = _decompose(reward_NKM)
    parts.append([result.prompt, result.arm, result.interaction, result.noise])
  # Interactions with the mean over three arms belong to the prompt.
  truth = [0.49 + 0.16 / 3, shift_M.var(), 0.16 * 2 / 3, 1.21]
  error = np.std(parts, axis=0) / np.sqrt(len(parts))
  np.testing.assert_array_less(
    np.abs(np.mean(parts, axis=0) - truth), 4 * error
  )
  assert (error < 0.02).all()


def test_one_sample_leaves_what_needs_no_noise():
  rng = np.random.default_rng(2)
  shift_M = np.array([0.0, 1.0])
  _, reward_NKM = _simulate(rng, 3000, 1, shift_M, 0.7, 0.4, 1.0)
  result = _decompose(reward_NKM)
  assert 'K = 1' in result.reason
  assert np.isnan([result.prompt, result.interaction, result.noise]).all()
  assert result.arm == pytest.approx(0.25, abs=0.05)
  assert result.interaction_upper == pytest.approx(1.16 / 2, abs=0.05)
  assert result.prompt_upper == pytest.approx(0.49 + 1.16 / 2, abs=0.1)


def test_incomplete_prompts_are_left_out_and_single_samples_counted():
  reward_NKM = np.random.default_rng(3).normal(size=(9, 4, 3))
  reward_NKM[7, :, 1] = np.nan
  expected = _decompose(np.delete(reward_NKM, 7, axis=0))
  result = _decompose(reward_NKM)
  assert result.num_prompts == 8 == expected.num_prompts
  for name in ('prompt', 'arm', 'interaction', 'noise'):
    assert getattr(result, name) == pytest.approx(
      getattr(expected, name), rel=1e-12
    )
  reward_NKM[2, 1:, 0] = np.nan
  assert _decompose(reward_NKM).num_pooled == 1


@pytest.mark.parametrize(
  'shape, reason', [((5, 3, 1), 'one arm'), ((1, 3, 2), '1 prompts')]
)
def test_nothing_to_split_has_a_reason(shape, reason):
  result = _decompose(np.random.default_rng(0).normal(size=shape))
  assert reason in result.reason
  assert np.isnan([result.prompt, result.arm, result.interaction_upper]).all()


def test_draws_are_decompositions_of_their_prompts():
  rng = np.random.default_rng(8)
  shift_M = np.array([50.0, 1.0, -3.0])
  _, reward_NKM = _simulate(rng, 25, 4, shift_M, 0.7, 0.4, 1.1)
  reward_NKM[rng.random(reward_NKM.shape) < 0.2] = np.nan
  reward_NKM[3, :, 1] = np.nan
  cells = ceiling.summarise(reward_NKM)
  counts_QN = rng.multinomial(25, np.full(25, 1 / 25), size=200).astype(float)
  result = decomposition.decompose(cells, [counts_QN[:50], counts_QN[50:]])
  parts = ('prompt', 'arm', 'interaction', 'noise')
  parts += ('prompt_upper', 'interaction_upper')
  draws = []
  for counts_N in counts_QN:
    rows = np.repeat(np.arange(25), counts_N.astype(int))
    # Of the cells: one with one sample keeps the noise that it borrowed.
    drawn = decomposition.decompose(ceiling.Cells(*(c[rows] for c in cells)))
    draws.append([getattr(drawn, part) for part in parts])
  expected = np.quantile(draws, [0.025, 0.975], axis=0).T
  assert set(result.intervals) == set(parts)
  for part, (lo, hi) in zip(parts, expected, strict=True):
    assert result.intervals[part] == pytest.approx((lo, hi), abs=1e-9)
    assert lo < getattr(result, part) < hi


def test_intervals_are_of_what_one_sample_tells():
  reward_NKM = np.random.default_rng(9).normal(size=(9, 1, 3))
  cells = ceiling.summarise(reward_NKM)
  counts_QN = np.ones((5, 9))
  known = decomposition.decompose(cells, [counts_QN]).intervals
  assert set(known) == {'arm', 'prompt_upper', 'interaction_upper'}
  assert not decomposition.decompose(cells).intervals


def test_contrasts_are_about_the_arms_present():
  value_NM = np.array([[1.0, 3.0, 8.0], [2.0, np.nan, 5.0], [1.0, 2.0, 3.0]])
  present_NM = np.isfinite(value_NM)
  present_NM[2] = [False, True, False]
  expected_NM = [[-3.0, -1.0, 4.0], [-1.5, np.nan, 1.5], [np.nan] * 3]
  np.testing.assert_allclose(
    decomposition.contrasts(value_NM, present_NM), expected_NM
  )


def test_contrast_noise_is_that_of_the_linear_map():
  noise_NM = np.random.default_rng(4).uniform(size=(2, 3))
  noise_NM[1, 1] = np.nan
  result_NM = decomposition.contrast_noise(noise_NM, np.isfinite(noise_NM))
  for row, kept in ((0, [0, 1, 2]), (1, [0, 2])):
    centre = np.eye(len(kept)) - 1 / len(kept)
    expected = np.diag(centre @ np.diag(noise_NM[row, kept]) @ centre.T)
    np.testing.assert_allclose(result_NM[row, kept], expected)
  assert np.isnan(result_NM[1, 1])


def test_true_contrasts_reach_their_ceiling():
  rng = np.random.default_rng(5)
  er_NM, reward_NKM = _simulate(
    rng, 30_000, 4, np.array([0.0, 1.0, 2.0]), 2.0, 0.5, 1.0
  )
  cells = ceiling.summarise(reward_NKM)
  present_NM = cells.num_NM > 0
  r2_M, pooled = decomposition.contrast_r2(cells.mean_NM, er_NM)
  results = ceiling.noise_ceilings(
    decomposition.contrasts(cells.mean_NM, present_NM),
    decomposition.contrast_noise(cells.noise_NM, present_NM),
    cells.pooled_NM,
  )
  # The difference has a standard deviation of .0046 (over 600 seeds).
  np.testing.assert_allclose(r2_M, [c.value for c in results], atol=0.02)
  np.testing.assert_allclose([*r2_M, pooled], 0.5, atol=0.02)


def test_what_is_common_to_all_arms_does_not_count():
  rng = np.random.default_rng(6)
  mean_NM = rng.normal(size=(50, 4))
  prediction_NM = mean_NM + rng.normal(size=(50, 4))
  mean_NM[rng.random(mean_NM.shape) < 0.2] = np.nan
  r2_M, pooled = decomposition.contrast_r2(mean_NM, prediction_NM)
  common_NM = 10 * rng.normal(size=(50, 1))
  other_NM = 10 * rng.normal(size=(50, 1))
  shifted_M, shifted = decomposition.contrast_r2(
    mean_NM + common_NM, prediction_NM + other_NM
  )
  np.testing.assert_allclose([*shifted_M, shifted], [*r2_M, pooled])
  plain = scores.r2(mean_NM[:, 0], prediction_NM[:, 0])
  assert plain != pytest.approx(r2_M[0], abs=0.01)


def test_knowing_only_which_arm_is_better_on_average_counts_for_nothing():
  rng = np.random.default_rng(7)
  mean_NM = rng.normal(size=(200, 3)) + np.array([0.0, 5.0, 10.0])
  contrast_NM = mean_NM - mean_NM.mean(axis=1, keepdims=True)
  average_NM = np.tile(contrast_NM.mean(axis=0), (200, 1))
  r2_M, pooled = decomposition.contrast_r2(mean_NM, average_NM)
  np.testing.assert_allclose([*r2_M, pooled], 0, atol=1e-9)
