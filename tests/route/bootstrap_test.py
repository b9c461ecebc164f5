import dataclasses

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from erp_jax.core import resample
from erp_jax.route import baselines, bootstrap, evaluate, path

_CFG = resample.BootstrapConfig(num_draws=400, seed=3)


def _intervals(split, cfg=_CFG):
  return bootstrap.bootstrap_intervals(split, baselines.curves(split), cfg)


def test_intervals_are_those_of_a_loop_over_the_same_draws(make_split):
  split = make_split(num=60)
  reward_NM = split.reward_NM.copy()
  reward_NM[4:9, 2] = np.nan
  split = make_split(num=60, reward_NM=reward_NM)
  curves = baselines.curves(split)
  result = bootstrap.bootstrap_intervals(split, curves, _CFG)
  complete_N = split.complete_N
  budget = 0.5 * split.cost_M[split.best_arm]
  regret = {}
  for name in ('erp', 'static_mixture'):
    lam_path = curves[name].path
    share_NM = lam_path.share(path.mix_at(lam_path.cost_P, budget))
    value_N = np.full(60, np.nan)
    rewards = reward_NM[complete_N]
    value_N[complete_N] = rewards.max(1) - (share_NM * rewards).sum(1)
    regret[name] = value_N
  draws = {'erp': [], 'paired': [], 'r2': [], 'r2_b': []}
  for counts_QN in resample.draw_counts(60, _CFG):
    assert (counts_QN.sum(axis=1) == 60).all()
    for counts_N in counts_QN:
      rows = np.repeat(np.arange(60), counts_N.astype(int))
      draws['erp'].append(np.nanmean(regret['erp'][rows]))
      draws['paired'].append(
        np.nanmean((regret['erp'] - regret['static_mixture'])[rows])
      )
      for key, kept in (
        ('r2', rows),
        ('r2_b', rows[split.category_N[rows] == 'b']),
      ):
        kept = kept[np.isfinite(reward_NM[kept, 2])]
        if len(set(reward_NM[kept, 2])) > 1:
          draws[key].append(
            sklearn_metrics.r2_score(
              reward_NM[kept, 2], split.prediction_NM[kept, 2]
            )
          )
  assert len(draws['erp']) == 400
  for leaf, key in (
    (result['regret_at_budget']['erp']['0.5'], 'erp'),
    (result['paired']['erp-static_mixture']['0.5'], 'paired'),
    (result['r2']['y']['aggregate'], 'r2'),
    (result['r2']['y']['by_category']['b'], 'r2_b'),
  ):
    lo, hi = np.quantile(draws[key], [0.025, 0.975])
    assert leaf['lo'] == pytest.approx(lo, abs=1e-12)
    assert leaf['hi'] == pytest.approx(hi, abs=1e-12)


def test_the_value_is_the_evaluations(make_split):
  split = make_split()
  evaluated = evaluate.evaluate(split, baselines.curves(split))
  result = _intervals(split)
  for policy, budgets in evaluated['regret_at_budget'].items():
    for budget, value in budgets.items():
      leaf = result['regret_at_budget'][policy][budget]
      assert leaf['mean'] == pytest.approx(value)
      assert value is None or leaf['lo'] <= value <= leaf['hi']
  for model, parts in evaluated['r2'].items():
    assert result['r2'][model]['aggregate']['mean'] == pytest.approx(
      parts['aggregate']
    )
  paired = result['paired']['erp-static_mixture']['0.75']
  assert paired['mean'] == pytest.approx(
    evaluated['regret_at_budget']['erp']['0.75']
    - evaluated['regret_at_budget']['static_mixture']['0.75']
  )


def test_infeasible_and_undefined_are_none(make_split):
  split = make_split()
  reward_NM = split.reward_NM.copy()
  reward_NM[:, 0] = 0.3
  result = _intervals(make_split(reward_NM=reward_NM))
  nothing = {'mean': None, 'lo': None, 'hi': None}
  assert result['regret_at_budget']['same:x']['0.25'] == nothing
  assert result['r2']['w']['aggregate'] == nothing
  assert result['r2']['w']['by_category']['a'] == nothing


def test_a_category_without_a_name_is_not_the_aggregate(make_split):
  split = make_split()
  plain = _intervals(split)['r2']['y']
  names = ('category_N', 'train_category_N')
  nameless = {n: np.char.replace(getattr(split, n), 'a', '') for n in names}
  split = dataclasses.replace(split, **nameless)
  result = _intervals(split)['r2']['y']
  assert result['aggregate'] == plain['aggregate']
  assert result['by_category'][''] == plain['by_category']['a']


def test_a_seed_repeats_and_another_differs(make_split):
  split = make_split()
  other = resample.BootstrapConfig(num_draws=400, seed=4)
  assert _intervals(split) == _intervals(split)
  assert _intervals(split) != _intervals(split, other)


def test_intervals_cover_the_truth(make_split):
  # Regret of the cheapest arm, against its value on very many prompts.
  cfg = resample.BootstrapConfig(num_draws=200)
  many = make_split(seed=1000, num=40_000)
  truth = (many.reward_NM.max(axis=1) - many.reward_NM[:, 0]).mean()
  inside = 0
  for seed in range(150):
    split = make_split(seed=seed)
    curves = {'same:w': baselines.curves(split)['same:w']}
    result = bootstrap.bootstrap_intervals(split, curves, cfg)
    leaf = result['regret_at_budget']['same:w']['1.0']
    inside += leaf['lo'] <= truth <= leaf['hi']
  # Binomial(150, .95) has a standard deviation of 2.7.
  assert 134 <= inside <= 149
