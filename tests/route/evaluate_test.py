import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from erp_jax.route import baselines, evaluate, metrics, path
from erp_jax.route import split as split_lib


def _evaluate(split):
  return evaluate.evaluate(split, baselines.curves(split))


def test_budgets_are_shares_of_the_best_single_models_cost(make_split):
  split = make_split()
  assert split.best_arm == int(np.argmax(split.train_mean_M))
  reference = split.cost_M[split.best_arm]
  curves = baselines.curves(split)
  result = evaluate.evaluate(split, curves)
  oracle_N = split.reward_NM.max(axis=1)
  for name in ('erp', 'static_mixture', 'permuted', 'per_category'):
    lam_path = curves[name].path
    for key in ('0.25', '0.5', '0.75', '1.0'):
      share_NM = lam_path.share(
        path.mix_at(lam_path.cost_P, float(key) * reference)
      )
      chosen_N = (share_NM * split.reward_NM).sum(axis=1)
      assert result['regret_at_budget'][name][key] == pytest.approx(
        (oracle_N - chosen_N).mean()
      )
      spent_N = (share_NM * split.spent_NM).sum(axis=1)
      assert result['cost_at_budget'][name][key] == pytest.approx(
        spent_N.mean()
      )
      decided = (share_NM @ split.cost_M).mean()
      assert decided == pytest.approx(
        min(float(key) * reference, lam_path.cost_P[0])
      )


def test_infeasible_budgets_are_none(make_split):
  result = _evaluate(make_split())['regret_at_budget']
  # Best single: x for 20 or z for 11; a quarter is below x, y and random.
  assert result['same:x']['0.25'] is None
  assert result['random']['0.25'] is None
  assert result['erp']['0.25'] is not None


def test_the_frontier_ends_where_cost_does_not_count(make_split):
  split = make_split()
  result = _evaluate(split)['frontier']
  oracle = split.reward_NM.max(axis=1).mean()
  rows = np.arange(len(split.reward_NM))
  best_N = np.argmax(split.prediction_NM, axis=1)
  assert len(result['erp']) == 101
  assert result['erp'][100] == pytest.approx(
    oracle - split.reward_NM[rows, best_N].mean()
  )
  cheapest = oracle - split.reward_NM[:, 0].mean()
  for name in ('erp', 'static_mixture', 'permuted', 'per_category'):
    assert result[name][0] == pytest.approx(cheapest)
  # 18 of cost between the arms: y's 5 is reached at fraction 1/6.
  assert result['same:y'][16] is None and result['same:y'][17] is not None


def test_auroc_drops_ties_and_counts_them(make_split):
  split = make_split()
  result = _evaluate(split)['auroc']
  assert len(result) == 6
  margin_N = split.reward_NM[:, 1] - split.reward_NM[:, 3]
  keep_N = margin_N != 0
  expected = sklearn_metrics.roc_auc_score(
    margin_N[keep_N] > 0,
    (split.prediction_NM[:, 1] - split.prediction_NM[:, 3])[keep_N],
  )
  assert result['x|z']['erp'] == pytest.approx(expected)
  assert result['x|z']['tied_share'] == pytest.approx(1 - keep_N.mean())


def test_r2_is_per_model_on_the_prompts_it_answered(make_split):
  split = make_split()
  reward_NM = split.reward_NM.copy()
  reward_NM[:20, 1] = np.nan
  result = _evaluate(make_split(reward_NM=reward_NM))['r2']
  for name, m, first in (('w', 0, 0), ('x', 1, 20)):
    expected = sklearn_metrics.r2_score(
      split.reward_NM[first:, m], split.prediction_NM[first:, m]
    )
    assert result[name]['aggregate'] == pytest.approx(expected)
  rows = np.flatnonzero(split.category_N == 'b')
  assert result['w']['by_category']['b'] == pytest.approx(
    sklearn_metrics.r2_score(
      split.reward_NM[rows, 0], split.prediction_NM[rows, 0]
    )
  )


def test_win_shares_split_ties():
  value_NM = np.array([[1, 1, 0], [0, 0, 0], [0, 2, 1], [0, 0, 3]])
  np.testing.assert_allclose(
    evaluate.win_share(value_NM),
    np.array([1 / 2 + 1 / 3, 1 / 2 + 1 / 3 + 1, 1 / 3 + 1]) / 4,
  )


def test_win_shares_are_by_category_of_truth_and_prediction(make_split):
  split = make_split()
  result = _evaluate(split)['win_share']
  rows = split.category_N == 'c'
  wins = np.argmax(split.prediction_NM[rows], axis=1)
  assert result['z']['by_category']['c']['predicted'] == pytest.approx(
    (wins == 3).mean()
  )
  for kind in ('true', 'predicted'):
    total = sum(result[name]['aggregate'][kind] for name in split.models)
    assert total == pytest.approx(1)


def test_breakpoints_are_columns_of_one_length(make_split):
  curves = baselines.curves(make_split())
  columns = evaluate.breakpoints(curves)
  assert {len(c) for c in columns.values()} == {
    sum(len(curve.regret_P) for curve in curves.values())
  }
  erp = columns['policy'] == 'erp'
  np.testing.assert_array_equal(columns['regret'][erp], curves['erp'].regret_P)
  assert columns['lam'][erp][0] == 0


def _only(split, arms):
  """The same split with some arms."""
  return split_lib.Split(
    models=tuple(split.models[m] for m in arms),
    cost_M=split.cost_M[arms],
    prediction_NM=split.prediction_NM[:, arms],
    reward_NM=split.reward_NM[:, arms],
    spent_NM=split.spent_NM[:, arms],
    category_N=split.category_N,
    train_reward_NM=split.train_reward_NM[:, arms],
    train_category_N=split.train_category_N,
  )


def test_one_arm_has_no_regret_and_no_pairs(make_split):
  result = _evaluate(_only(make_split(), [2]))
  assert result['auroc'] == {}
  assert result['frontier']['erp'] == [0.0] * 101
  assert result['regret_at_budget']['erp'] == {
    '0.25': None,
    '0.5': None,
    '0.75': None,
    '1.0': 0.0,
  }
  metrics.validate_metrics(metrics.aggregate([result]))


@pytest.mark.parametrize('cost', [0.0, 7.0])
def test_equal_costs_route_by_reward_alone(make_split, cost):
  split = make_split(cost_M=np.full(4, cost))
  result = _evaluate(split)
  rows = np.arange(len(split.reward_NM))
  best_N = np.argmax(split.prediction_NM, axis=1)
  regret = (split.reward_NM.max(axis=1) - split.reward_NM[rows, best_N]).mean()
  assert result['regret_at_budget']['erp']['1.0'] == pytest.approx(regret)
  np.testing.assert_allclose(result['frontier']['erp'], regret)
  # A share of nothing is nothing: feasible; a share of 7 is below every arm.
  assert (result['regret_at_budget']['erp']['0.5'] is None) == (cost > 0)
  metrics.validate_metrics(metrics.aggregate([result, result]))


def test_equal_rewards_are_undefined_and_say_so(make_split):
  split = make_split()
  split = make_split(
    reward_NM=np.ones_like(split.reward_NM),
    train_reward_NM=np.ones_like(split.train_reward_NM),
  )
  merged = metrics.aggregate([_evaluate(split)])
  metrics.validate_metrics(merged)
  json.dumps(merged, allow_nan=False)
  leaf = merged['r2']['w']['aggregate']
  assert leaf['mean'] is None and 'equal' in leaf['reason']
  assert merged['auroc']['w|x']['erp']['reason']
  assert merged['auroc']['w|x']['tied_share']['mean'] == 1
  assert merged['regret_at_budget']['erp']['1.0']['mean'] == 0
