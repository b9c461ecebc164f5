import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.core import errors
from erp_jax.probe import contrast, shared_ridge

# More prompts than features, fewer, and with missing rewards.
_CASES = [(60, 12, 0), (15, 40, 0), (50, 12, 25), (20, 40, 8)]
_BETAS = (0.01, 0.3, 10.0)


def _problem(num, width, num_missing=0, num_models=3, seed=0):
  rng = np.random.default_rng(seed)
  emb_NE = rng.normal(size=(num, width)) + 1.0
  reward_NM = rng.normal(size=(num, num_models)) + 5 * np.arange(num_models)
  reward_NM += emb_NE[:, :num_models] + 4 * emb_NE[:, [3]]
  rows = rng.choice(num, num_missing, replace=False)
  reward_NM[rows, rng.integers(num_models, size=num_missing)] = np.nan
  return emb_NE, reward_NM


def _unit(emb_NE):
  return emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)


def _targets(reward_NM):
  """One prompt at a time."""
  mean_M = reward_NM[~np.isnan(reward_NM).any(axis=1)].mean(axis=0)
  target_NM = np.full(reward_NM.shape, np.nan)
  for n, reward_M in enumerate(reward_NM - mean_M):
    there = [m for m in range(len(mean_M)) if not np.isnan(reward_M[m])]
    for m in there:
      target_NM[n, m] = reward_M[m] - sum(reward_M[there]) / len(there)
  return target_NM


def _refit_errors(x_NE, target_N, beta):
  """Leave-one-out errors by as many fits."""
  rows = np.flatnonzero(np.isfinite(target_N))
  error_N = np.full(len(target_N), np.nan)
  for n in rows:
    rest = rows[rows != n]
    reference = linear_model.Ridge(alpha=beta, solver='svd')
    reference.fit(x_NE[rest], target_N[rest])
    error_N[n] = target_N[n] - reference.predict(x_NE[n : n + 1])[0]
  return error_N


@pytest.mark.parametrize(('num', 'width', 'num_missing'), _CASES)
def test_leave_one_out_errors_agree_with_n_refits(num, width, num_missing):
  emb_NE, reward_NM = _problem(num, width, num_missing)
  x_NE, target_NM = _unit(emb_NE), _targets(reward_NM)
  error_ANM = shared_ridge.leave_one_out(
    x_NE, target_NM, np.array(_BETAS), True
  )
  fitted = contrast.fit(
    emb_NE, reward_NM, contrast.ContrastConfig(betas=_BETAS)
  )
  for a, beta in enumerate(_BETAS):
    expected_NM = np.stack(
      [_refit_errors(x_NE, target_N, beta) for target_N in target_NM.T], axis=1
    )
    np.testing.assert_allclose(error_ANM[a], expected_NM, rtol=1e-8, atol=1e-9)
    assert fitted.loo_mse_A[a] == pytest.approx(np.nanmean(expected_NM**2))
  assert fitted.beta == _BETAS[int(np.argmin(fitted.loo_mse_A))]


def test_without_an_intercept_the_errors_are_those_of_refits_too():
  emb_NE, reward_NM = _problem(30, 8)
  error_ANM = shared_ridge.leave_one_out(
    emb_NE, reward_NM, np.array([0.5]), False
  )
  for n in range(30):
    rest = np.delete(np.arange(30), n)
    reference = linear_model.Ridge(alpha=0.5, fit_intercept=False, solver='svd')
    reference.fit(emb_NE[rest], reward_NM[rest])
    error_M = reward_NM[n] - reference.predict(emb_NE[n : n + 1])[0]
    np.testing.assert_allclose(error_ANM[0, n], error_M, atol=1e-9)


def test_targets_of_arms_that_differ_alike_are_zero_whatever_is_missing():
  rng = np.random.default_rng(0)
  reward_NM = rng.normal(size=(40, 1)) + np.array([0.0, 3.0, 10.0])
  reward_NM[rng.integers(40, size=15), rng.integers(3, size=15)] = np.nan
  target_NM = contrast.targets(reward_NM)
  known_NM = np.isfinite(target_NM)
  assert 0 < (~known_NM).sum() < 40
  np.testing.assert_allclose(target_NM[known_NM], 0, atol=1e-12)


def test_what_is_common_to_a_prompts_arms_changes_no_difference():
  emb_NE, reward_NM = _problem(60, 12, 10)
  cfg = contrast.ContrastConfig()
  common_N = 100 * np.random.default_rng(5).normal(size=60)
  differ = lambda fitted: np.diff(fitted.predict(emb_NE), axis=1)
  one = contrast.fit(emb_NE, reward_NM, cfg)
  other = contrast.fit(emb_NE, reward_NM + common_N[:, None], cfg)
  assert one.beta == other.beta
  np.testing.assert_allclose(differ(one), differ(other), atol=1e-10)


def test_predictions_are_in_the_rewards_units():
  emb_NE, reward_NM = _problem(60, 12, 10)
  category_N = np.repeat(['a', 'b', 'c'], 20)
  cfg = contrast.ContrastConfig()
  one = contrast.fit(emb_NE, reward_NM, cfg, category_N)
  other = contrast.fit(emb_NE, 1e4 * reward_NM, cfg, category_N)
  np.testing.assert_allclose(
    other.predict(emb_NE), 1e4 * one.predict(emb_NE), rtol=1e-9
  )


def test_categories_are_features_that_the_embedding_predicts():
  rng = np.random.default_rng(3)
  emb_NE, _ = _problem(80, 10)
  category_N = np.where(emb_NE[:, 0] + rng.normal(size=80) > 1, 'code', 'math')
  reward_NM = rng.normal(size=(80, 2))
  reward_NM[category_N == 'code', 0] += 2.0
  x_NE = _unit(emb_NE)
  cfg = contrast.ContrastConfig(betas=(0.5,))
  fitted = contrast.fit(emb_NE, reward_NM, cfg, category_N)
  is_code_N = (category_N == 'code') * 1.0
  extra_NC = np.stack(
    [y - _refit_errors(x_NE, y, 0.5) for y in (is_code_N, 1 - is_code_N)],
    axis=1,
  )
  target_NM = _targets(reward_NM)
  second = linear_model.Ridge(alpha=0.5).fit(
    np.concatenate([x_NE, extra_NC], axis=1), target_NM
  )
  new_NE = _unit(_problem(7, 10, seed=9)[0])
  first = linear_model.Ridge(alpha=0.5).fit(x_NE, is_code_N)
  share_N = first.predict(new_NE)
  both_NJ = np.column_stack([new_NE, share_N, 1 - share_N])
  np.testing.assert_allclose(
    fitted.predict(new_NE),
    reward_NM.mean(axis=0) + second.predict(both_NJ),
    atol=1e-9,
  )
  without = contrast.ContrastConfig(betas=(0.5,), categories=False)
  plain = contrast.fit(emb_NE, reward_NM, without, category_N)
  assert np.abs(plain.predict(new_NE) - fitted.predict(new_NE)).max() > 0.01


def test_one_category_and_one_arm_are_no_features_and_no_contrast():
  emb_NE, reward_NM = _problem(30, 8)
  cfg = contrast.ContrastConfig()
  one = contrast.fit(emb_NE, reward_NM, cfg, ['a'] * 30)
  none = contrast.fit(emb_NE, reward_NM, cfg)
  np.testing.assert_array_equal(one.theta_EM, none.theta_EM)
  alone = contrast.fit(emb_NE, reward_NM[:, :1], cfg)
  np.testing.assert_allclose(alone.predict(emb_NE), reward_NM[:, 0].mean())


def test_what_cannot_be_fitted_is_refused():
  emb_NE, reward_NM = _problem(30, 8)
  cfg = contrast.ContrastConfig()
  fitted = contrast.fit(emb_NE, reward_NM, cfg)
  with pytest.raises(errors.UserError, match='7 wide'):
    fitted.predict(emb_NE[:, :7])
  with pytest.raises(ValueError, match='2 categories, 30 prompts'):
    contrast.fit(emb_NE, reward_NM, cfg, ['a', 'b'])
  reward_NM[::2, 0] = np.nan
  reward_NM[1::2, 1] = np.nan
  with pytest.raises(errors.UserError, match='no training prompt has rewards'):
    contrast.fit(emb_NE, reward_NM, cfg)
  with pytest.raises(errors.UserError, match='betas must ascend'):
    contrast.ContrastConfig(betas=(2.0, 1.0))
