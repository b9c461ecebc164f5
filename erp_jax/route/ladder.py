"""A λ path as a router keeps it: prices by budget, at most so many."""

import dataclasses

import numpy as np

from erp_jax.route import path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
  """Points of a λ path, from dear to cheap.

  A budget between two points is a lottery of them. Each keeps its own exact
  cost, so leaving out others changes no budget's expected cost, only how good
  the prompts are that the lottery's dear side is spent on: by `reward_loss` at
  most.

  Attributes:
    price_P: a λ well inside the point's range; the last is infinite.
    cost_P: mean cost of the decisions there, strictly decreasing.
    num_exact: points of the whole path.
    cost_gap: largest step of cost between neighbours.
    reward_loss: of mean predicted reward, against the whole path at the same
      cost: the most over all costs.
  """

  price_P: np.ndarray
  cost_P: np.ndarray
  num_exact: int
  cost_gap: float
  reward_loss: float

  def points(self, budget: float, draw_N: np.ndarray) -> np.ndarray:
    """point_N: the lottery's outcomes for uniform draws.

    Raises UserError for an infeasible budget.
    """
    mix = path.mix_at(self.cost_P, budget)
    return mix.point + (draw_N < mix.next_frac)

  def prices(self, budget: float, draw_N: np.ndarray) -> np.ndarray:
    """price_N for uniform draws, as `points`."""
    return self.price_P[self.points(budget, draw_N)]


def build(
  prediction_NM: np.ndarray, cost_M: np.ndarray, max_points: int
) -> Ladder:
  """The ladder of these prompts, evenly spaced in cost and reward together.

  Both fall from 1 to 0 along the path, in their own ranges; points are even in
  the sum. So `cost_gap` is at most 2 (dearest - cheapest) / (max_points - 1)
  and the loss at most so much of the rewards' range, plus the largest step of
  the whole path. Spaced in cost alone, a pool with several cheap arms lost
  .006 of predicted reward at 1000 points, against .00007.
  """
  lam_path = path.trace(prediction_NM, cost_M)
  value_P = lam_path.accumulate(np.asarray(prediction_NM, np.float64))
  cost_P = lam_path.cost_P
  kept = np.arange(len(cost_P))
  if len(kept) > max_points:
    along_P = sum(
      (x_P[0] - x_P) / max(x_P[0] - x_P[-1], np.finfo(float).tiny)
      for x_P in (cost_P, value_P)
    )
    wanted = np.linspace(0.0, along_P[-1], max_points)
    kept = np.searchsorted(along_P, wanted, side='right') - 1
    kept = np.unique(np.append(kept, len(cost_P) - 1))[-max_points:]
  chord_P = path.value_at(cost_P[kept], value_P[kept], cost_P)
  return Ladder(
    price_P=path.inner_prices(lam_path.lam_P)[kept],
    cost_P=cost_P[kept],
    num_exact=len(cost_P),
    cost_gap=float(np.max(-np.diff(cost_P[kept]), initial=0.0)),
    reward_loss=float(np.max(value_P - chord_P, initial=0.0)),
  )
