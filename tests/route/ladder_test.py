"""A thinned path keeps every budget, and says what it costs in reward."""

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import ladder, path

_COST_M = np.array([8.0, 70.0, 9.0, 27.0, 7.0])


@pytest.fixture(scope='module')
def prediction_NM():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2000, 5)) + [0.0, 0.8, 0.1, 0.4, -0.1]


@pytest.mark.parametrize('max_points', [2, 30, 1000])
def test_budgets_are_kept_and_the_loss_is_stated(prediction_NM, max_points):
  exact = path.trace(prediction_NM, _COST_M)
  value_P = exact.accumulate(prediction_NM)
  assert len(exact.lam_P) > 2000
  made = ladder.build(prediction_NM, _COST_M, max_points)
  assert len(made.cost_P) == len(made.price_P) <= max_points
  assert made.num_exact == len(exact.lam_P)
  spacing = (exact.cost_P[0] - exact.cost_P[-1]) / (max_points - 1)
  gap = np.max(-np.diff(made.cost_P))
  assert gap == pytest.approx(made.cost_gap)
  assert gap <= 2 * spacing + np.max(-np.diff(exact.cost_P)) + 1e-12
  # Each point's own decisions, made anew from its price.
  reward_P = []
  for price, cost in zip(made.price_P, made.cost_P, strict=True):
    choice_N = path.choose(prediction_NM, _COST_M, np.full(2000, price))
    assert _COST_M[choice_N].mean() == pytest.approx(cost, rel=1e-12)
    reward_P.append(prediction_NM[np.arange(2000), choice_N].mean())
  worst = 0.0
  for budget in np.linspace(7, 60, 200):
    mix = path.mix_at(made.cost_P, budget)
    after = mix.point + (mix.next_frac > 0)
    mean = lambda value_P, mix=mix, after=after: (
      (1 - mix.next_frac) * value_P[mix.point] + mix.next_frac * value_P[after]
    )
    assert mean(made.cost_P) == pytest.approx(min(budget, exact.cost_P[0]))
    best = path.value_at(exact.cost_P, value_P, np.array([budget]))[0]
    worst = max(worst, best - mean(reward_P))
  assert -1e-12 < worst <= made.reward_loss + 1e-12
  if max_points < 1000:
    assert worst > 0.5 * made.reward_loss  # The bound is no wide one.
  else:
    assert made.reward_loss < 1e-4


def test_a_short_path_is_whole(prediction_NM):
  exact = path.trace(prediction_NM[:50], _COST_M)
  made = ladder.build(prediction_NM[:50], _COST_M, 1000)
  np.testing.assert_array_equal(made.cost_P, exact.cost_P)
  assert made.reward_loss == 0
  assert made.price_P[-1] == np.inf


def test_a_draw_picks_the_side_of_the_lottery(prediction_NM):
  made = ladder.build(prediction_NM, _COST_M, 2)
  budget = 0.25 * made.cost_P[0] + 0.75 * made.cost_P[1]
  found = made.points(budget, np.array([0.0, 0.74, 0.76, 0.99]))
  assert found.tolist() == [1, 1, 0, 0]
  assert made.prices(budget, np.array([0.0])).tolist() == [np.inf]
  with pytest.raises(errors.UserError, match='infeasible'):
    made.points(6.0, np.zeros(1))
