import numpy as np
import pytest

from erp_jax.probe import targets


def test_means_leave_out_invalid_and_not_finite_responses():
  rng = np.random.default_rng(0)
  reward_NKM = rng.normal(size=(6, 4, 3)).astype(np.float32)
  valid_NKM = rng.random((6, 4, 3)) < 0.7
  reward_NKM[0, 0, 0], valid_NKM[0, 0, 0] = np.nan, True
  reward_NKM[1, 1, 0], valid_NKM[1, 1, 0] = np.inf, True
  reward_NKM[2, 0, 1], valid_NKM[2, 0, 1] = np.nan, False
  valid_NKM[3, :, 2] = False
  result = targets.expected_reward(reward_NKM, valid_NKM)
  for n, m in np.ndindex(6, 3):
    good = [
      float(r)
      for r, v in zip(reward_NKM[n, :, m], valid_NKM[n, :, m], strict=True)
      if v and np.isfinite(r)
    ]
    assert result.num_NM[n, m] == len(good)
    expected = sum(good) / len(good) if good else np.nan
    np.testing.assert_allclose(result.mean_NM[n, m], expected, rtol=1e-14)
  assert np.isnan(result.mean_NM[3, 2])
  assert result.mean_NM.dtype == np.float64
  assert result.num_not_finite_M.tolist() == [2, 0, 0]


def test_sums_are_float64():
  reward_NKM = np.array([1e8, 1.0, 1.0, 1.0], np.float32).reshape(1, 4, 1)
  mean_NM = targets.expected_reward(reward_NKM, reward_NKM > 0).mean_NM
  assert mean_NM[0, 0] == (1e8 + 3) / 4


def test_shapes_must_agree():
  with pytest.raises(ValueError, match='prompts, responses, models'):
    targets.expected_reward(np.ones((2, 3)), np.ones((2, 3), bool))
