"""Targets against loops over prompts and samples."""

import numpy as np
import pytest
from scipy import special

from erp_jax.probe import soft_targets

_NAN = np.nan


def _reward_NKM(num=6, size=4, num_arms=3, seed=0):
  return np.random.default_rng(seed).normal(size=(num, size, num_arms)) * 2


@pytest.mark.parametrize('tau', [0.5, 1.0, 3.0])
def test_both_averages_are_those_of_a_loop(tau):
  reward_NKM = _reward_NKM()
  mean_NM = soft_targets.soften(reward_NKM, tau=tau)
  samples_NM = soft_targets.soften(reward_NKM, tau=tau, average='samples')
  for n, reward_KM in enumerate(reward_NKM):
    expected_M = special.softmax(reward_KM.mean(axis=0) / tau)
    np.testing.assert_allclose(mean_NM[n], expected_M, rtol=1e-12)
    shares = [special.softmax(reward_M / tau) for reward_M in reward_KM]
    np.testing.assert_allclose(samples_NM[n], np.mean(shares, 0), rtol=1e-12)
  assert np.abs(mean_NM - samples_NM).max() > 0.02


def test_one_sample_makes_both_averages_equal():
  reward_NKM = _reward_NKM(size=1)
  np.testing.assert_allclose(
    soft_targets.soften(reward_NKM),
    soft_targets.soften(reward_NKM, average='samples'),
    rtol=1e-12,
  )


def test_one_large_win_counts_for_the_mean_and_not_for_the_samples():
  """An arm far ahead once in four and else behind wins the mean alone."""
  reward_NKM = np.array([[[9.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]])
  mean_NM = soft_targets.soften(reward_NKM)
  samples_NM = soft_targets.soften(reward_NKM, average='samples')
  np.testing.assert_allclose(mean_NM[0, 0], special.expit(1.5), rtol=1e-12)
  expected = (special.expit(9) + 3 * special.expit(-1)) / 4
  np.testing.assert_allclose(samples_NM[0, 0], expected, rtol=1e-12)
  assert mean_NM[0, 0] > 0.5 > samples_NM[0, 0]


@pytest.mark.parametrize('average', ['mean', 'samples'])
def test_a_common_shift_of_a_prompt_changes_nothing(average):
  reward_NKM = _reward_NKM()
  shift = 500 * np.arange(6.0)[:, None, None]  # exp would overflow.
  np.testing.assert_allclose(
    soft_targets.soften(reward_NKM + shift, average=average),
    soft_targets.soften(reward_NKM, average=average),
    atol=1e-12,
  )


@pytest.mark.parametrize('average', ['mean', 'samples'])
def test_an_absent_arm_is_as_if_it_were_not_there(average):
  reward_NKM = _reward_NKM(num_arms=4)
  reward_NKM[:3, :, 1] = _NAN
  target_NM = soft_targets.soften(reward_NKM, average=average)
  without_NM = soft_targets.soften(reward_NKM[:, :, [0, 2, 3]], average=average)
  np.testing.assert_array_equal(target_NM[:3][:, [0, 2, 3]], without_NM[:3])
  assert np.isnan(target_NM[:3, 1]).all()
  np.testing.assert_allclose(np.nansum(target_NM, axis=1), 1, rtol=1e-12)
  assert np.isfinite(target_NM[3:]).all()


def test_a_missing_sample_leaves_the_mean_or_its_whole_k():
  reward_NKM = _reward_NKM(num=1)
  reward_NKM[0, 1, 0], reward_NKM[0, 2, 2] = _NAN, -np.inf
  mean_NM = soft_targets.soften(reward_NKM)
  present_M = [reward_NKM[0, [0, 2, 3], 0], reward_NKM[0, :, 1]]
  present_M.append(reward_NKM[0, [0, 1, 3], 2])
  expected_M = special.softmax([np.mean(part) for part in present_M])
  np.testing.assert_allclose(mean_NM[0], expected_M, rtol=1e-12)
  samples_NM = soft_targets.soften(reward_NKM, average='samples')
  expected_M = special.softmax(reward_NKM[0, [0, 3]], axis=1).mean(axis=0)
  np.testing.assert_allclose(samples_NM[0], expected_M, rtol=1e-12)


def test_prompts_with_nothing_to_compare_are_left_out():
  reward_NKM = np.array(
    [
      [[1.0, 2.0], [3.0, 4.0]],
      [[1.0, _NAN], [3.0, _NAN]],  # One arm.
      [[_NAN, _NAN], [_NAN, _NAN]],
      [[1.0, _NAN], [_NAN, 4.0]],  # No k with both.
    ]
  )
  known_N = lambda **options: np.isfinite(
    soft_targets.soften(reward_NKM, **options)
  ).all(axis=1)
  assert known_N().tolist() == [True, False, False, True]
  assert known_N(average='samples').tolist() == [True, False, False, False]


@pytest.mark.parametrize('average', ['mean', 'samples'])
def test_category_weight_mixes_in_the_categorys_mean(average):
  reward_NKM = _reward_NKM()
  reward_NKM[0, :, 1] = _NAN
  category_N = np.array(['b', 'a', 'b', 'a', 'b', 'a'])
  mixed_NKM = reward_NKM.copy()
  for n, name in enumerate(category_N):
    for m in range(3):
      means = reward_NKM[category_N == name][:, :, m].mean(axis=1)
      mixed_NKM[n, :, m] *= 0.7
      mixed_NKM[n, :, m] += 0.3 * means[np.isfinite(means)].mean()
  np.testing.assert_allclose(
    soft_targets.soften(
      reward_NKM, average=average, category_weight=0.3, category_N=category_N
    ),
    soft_targets.soften(mixed_NKM, average=average),
    rtol=1e-10,
  )
