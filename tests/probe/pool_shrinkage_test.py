import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.core import errors
from erp_jax.probe import pool_shrinkage, ridge

_LOO = ridge.RidgeConfig(selection='leave_one_out')
_CFG = pool_shrinkage.PoolConfig()


def _world(seed, width=24, common=1.0, num_pool=4):
  """Arms that share a direction, each with its own too; the last is new."""
  rng = np.random.default_rng(seed)
  shared_E = common * rng.normal(size=width)
  theta_EM = shared_E[:, None] + 0.5 * rng.normal(size=(width, num_pool + 1))
  offset_M = rng.normal(size=num_pool + 1)

  def draw(num):
    x_NE = rng.normal(size=(num, width))
    x_NE /= np.linalg.norm(x_NE, axis=1, keepdims=True)
    truth_NM = x_NE @ theta_EM + offset_M
    return x_NE, truth_NM, truth_NM + 0.5 * rng.normal(size=truth_NM.shape)

  x_NE, _, reward_NM = draw(800)
  return draw, ridge.fit(x_NE, reward_NM[:, :-1], _LOO)


def _errors(seed, num, **world):
  """Mean squared errors on new prompts: shrunken, and alone."""
  draw, pool = _world(seed, **world)
  x_NE, _, reward_NM = draw(num)
  new_NE, truth_NM, _ = draw(2000)
  newcomer = pool_shrinkage.fit(x_NE, reward_NM[:, -1], pool, _CFG)
  alone = ridge.fit(x_NE, reward_NM[:, -1:], _LOO)
  return [
    ((ridge.predict(probe, new_NE)[:, 0] - truth_NM[:, -1]) ** 2).mean()
    for probe in (newcomer.probe, alone)
  ]


def test_25_prompts_are_better_with_the_pool_and_4000_need_it_no_more():
  few = np.array([_errors(seed, 25) for seed in range(20)])
  assert few[:, 0].mean() < 0.5 * few[:, 1].mean()
  assert (few[:, 0] < few[:, 1]).sum() >= 17
  many = np.array([_errors(seed, 4000) for seed in range(3)])
  assert many.max() < 0.1 * few[:, 0].mean()
  assert many[:, 0].mean() < 1.2 * many[:, 1].mean()


def test_a_pool_that_has_nothing_to_do_with_the_newcomer_costs_little():
  unlike = np.array([_errors(seed, 100, common=0.0) for seed in range(20)])
  assert unlike[:, 0].mean() < 1.1 * unlike[:, 1].mean()


def test_the_error_is_that_of_n_refits_and_the_least_of_the_grid():
  draw, pool = _world(0)
  x_NE, _, reward_NM = draw(30)
  reward_N = reward_NM[:, -1].copy()
  reward_N[[4, 7]] = np.nan
  cfg = pool_shrinkage.PoolConfig(shares=(0.0, 0.5, 1.0), betas=(0.1, 1.0, 9.0))
  newcomer = pool_shrinkage.fit(x_NE, reward_N, pool, cfg)
  rows = np.flatnonzero(np.isfinite(reward_N))
  pool_N = ridge.predict(pool, x_NE).mean(axis=1)
  found = {}
  for share in cfg.shares:
    for beta in cfg.betas:
      error_N = []
      for n in rows:
        rest = rows[rows != n]
        reference = linear_model.Ridge(alpha=beta)
        reference.fit(x_NE[rest], reward_N[rest] - share * pool_N[rest])
        guess = reference.predict(x_NE[n : n + 1])[0] + share * pool_N[n]
        error_N.append(reward_N[n] - guess)
      found[share, beta] = np.mean(np.square(error_N))
  best = min(found, key=found.get)
  assert (newcomer.share, newcomer.probe.beta_M[0]) == best
  assert newcomer.probe.loo_mse_AM.min() == pytest.approx(found[best])
  assert newcomer.probe.num_prompts_M.tolist() == [28]
  reference = linear_model.Ridge(alpha=best[1]).fit(
    x_NE[rows], (reward_N - best[0] * pool_N)[rows]
  )
  np.testing.assert_allclose(
    ridge.predict(newcomer.probe, x_NE)[:, 0],
    reference.predict(x_NE) + best[0] * pool_N,
    atol=1e-9,
  )


def test_what_cannot_be_fitted_is_refused():
  draw, pool = _world(0)
  x_NE, _, reward_NM = draw(5)
  reward_N = np.full(5, np.nan)
  reward_N[0] = 1.0
  with pytest.raises(errors.UserError, match='at least 2'):
    pool_shrinkage.fit(x_NE, reward_N, pool, _CFG)
  with pytest.raises(errors.UserError, match='same encoder'):
    pool_shrinkage.fit(x_NE[:, :9], reward_NM[:, 0], pool, _CFG)
  with pytest.raises(errors.UserError, match='fractions from 0 to 1'):
    pool_shrinkage.PoolConfig(shares=(0.5, 2.0))
