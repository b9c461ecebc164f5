import dataclasses
import itertools
import time

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn_metrics

from erp_jax.core import resample
from erp_jax.route import baselines, bootstrap, contributions, evaluate, path
from erp_jax.route import split as split_lib

_CFG = resample.BootstrapConfig(num_draws=400, seed=3)


def _intervals(split, cfg=_CFG):
  return bootstrap.bootstrap_intervals(split, baselines.curves(split), cfg)


def test_intervals_are_those_of_a_loop_over_the_same_draws(make_split):
  split = make_split(num=60)
  reward_NM = split.reward_NM.copy()
  reward_NM[4:9, 2] = np.nan
  # Noisy enough that no bound of an AUROC is 1.
  prediction_NM = split.prediction_NM + np.random.default_rng(1).normal(
    scale=0.4, size=(60, 4)
  )
  split = make_split(num=60, reward_NM=reward_NM, prediction_NM=prediction_NM)
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
  area_N = np.full(60, np.nan)
  area_N[complete_N] = contributions.areas(split, curves)['erp']
  x_less_y_N = reward_NM[:, 1] - reward_NM[:, 2]
  margin_N = split.prediction_NM[:, 1] - split.prediction_NM[:, 2]
  untied_N = np.isfinite(x_less_y_N) & (x_less_y_N != 0)
  draws = {'erp': [], 'paired': [], 'r2': [], 'r2_b': [], 'area': []}
  draws['auroc'] = []
  for counts_QN in resample.draw_counts(60, _CFG):
    assert (counts_QN.sum(axis=1) == 60).all()
    for counts_N in counts_QN:
      rows = np.repeat(np.arange(60), counts_N.astype(int))
      draws['erp'].append(np.nanmean(regret['erp'][rows]))
      draws['paired'].append(
        np.nanmean((regret['erp'] - regret['static_mixture'])[rows])
      )
      draws['area'].append(np.nanmean(area_N[rows]))
      draws['auroc'].append(
        sklearn_metrics.roc_auc_score(
          x_less_y_N[untied_N] > 0,
          margin_N[untied_N],
          sample_weight=counts_N[untied_N],
        )
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
    (result['area']['erp'], 'area'),
    (result['auroc']['x|y']['erp'], 'auroc'),
  ):
    lo, hi = np.quantile(draws[key], [0.025, 0.975])
    if key == 'auroc':
      value = 2 * special.logit(leaf['mean'])
      lo, hi = special.expit(value - special.logit([hi, lo]))
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
  for pair, parts in evaluated['auroc'].items():
    leaf = result['auroc'][pair]['erp']
    assert leaf['mean'] == pytest.approx(parts['erp'])
    assert leaf['lo'] <= leaf['mean'] <= leaf['hi']
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
  assert result['area']['random'] == nothing
  assert result['paired_area']['erp-random'] == nothing
  reward_NM[:, 1] = 0.3
  result = _intervals(make_split(reward_NM=reward_NM))
  assert result['auroc']['w|x']['erp'] == nothing
  assert result['auroc']['w|y']['erp'] != nothing


def test_all_pairs_of_policies_are_compared(make_split):
  split = make_split()
  curves = baselines.curves(split)
  curves['zooter'] = dataclasses.replace(curves['per_category'])
  result = bootstrap.bootstrap_intervals(split, curves, _CFG)
  present = [policy for policy in bootstrap.COMPARED if policy in curves]
  assert len(present) == 6
  expected = {f'{a}-{b}' for a, b in itertools.combinations(present, 2)}
  assert set(result['paired']) == set(result['paired_area']) == expected
  assert result['paired']['zooter-per_category']['0.5']['hi'] == 0
  area = {policy: result['area'][policy]['mean'] for policy in present}
  for a, b in itertools.combinations(['erp', 'static_mixture', 'permuted'], 2):
    leaf = result['paired_area'][f'{a}-{b}']
    assert leaf['mean'] == pytest.approx(area[a] - area[b])
    assert leaf['lo'] < leaf['mean'] < leaf['hi']
  few = ('per_category', 'erp', 'absent')
  result = bootstrap.bootstrap_intervals(split, curves, _CFG, few)
  assert list(result['paired']) == ['per_category-erp']


def test_a_difference_is_paired(make_split):
  # Two policies that differ on few prompts: paired, their difference is sure.
  split = make_split(num=400)
  prediction_NM = split.prediction_NM.copy()
  prediction_NM[:5] = prediction_NM[:5, ::-1]
  curves = baselines.curves(split, predictions={'erp_loo': prediction_NM})
  result = bootstrap.bootstrap_intervals(split, curves, _CFG)
  width = lambda leaf: leaf['hi'] - leaf['lo']
  assert width(result['paired_area']['erp-erp_loo']) < 0.3 * width(
    result['area']['erp']
  )


def test_2000_draws_of_2000_prompts_and_5_arms_take_seconds():
  rng = np.random.default_rng(0)
  reward_NM = rng.normal(size=(4000, 5))
  category_N = np.array(['a', 'b'])[rng.integers(2, size=4000)]
  split = split_lib.Split(
    models=tuple('vwxyz'),
    cost_M=np.array([8.0, 70, 9, 27, 7]),
    prediction_NM=reward_NM[:2000] + rng.normal(size=(2000, 5)),
    reward_NM=reward_NM[:2000],
    spent_NM=np.full((2000, 5), np.nan),
    category_N=category_N[:2000],
    train_reward_NM=reward_NM[2000:],
    train_category_N=category_N[2000:],
  )
  curves = baselines.curves(split)
  start = time.monotonic()
  bootstrap.bootstrap_intervals(split, curves, resample.BootstrapConfig())
  assert time.monotonic() - start < 10  # 0.7 s on one quiet core.


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
