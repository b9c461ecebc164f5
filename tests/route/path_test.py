import numpy as np
import pytest
from scipy import optimize

from erp_jax.core import errors
from erp_jax.route import path


def _brute_choice(prediction_NM, cost_M, lam):
  """argmax of (4.4) with the stated ties, in exact integer arithmetic."""
  choice = []
  for row in prediction_NM:
    keys = [
      (-(p - lam * c), c, m)
      for m, (p, c) in enumerate(zip(row, cost_M, strict=True))
    ]
    choice.append(min(keys)[2])
  return np.array(choice)


def _random_problem(rng, ties):
  num_models = int(rng.integers(1, 6))
  if ties:
    prediction_NM = rng.integers(0, 6, (int(rng.integers(1, 8)), num_models))
    cost_M = rng.integers(0, 5, num_models)
  else:
    prediction_NM = rng.normal(size=(int(rng.integers(1, 8)), num_models))
    cost_M = rng.random(num_models)
  return prediction_NM.astype(float), cost_M.astype(float)


@pytest.mark.parametrize('ties', [True, False])
def test_the_path_is_the_brute_force_choice_at_every_price(ties):
  rng = np.random.default_rng(0)
  for _ in range(150):
    prediction_NM, cost_M = _random_problem(rng, ties)
    traced = path.trace(prediction_NM, cost_M)
    num, num_models = prediction_NM.shape
    assert len(traced.lam_P) <= num * (num_models - 1) + 1
    lam_P = np.append(traced.lam_P, 2 * traced.lam_P[-1] + 1)
    for p, inside in enumerate((lam_P[:-1] + lam_P[1:]) / 2):
      expected_N = _brute_choice(prediction_NM, cost_M, inside)
      np.testing.assert_array_equal(traced.choice(p), expected_N)
      np.testing.assert_array_equal(
        path.choose(prediction_NM, cost_M, np.full(num, inside)), expected_N
      )
    # λ = 0 itself, where ties are exact.
    np.testing.assert_array_equal(
      traced.choice(0), _brute_choice(prediction_NM, cost_M, 0.0)
    )


def test_at_a_breakpoint_the_tie_goes_to_the_cheaper_arm():
  # At λ = 1/2 both score 1; the doubles are exact.
  prediction_NM, cost_M = np.array([[2.0, 1.0]]), np.array([2.0, 0.0])
  traced = path.trace(prediction_NM, cost_M)
  assert traced.lam_P.tolist() == [0.0, 0.5]
  assert traced.choice(1).tolist() == [1]
  assert path.choose(prediction_NM, cost_M, np.array([0.5])).tolist() == [1]
  assert path.choose(prediction_NM, cost_M, np.array([0.49])).tolist() == [0]


def test_equal_costs_and_scores_go_to_the_lower_index():
  traced = path.trace(np.array([[1.0, 1.0, 0.0]]), np.array([3.0, 3.0, 3.0]))
  assert traced.choice(0).tolist() == [0]
  assert len(traced.lam_P) == 1


def test_no_grid_of_prices_finds_another_decision():
  rng = np.random.default_rng(1)
  prediction_NM, cost_M = rng.normal(size=(6, 4)), np.array([8.0, 70, 9, 27])
  traced = path.trace(prediction_NM, cost_M)
  grid = np.linspace(0, traced.lam_P[-1] * 1.1, 20001)
  costs = {
    cost_M[path.choose(prediction_NM, cost_M, np.full(6, lam))].mean()
    for lam in grid
  }
  assert {round(c, 9) for c in costs} <= {round(c, 9) for c in traced.cost_P}


def test_means_are_those_of_the_decisions():
  rng = np.random.default_rng(2)
  prediction_NM, cost_M = rng.normal(size=(40, 5)), rng.random(5)
  value_NM = rng.normal(size=(40, 5))
  traced = path.trace(prediction_NM, cost_M)
  value_P = traced.accumulate(value_NM)
  rows = np.arange(40)
  for p in range(len(traced.lam_P)):
    choice_N = traced.choice(p)
    assert value_P[p] == pytest.approx(value_NM[rows, choice_N].mean())
    assert traced.cost_P[p] == pytest.approx(cost_M[choice_N].mean())
    share_M = np.bincount(choice_N, minlength=5) / 40
    np.testing.assert_allclose(traced.share_PM[p], share_M)
  assert (np.diff(traced.cost_P) < 0).all()
  assert traced.cost_P[-1] == cost_M.min()


def test_budgets_are_the_linear_programs_optimum():
  rng = np.random.default_rng(3)
  for _ in range(20):
    prediction_NM = rng.normal(size=(12, 4))
    cost_M = np.array([8.0, 70.0, 9.0, 27.0])
    budget = rng.uniform(8, 60)
    traced = path.trace(prediction_NM, cost_M)
    best = optimize.linprog(
      -prediction_NM.ravel() / 12,
      A_ub=np.tile(cost_M, 12)[None] / 12,
      b_ub=[budget],
      A_eq=np.kron(np.eye(12), np.ones(4)),
      b_eq=np.ones(12),
    )
    value_P = traced.accumulate(prediction_NM)
    value = path.value_at(traced.cost_P, value_P, np.array([budget]))[0]
    assert value == pytest.approx(-best.fun)
    share_NM = traced.share(path.mix_at(traced.cost_P, budget))
    np.testing.assert_allclose(share_NM.sum(axis=1), 1)
    assert (share_NM * prediction_NM).sum() / 12 == pytest.approx(value)
    assert (share_NM @ cost_M).mean() == pytest.approx(
      min(budget, traced.cost_P[0])
    )


def test_a_budget_is_a_ceiling_and_may_be_infeasible():
  cost_P, value_P = np.array([5.0, 3.0, 1.0]), np.array([10.0, 8.0, 0.0])
  assert path.mix_at(cost_P, 9.0) == path.Mix(0, 0.0)
  assert path.mix_at(cost_P, 3.0) == path.Mix(1, 0.0)
  assert path.mix_at(cost_P, 2.5) == path.Mix(1, 0.25)
  assert path.mix_at(cost_P, 1.0) == path.Mix(2, 0.0)
  assert path.mix_at(cost_P, 1.0 - 1e-12) == path.Mix(2, 0.0)
  np.testing.assert_array_equal(
    path.value_at(cost_P, value_P, np.array([9.0, 3.0, 2.5, 1.0, 0.9])),
    [10.0, 8.0, 6.0, 0.0, np.nan],
  )
  with pytest.raises(errors.UserError, match='0.9 a prompt is infeasible'):
    path.mix_at(cost_P, 0.9)


def test_an_infinite_price_means_the_best_of_the_cheapest():
  prediction_NM = np.array([[9.0, 1.0, 2.0], [9.0, 2.0, 1.0]])
  choice_N = path.choose(
    prediction_NM, np.array([1.0, 0.0, 0.0]), np.full(2, np.inf)
  )
  assert choice_N.tolist() == [2, 1]


def test_predictions_that_are_not_finite_are_refused():
  with pytest.raises(ValueError, match='finite'):
    path.trace(np.array([[np.nan, 1.0]]), np.array([1.0, 2.0]))


def test_a_large_problem_is_quick():
  rng = np.random.default_rng(4)
  prediction_NM = rng.normal(size=(100_000, 5))
  traced = path.trace(prediction_NM, np.array([8.0, 70, 9, 27, 7]))
  # A Python loop over prompts would not end within the suite's patience.
  assert len(traced.lam_P) > 100_000
  assert traced.cost_P[-1] == 7
