import dataclasses

import numpy as np
import pytest

from erp_jax.route import baselines, contributions, path


def test_areas_are_those_of_a_fine_trapezoid(make_split):
  split = make_split()
  curves = baselines.curves(split)
  found = contributions.areas(split, curves)
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  costs = np.linspace(lo, hi, 200_001)
  assert {'erp', 'static_mixture', 'permuted', 'per_category'} < set(found)
  for policy, area_N in found.items():
    curve = curves[policy]
    value = path.value_at(curve.path.cost_P, curve.regret_P, costs)
    fine = np.trapezoid(value, costs) / (hi - lo)
    assert area_N.mean() == pytest.approx(fine, abs=1e-7)


def test_each_prompts_area_is_its_own_mean_over_budgets(make_split):
  split = make_split(num=20)
  curve = baselines.curves(split)['erp']
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  share_NM = np.zeros((20, 4))
  budgets = np.linspace(lo, hi, 4001)
  for budget in (budgets[:-1] + budgets[1:]) / 2:
    share_NM += curve.share(budget) / 4000
  np.testing.assert_allclose(curve.mean_share(lo, hi), share_NM, atol=1e-6)
  np.testing.assert_allclose(
    contributions.areas(split, {'erp': curve})['erp'],
    split.reward_NM.max(axis=1) - (share_NM * split.reward_NM).sum(axis=1),
    atol=1e-5,
  )


def test_budgets_set_on_other_prompts_hold_for_areas_too(make_split):
  split, other = make_split(num=20), make_split(num=30, seed=1)
  curve = baselines.curves(split, calibrations={'erp': other.prediction_NM})[
    'erp'
  ]
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  share_NM = np.zeros((20, 4))
  budgets = np.linspace(lo, hi, 4001)
  for budget in (budgets[:-1] + budgets[1:]) / 2:
    share_NM += curve.share(budget) / 4000
  np.testing.assert_allclose(curve.mean_share(lo, hi), share_NM, atol=1e-6)


def test_a_path_that_ends_within_the_range_is_flat_beyond(make_split):
  weight_P = path.mean_weights(np.array([6.0, 4.0, 1.0]), 2.0, 10.0)
  # On [2, 4], [4, 6] and [6, 10], in that order, by hand.
  expected = np.array([1 + 4, 2 * 2 / 3 + 1, 2 * 1 / 3]) / 8
  np.testing.assert_allclose(weight_P, expected)
  weight_P = path.mean_weights(np.array([6.0, 4.0, 1.0]), 4.5, 5.0)
  np.testing.assert_allclose(weight_P, [0.375, 0.625, 0.0])
  with pytest.raises(ValueError, match='no mean over costs from 0.5 to 2'):
    path.mean_weights(np.array([6.0, 1.0]), 0.5, 2.0)


def test_areas_without_a_range_or_a_cheap_point_are_left_out(make_split):
  split = make_split()
  found = contributions.areas(split, baselines.curves(split))
  assert 'same:w' in found  # The cheapest.
  assert not {'same:x', 'same:y', 'same:z', 'random'} & set(found)
  cost_M = np.full(4, 20.0)
  cost_M[split.best_arm] = 2  # The best is the cheapest.
  split = dataclasses.replace(split, cost_M=cost_M)
  assert split.cost_M[split.best_arm] == 2
  assert not contributions.areas(split, baselines.curves(split))
