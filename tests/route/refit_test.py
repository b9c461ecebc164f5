import dataclasses

import numpy as np
import pytest

from erp_jax.core import resample
from erp_jax.probe import ridge
from erp_jax.route import baselines, bootstrap, evaluate, path, refit

_CFG = resample.BootstrapConfig(num_draws=100, seed=4)


@pytest.fixture
def problem(make_split):
  """A split, ERP's predictions in it, and embeddings of train and test."""
  split = make_split(num=80)
  rng = np.random.default_rng(9)
  weight_ME = rng.normal(size=(4, 6))
  emb = [
    reward_NM @ weight_ME + rng.normal(size=(80, 6))
    for reward_NM in (split.train_reward_NM, split.reward_NM)
  ]
  train_reward_NM = split.train_reward_NM.copy()
  train_reward_NM[2:5, 1] = np.nan
  reward_NM = split.reward_NM.copy()
  reward_NM[7, 2] = np.nan
  probe = ridge.fit(emb[0], train_reward_NM, ridge.RidgeConfig())
  split = dataclasses.replace(
    split,
    reward_NM=reward_NM,
    train_reward_NM=train_reward_NM,
    prediction_NM=ridge.predict(probe, emb[1]),
  )
  return split, *emb


def _explicit(split, train_emb_NE, test_emb_NE, budget, rows, test_rows):
  """Regret of ERP and of the static mixture, in copies of prompts."""
  train_reward_NM = split.train_reward_NM[rows]
  probe = ridge.fit(train_emb_NE[rows], train_reward_NM, ridge.RidgeConfig())
  prediction_NM = ridge.predict(probe, test_emb_NE)[split.complete_N]
  reward_NM = split.reward_NM[split.complete_N]
  complete_N = np.isfinite(train_reward_NM).all(axis=1)
  mean_NM = np.tile(train_reward_NM[complete_N].mean(0), (len(reward_NM), 1))
  result = []
  for value_NM in (prediction_NM, mean_NM):
    lam_path = path.trace(value_NM, split.cost_M)
    share_NM = lam_path.share(path.mix_at(lam_path.cost_P, budget))
    regret_N = reward_NM.max(1) - (share_NM * reward_NM).sum(1)
    result.append(regret_N[test_rows].mean())
  return np.array(result)


def test_intervals_are_those_of_explicit_refits_to_copies(problem, monkeypatch):
  split, train_emb_NE, test_emb_NE = problem
  seen = []

  def spy(num, cfg):
    for counts_QN in draw_counts(num, cfg):
      seen.append(counts_QN)
      yield counts_QN

  draw_counts = resample.draw_counts
  monkeypatch.setattr(resample, 'draw_counts', spy)
  fit = refit.ridge_fit(
    train_emb_NE, split.train_reward_NM, test_emb_NE, ridge.RidgeConfig()
  )
  result = refit.refit_intervals(split, fit, _CFG)
  train_QN, test_QN = seen
  assert train_QN.shape == (100, 80) and test_QN.shape == (100, 79)
  budget = 0.75 * split.cost_M[split.best_arm]
  arguments = split, train_emb_NE, test_emb_NE, budget
  as_copies = lambda counts_N: np.repeat(
    np.arange(len(counts_N)), counts_N.astype(int)
  )
  once = _explicit(*arguments, np.arange(80), np.arange(79))
  draws = np.array(
    [
      _explicit(*arguments, as_copies(train_N), as_copies(test_N))
      for train_N, test_N in zip(train_QN, test_QN, strict=True)
    ]
  )
  assert draws[:, 0].std() > 0 and draws[:, 1].std() > 0
  for leaf, value, value_Q in (
    (result['regret_at_budget']['erp'], once[0], draws[:, 0]),
    (result['regret_at_budget']['static_mixture'], once[1], draws[:, 1]),
    (
      result['paired']['erp-static_mixture'],
      once[0] - once[1],
      draws[:, 0] - draws[:, 1],
    ),
  ):
    lo, hi = np.quantile(value_Q, [0.025, 0.975]) - value_Q.mean() + value
    assert leaf['0.75']['mean'] == pytest.approx(value, abs=1e-10)
    assert leaf['0.75']['lo'] == pytest.approx(lo, abs=1e-9)
    assert leaf['0.75']['hi'] == pytest.approx(hi, abs=1e-9)
  assert result['resampled'] == 'training and test prompts'
  assert result['num_draws'] == 100


def test_the_value_is_that_of_the_router_itself_and_the_interval_wider(problem):
  split, train_emb_NE, test_emb_NE = problem
  fit = refit.ridge_fit(
    train_emb_NE, split.train_reward_NM, test_emb_NE, ridge.RidgeConfig()
  )
  result = refit.refit_intervals(split, fit, _CFG)
  curves = baselines.curves(split)
  fixed = bootstrap.bootstrap_intervals(split, curves, _CFG)
  width = {'refit': 0.0, 'fixed': 0.0}
  for budget in evaluate.BUDGETS:
    for policy in ('erp', 'static_mixture'):
      leaf = result['regret_at_budget'][policy][budget]
      other = fixed['regret_at_budget'][policy][budget]
      assert leaf['mean'] == pytest.approx(other['mean'])
      width['refit'] += leaf['hi'] - leaf['lo']
      width['fixed'] += other['hi'] - other['lo']
    assert result['paired']['erp-static_mixture'][budget]['mean'] == (
      pytest.approx(fixed['paired']['erp-static_mixture'][budget]['mean'])
    )
  assert width['refit'] > 1.1 * width['fixed']


def test_training_draws_are_not_the_test_draws(make_split):
  split = make_split(num=50)
  seen = []

  def fit(counts_N):
    seen.append(counts_N)
    return {'other': split.prediction_NM}

  result = refit.refit_intervals(split, fit, _CFG)
  assert set(result['regret_at_budget']) == {'other', 'static_mixture'}
  assert set(result['paired']) == {'other-static_mixture'}
  (test_QN,) = resample.draw_counts(50, _CFG)
  assert (seen[0] == 1).all()  # The split as it is.
  assert len(seen) == 101
  assert abs(np.corrcoef(seen[1], test_QN[0])[0, 1]) < 0.5
  assert refit.refit_intervals(split, fit, _CFG) == result


def test_an_infeasible_budget_is_none(make_split):
  split = make_split(num=50, cost_M=np.array([9.0, 20.0, 10.0, 11.0]))
  fit = lambda counts_N: {'erp': split.prediction_NM}
  result = refit.refit_intervals(split, fit, _CFG)
  nothing = {'mean': None, 'lo': None, 'hi': None}
  assert result['regret_at_budget']['erp']['0.25'] == nothing
  assert result['paired']['erp-static_mixture']['0.25'] == nothing
  assert result['regret_at_budget']['erp']['1.0']['lo'] > 0


def test_draws_that_cannot_be_fitted_are_left_out_and_counted(
  problem, monkeypatch
):
  split, train_emb_NE, test_emb_NE = problem
  train_reward_NM = split.train_reward_NM.copy()
  train_reward_NM[2:, 1] = np.nan  # A draw has both others 2 times in 5.
  split = dataclasses.replace(split, train_reward_NM=train_reward_NM)
  fit = refit.ridge_fit(
    train_emb_NE, train_reward_NM, test_emb_NE, ridge.RidgeConfig()
  )
  found = refit.refit_intervals(split, fit, _CFG)
  assert 25 < found['num_draws'] < 55
  assert found['paired']['erp-static_mixture']['1.0']['lo'] is not None
  monkeypatch.setattr(refit, '_can_be_fitted', lambda *_: False)
  found = refit.refit_intervals(split, fit, _CFG)
  assert found['num_draws'] == 0
  assert found['paired']['erp-static_mixture']['1.0']['mean'] is None
