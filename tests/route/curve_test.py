import dataclasses

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import baselines, evaluate, path


def _brute_force(split, lam):
  """Regret and cost of argmax(prediction - λ cost), prompt by prompt."""
  regret, cost = [], []
  for prediction_M, reward_M in zip(
    split.prediction_NM, split.reward_NM, strict=True
  ):
    m = max(range(4), key=lambda m: prediction_M[m] - lam * split.cost_M[m])
    regret.append(max(reward_M) - reward_M[m])
    cost.append(split.cost_M[m])
  return np.mean(regret), np.mean(cost)


def test_a_grid_of_prices_holds_the_decisions_at_those_prices(make_split):
  split = make_split()
  exact = baselines.curves(split)['erp']
  cfg = baselines.CurveConfig(prices='log_grid', num_prices=7)
  grid = baselines.curves(split, cfg)['erp']
  positive = exact.path.lam_P[1:]
  lams = np.append(0.0, np.geomspace(positive[0], positive[-1], 7))
  assert 2 < len(grid.path.lam_P) <= 8 < len(exact.path.lam_P)
  for lam in lams * (1 + 1e-12):  # Past a breakpoint, its decisions hold.
    point = np.searchsorted(grid.path.lam_P, lam, side='right') - 1
    regret, cost = _brute_force(split, lam)
    assert grid.regret_P[point] == pytest.approx(regret)
    assert grid.path.cost_P[point] == pytest.approx(cost)
  np.testing.assert_array_equal(
    grid.path.choice(2),
    exact.path.choice(
      int(np.searchsorted(exact.path.lam_P, grid.path.lam_P[2]))
    ),
  )


def test_drawn_policies_scatter_about_their_closed_form(make_split):
  split = make_split(num=400)
  expected = baselines.curves(split)
  drawn = [
    baselines.curves(split, baselines.CurveConfig(blind='draws', seed=seed))
    for seed in range(30)
  ]
  for name in ('permuted', 'random'):
    point = len(expected[name].regret_P) // 2
    values = [curves[name].regret_P[point] for curves in drawn]
    spread = np.std(values) / np.sqrt(len(values))
    assert spread > 0
    assert abs(np.mean(values) - expected[name].regret_P[point]) < 4 * spread
  np.testing.assert_allclose(
    drawn[0]['permuted'].path.cost_P, expected['permuted'].path.cost_P
  )


def test_the_hindsight_mixture_is_never_worse_than_the_static_one(make_split):
  split = make_split()
  curves = baselines.curves(split)
  after = curves[baselines.HINDSIGHT]
  for cost in np.linspace(split.cost_M.min(), split.cost_M.max(), 13):
    static = curves['static_mixture']
    assert after.at(after.regret_P, cost) <= (
      static.at(static.regret_P, cost) + 1e-12
    )


def test_budgets_can_be_set_on_other_prompts(make_split):
  """λ and the lottery come from the other prompts; costs are then realised."""
  split, other = make_split(seed=1), make_split(seed=2, num=90)
  plain = baselines.curves(split)['erp']
  curve = baselines.curves(split, calibrations={'erp': other.prediction_NM})[
    'erp'
  ]
  elsewhere = path.trace(other.prediction_NM, other.cost_M)
  budget = 0.5 * split.cost_M[split.best_arm]
  mix = path.mix_at(elsewhere.cost_P, budget)
  prices = path.inner_prices(elsewhere.lam_P)
  expected = np.zeros(2)
  for point, prob in (
    (mix.point, 1 - mix.next_frac),
    (mix.point + 1, mix.next_frac),
  ):
    expected += prob * np.array(_brute_force(split, prices[point]))
  assert curve.at(curve.regret_P, budget) == pytest.approx(expected[0])
  assert curve.at(curve.path.cost_P, budget) == pytest.approx(expected[1])
  assert curve.at(curve.path.cost_P, budget) != pytest.approx(budget)
  assert plain.at(plain.path.cost_P, budget) == pytest.approx(budget)
  share_NM = curve.share(budget)
  best_N = split.reward_NM.max(axis=1)
  assert (best_N - (share_NM * split.reward_NM).sum(axis=1)).mean() == (
    pytest.approx(expected[0])
  )


def test_regret_can_be_charged_for_cost(make_split):
  split = make_split(cost_weight=0.02)
  curves = baselines.curves(split)
  value_NM = split.reward_NM - 0.02 * split.spent_NM
  for m, name in enumerate(split.models):
    regret = (value_NM.max(axis=1) - value_NM[:, m]).mean()
    assert curves[f'same:{name}'].regret_P[0] == pytest.approx(regret)
  plain = evaluate.evaluate(make_split(), baselines.curves(make_split()))
  charged = evaluate.evaluate(split, curves)
  assert charged['regret_at_budget'] != plain['regret_at_budget']
  assert charged['r2'] == plain['r2']


def test_an_infeasible_budget_is_undefined_and_has_no_lottery(make_split):
  curve = baselines.curves(make_split())['static_mixture']
  assert np.isnan(curve.at(curve.regret_P, 1.0))
  with pytest.raises(errors.UserError, match='infeasible'):
    curve.lottery(1.0)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'prices': 'all'}, 'exact, log_grid'),
    ({'blind': 'no'}, 'closed_form, draws'),
    ({'num_prices': 1}, 'num_prices must be >= 2'),
  ],
)
def test_a_wrong_switch_is_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    baselines.CurveConfig(**fields)


def test_further_policies_follow_their_own_predictions(make_split):
  split = make_split()
  other_NM = -split.prediction_NM
  curves = baselines.curves(split, predictions={'zooter': other_NM})
  alone = baselines.curves(dataclasses.replace(split, prediction_NM=other_NM))
  np.testing.assert_array_equal(
    curves['zooter'].regret_P, alone['erp'].regret_P
  )
