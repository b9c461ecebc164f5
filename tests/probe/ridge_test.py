import dataclasses

import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.core import errors
from erp_jax.probe import ridge

# More prompts than features, fewer, and as many.
_SHAPES = [(60, 12), (15, 40), (20, 20)]


def _problem(num, width, num_models=3, seed=0):
  rng = np.random.default_rng(seed)
  emb_NE = rng.normal(size=(num, width)) + 2.0
  reward_NM = rng.normal(size=(num, num_models)) + 5 * np.arange(num_models)
  return emb_NE, reward_NM


def _unit(emb_NE):
  return emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)


@pytest.mark.parametrize('intercept', [True, False])
@pytest.mark.parametrize('loss', ['sum', 'mean'])
@pytest.mark.parametrize('embedding', ['unit', 'raw'])
@pytest.mark.parametrize(('num', 'width'), _SHAPES)
def test_every_switch_agrees_with_sklearn(
  num, width, embedding, loss, intercept
):
  emb_NE, reward_NM = _problem(num, width)
  cfg = ridge.RidgeConfig(
    beta=0.3, loss=loss, embedding=embedding, intercept=intercept
  )
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  x_NE = _unit(emb_NE) if embedding == 'unit' else emb_NE
  alpha = 0.3 * num if loss == 'mean' else 0.3
  reference = linear_model.Ridge(
    alpha=alpha, fit_intercept=intercept, solver='cholesky'
  ).fit(x_NE, reward_NM)
  np.testing.assert_allclose(probe.theta_EM.T, reference.coef_, atol=1e-10)
  np.testing.assert_allclose(
    probe.bias_M, reference.intercept_ * np.ones(3), atol=1e-10
  )
  np.testing.assert_allclose(
    ridge.predict(probe, emb_NE), reference.predict(x_NE), atol=1e-10
  )
  assert probe.beta_M.tolist() == [0.3] * 3


def test_the_gradient_is_zero():
  emb_NE, reward_NM = _problem(50, 8)
  probe = ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig(beta=0.7))
  resid_NM = ridge.predict(probe, emb_NE) - reward_NM
  np.testing.assert_allclose(
    _unit(emb_NE).T @ resid_NM + 0.7 * probe.theta_EM, 0, atol=1e-10
  )
  np.testing.assert_allclose(resid_NM.sum(axis=0), 0, atol=1e-10)


@pytest.mark.parametrize('intercept', [True, False])
@pytest.mark.parametrize('loss', ['sum', 'mean'])
@pytest.mark.parametrize(('num', 'width'), _SHAPES)
def test_leave_one_out_errors_agree_with_n_refits(num, width, loss, intercept):
  emb_NE, reward_NM = _problem(num, width)
  emb_NE = _unit(emb_NE)
  betas = (1e-3, 0.1, 10.0)
  cfg = ridge.RidgeConfig(
    selection='leave_one_out', betas=betas, loss=loss, intercept=intercept
  )
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  for a, beta in enumerate(betas):
    error_NM = np.empty_like(reward_NM)
    for n in range(num):
      rest = np.delete(np.arange(num), n)
      # The penalty in use, which for 'mean' is the full fit's.
      reference = linear_model.Ridge(
        alpha=beta * num if loss == 'mean' else beta,
        fit_intercept=intercept,
        solver='svd',
      ).fit(emb_NE[rest], reward_NM[rest])
      error_NM[n] = reward_NM[n] - reference.predict(emb_NE[n : n + 1])[0]
    np.testing.assert_allclose(
      probe.loo_mse_AM[a], (error_NM**2).mean(axis=0), rtol=1e-9
    )


def test_the_chosen_penalty_is_ridgecvs():
  emb_NE, reward_NM = _problem(80, 10, num_models=4)
  emb_NE = _unit(emb_NE)
  reward_NM[:, 0] += 30 * emb_NE[:, 0]  # A column that wants less shrinking.
  cfg = ridge.RidgeConfig(selection='leave_one_out')
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  for m in range(4):
    reference = linear_model.RidgeCV(alphas=cfg.betas).fit(
      emb_NE, reward_NM[:, m]
    )
    assert probe.beta_M[m] == reference.alpha_
    np.testing.assert_allclose(
      probe.loo_mse_AM[:, m].min(), -reference.best_score_, rtol=1e-9
    )
    np.testing.assert_allclose(probe.theta_EM[:, m], reference.coef_, atol=1e-9)
  assert len(set(probe.beta_M.tolist())) > 1


def test_missing_rewards_are_fitted_on_the_rows_there_are():
  emb_NE, reward_NM = _problem(40, 8, num_models=5)
  missing = {1: [0, 3, 7], 3: [0, 3, 7], 4: [39]}
  for m, rows in missing.items():
    reward_NM[rows, m] = np.nan
  cfg = ridge.RidgeConfig(selection='leave_one_out')
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  assert probe.num_prompts_M.tolist() == [40, 37, 40, 37, 39]
  for m in range(5):
    rows = np.delete(np.arange(40), missing.get(m, []))
    alone = ridge.fit(emb_NE[rows], reward_NM[rows, m : m + 1], cfg)
    np.testing.assert_array_equal(probe.theta_EM[:, m], alone.theta_EM[:, 0])
    np.testing.assert_array_equal(
      probe.loo_mse_AM[:, m], alone.loo_mse_AM[:, 0]
    )


@pytest.mark.parametrize('selection', ['fixed', 'leave_one_out'])
@pytest.mark.parametrize(('num', 'width'), [(300, 96), (64, 200)])
def test_an_added_arm_changes_no_bit_of_the_others(num, width, selection):
  emb_NE, reward_NM = _problem(num, width, num_models=17)
  reward_NM[5:9, 16] = np.nan
  cfg = ridge.RidgeConfig(selection=selection)
  everyone = ridge.fit(emb_NE, reward_NM, cfg)
  for columns in ([0], [0, 1], [2, 0, 5], list(range(16))):
    fewer = ridge.fit(emb_NE, reward_NM[:, columns], cfg)
    for name in ('theta_EM', 'bias_M', 'beta_M', 'loo_mse_AM'):
      expected = getattr(everyone, name)[..., columns]
      assert getattr(fewer, name).tobytes() == expected.tobytes(), name
    assert (
      ridge.predict(fewer, emb_NE).tobytes()
      == np.ascontiguousarray(
        ridge.predict(everyone, emb_NE)[:, columns]
      ).tobytes()
    )


def test_raw_embeddings_far_from_zero_keep_their_digits():
  emb_NE, reward_NM = _problem(50, 6)
  cfg = ridge.RidgeConfig(embedding='raw')
  near = ridge.fit(emb_NE, reward_NM, cfg)
  far = ridge.fit(emb_NE + 1e5, reward_NM, cfg)
  np.testing.assert_allclose(far.theta_EM, near.theta_EM, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('num', [2, 3])
def test_a_handful_of_prompts_is_enough(num):
  emb_NE, reward_NM = _problem(num, 10)
  probe = ridge.fit(
    emb_NE, reward_NM, ridge.RidgeConfig(selection='leave_one_out')
  )
  assert np.isfinite(probe.theta_EM).all() and np.isfinite(probe.bias_M).all()


def test_bad_embeddings_are_named():
  emb_NE, reward_NM = _problem(8, 4)
  emb_NE[2, 1], emb_NE[5, 0] = np.nan, np.inf
  cfg = ridge.RidgeConfig()
  with pytest.raises(errors.UserError, match=r'prompts 2, 5 .* not finite'):
    ridge.fit(emb_NE, reward_NM, cfg)
  emb_NE, _ = _problem(8, 4)
  emb_NE[3] = 0
  with pytest.raises(errors.UserError, match=r'prompts 3 .* are zero'):
    ridge.fit(emb_NE, reward_NM, cfg)
  raw = ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig(embedding='raw'))
  assert np.isfinite(raw.theta_EM).all()
  with pytest.raises(errors.UserError, match='5 wide.* fitted on 4'):
    ridge.predict(raw, np.ones((2, 5)))


def test_an_arm_with_one_reward_is_named():
  emb_NE, reward_NM = _problem(8, 4)
  reward_NM[1:, 2] = np.nan
  with pytest.raises(errors.UserError, match='column 2 .* has 1 training'):
    ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig())
  with pytest.raises(errors.UserError, match="^arm 'small' has 1 training"):
    ridge.fit(
      emb_NE, reward_NM, ridge.RidgeConfig(), ['big', 'middle', 'small']
    )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'beta': 0.0}, 'ridge.beta must be > 0, got 0.0'),
    ({'beta': float('inf')}, 'ridge.beta'),
    ({'betas': ()}, 'ridge.betas'),
    ({'betas': (1.0, -1.0)}, 'ridge.betas'),
    ({'betas': (1.0, 0.5)}, 'must ascend'),
    ({'selection': 'cv'}, "ridge.selection is 'cv'; allowed: fixed, leave_one"),
    ({'loss': 'max'}, "ridge.loss is 'max'; allowed: sum, mean"),
    ({'embedding': 'l2'}, "ridge.embedding is 'l2'; allowed: unit, raw"),
  ],
)
def test_config_errors_name_the_value(changes, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(ridge.RidgeConfig(), **changes)


@pytest.mark.parametrize('num, width', [(60, 8), (30, 50)])
@pytest.mark.parametrize('loss', ['sum', 'mean'])
@pytest.mark.parametrize('intercept', [True, False])
def test_whole_weights_are_copies(num, width, loss, intercept):
  emb_NE, reward_NM = _problem(num, width)
  reward_NM[3:9, 1] = np.nan
  weight_N = np.random.default_rng(1).integers(4, size=num)
  rows = np.repeat(np.arange(num), weight_N)
  cfg = ridge.RidgeConfig(beta=0.3, loss=loss, intercept=intercept)
  weighted = ridge.fit(emb_NE, reward_NM, cfg, weight_N=weight_N)
  copied = ridge.fit(emb_NE[rows], reward_NM[rows], cfg)
  np.testing.assert_allclose(weighted.theta_EM, copied.theta_EM, atol=1e-10)
  np.testing.assert_allclose(weighted.bias_M, copied.bias_M, atol=1e-10)
  present_NM = np.isfinite(reward_NM) & (weight_N > 0)[:, None]
  np.testing.assert_array_equal(weighted.num_prompts_M, present_NM.sum(0))


def test_weights_are_scikit_learns_and_all_copies_are_left_out_at_once():
  emb_NE, reward_NM = _problem(25, 6)
  weight_N = np.random.default_rng(2).uniform(0, 3, size=25)
  weight_N[4] = 0
  cfg = ridge.RidgeConfig(
    selection='leave_one_out', betas=(0.1, 2.0), embedding='raw'
  )
  probe = ridge.fit(emb_NE, reward_NM, cfg, weight_N=weight_N)
  for a, beta in enumerate(cfg.betas):
    error_NM = np.zeros(reward_NM.shape)
    for n in range(25):
      kept = np.arange(25) != n
      model = linear_model.Ridge(alpha=beta)
      model.fit(emb_NE[kept], reward_NM[kept], weight_N[kept])
      error_NM[n] = reward_NM[n] - model.predict(emb_NE[n : n + 1])[0]
    expected_M = np.average(error_NM**2, axis=0, weights=weight_N)
    np.testing.assert_allclose(probe.loo_mse_AM[a], expected_M)


def test_leverages_are_the_hat_diagonal():
  rng = np.random.default_rng(0)
  x_NE = rng.normal(size=(30, 5))
  one_NE = np.column_stack([np.ones(30), x_NE])
  for intercept, z in ((True, one_NE), (False, x_NE)):
    diagonal = np.full(z.shape[1], 0.7)
    diagonal[0] = 0.0 if intercept else 0.7
    hat = z @ np.linalg.inv(z.T @ z + np.diag(diagonal)) @ z.T
    slack_NA = ridge.one_minus_leverage(x_NE, np.array([0.7]), intercept)
    np.testing.assert_allclose(slack_NA[:, 0], 1 - np.diag(hat), rtol=1e-12)


def test_bad_embeddings_are_named_by_id():
  emb_NE = np.array([[1.0, 0.0], [np.inf, 1.0], [0.0, 0.0]])
  with pytest.raises(errors.UserError, match="prompts 'b' are not finite"):
    ridge.prepare(emb_NE, 'raw', ['a', 'b', 'c'])
  with pytest.raises(errors.UserError, match="prompts 'c' are zero"):
    ridge.prepare(emb_NE[[0, 2]], 'unit', ['a', 'c'])
