"""The exact λ path: every routing decision that some price λ leads to.

At price λ a prompt goes to argmax_m prediction_m - λ cost_m (4.4). As λ grows
from 0 a prompt moves only to cheaper arms, at most M - 1 times, along the upper
envelope of its M lines. So N prompts have at most N (M - 1) breakpoints, and
between two of them nothing changes.

Ties in score go to the cheaper arm, between equal costs to the lower index.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from erp_jax.core import errors


class Mix(NamedTuple):
  """A lottery between two neighbouring points of a path.

  Attributes:
    point: index of the dearer one.
    next_frac: probability of the cheaper one, `point` + 1; 0 at a point.
  """

  point: int
  next_frac: float


@dataclasses.dataclass(frozen=True)
class LambdaPath:
  """Points along λ, from 0 upwards: from the dearest routing to the cheapest.

  Attributes:
    lam_P: λ from which on the point's decisions hold, up to the next λ.
    cost_P: mean cost of the decisions, strictly decreasing.
    share_PM: share of prompts that each arm gets.
    start_N: arms at λ = 0.
    event_prompt, event_from, event_arm: the switches in order of λ: who moves,
      from which arm, to which.
    end_P: how many switches have happened at each point.
  """

  lam_P: np.ndarray
  cost_P: np.ndarray
  share_PM: np.ndarray
  start_N: np.ndarray
  event_prompt: np.ndarray
  event_from: np.ndarray
  event_arm: np.ndarray
  end_P: np.ndarray

  def accumulate(self, value_NM: np.ndarray) -> np.ndarray:
    """Mean over prompts of the chosen arm's value, at every point."""
    gain = (
      value_NM[self.event_prompt, self.event_arm]
      - value_NM[self.event_prompt, self.event_from]
    )
    total = np.concatenate([[0.0], np.cumsum(gain)])[self.end_P]
    start = value_NM[np.arange(len(self.start_N)), self.start_N].sum()
    return (start + total) / len(self.start_N)

  def choice(self, point: int) -> np.ndarray:
    """choice_N, the arm of each prompt at a point."""
    choice_N = self.start_N.copy()
    end = self.end_P[point]
    # In order: of a prompt's several switches the last one stays.
    choice_N[self.event_prompt[:end]] = self.event_arm[:end]
    return choice_N

  def share(self, mix: Mix) -> np.ndarray:
    """share_NM, the probability of each arm for each prompt."""
    share_NM = np.zeros((len(self.start_N), self.share_PM.shape[1]))
    rows = np.arange(len(self.start_N))
    share_NM[rows, self.choice(mix.point)] = 1 - mix.next_frac
    if mix.next_frac:
      share_NM[rows, self.choice(mix.point + 1)] += mix.next_frac
    return share_NM

  def mean_share(self, weight_P: np.ndarray) -> np.ndarray:
    """share_NM, averaged over the points with these weights."""
    rest_P = np.cumsum(weight_P[::-1])[::-1]  # Of a point and all cheaper ones.
    event = np.arange(len(self.event_arm))
    rest = rest_P[np.searchsorted(self.end_P, event, side='right')]
    share_NM = np.zeros((len(self.start_N), self.share_PM.shape[1]))
    share_NM[np.arange(len(self.start_N)), self.start_N] = rest_P[0]
    np.add.at(share_NM, (self.event_prompt, self.event_arm), rest)
    np.subtract.at(share_NM, (self.event_prompt, self.event_from), rest)
    return share_NM


def trace(prediction_NM: np.ndarray, cost_M: np.ndarray) -> LambdaPath:
  """The path of these predictions and mean costs per arm.

  Raises ValueError for a prediction that is not finite.
  """
  prediction_NM = np.asarray(prediction_NM, np.float64)
  cost_M = np.asarray(cost_M, np.float64)
  if not np.isfinite(prediction_NM).all():
    raise ValueError('predictions must be finite.')
  num, num_models = prediction_NM.shape
  order_M = by_cost(cost_M)
  sorted_NM = prediction_NM[:, order_M]
  sorted_cost_M = cost_M[order_M]
  current_N = np.argmax(sorted_NM, axis=1)  # The first of equals: the cheapest.
  start_N = current_N.copy()
  rows = np.arange(num)
  lam_N = np.zeros(num)
  events = []
  for _ in range(num_models - 1):
    saving_NM = sorted_cost_M[current_N[rows], None] - sorted_cost_M
    loss_NM = sorted_NM[rows, current_N[rows], None] - sorted_NM[rows]
    ratio_NM = np.full(saving_NM.shape, np.inf)
    np.divide(loss_NM, saving_NM, out=ratio_NM, where=saving_NM > 0)
    next_N = np.argmin(ratio_NM, axis=1)
    price_N = ratio_NM[np.arange(len(rows)), next_N]
    moves_N = np.isfinite(price_N)
    rows, next_N = rows[moves_N], next_N[moves_N]
    # Rounding could put a breakpoint a last bit before the one it follows.
    lam_N[rows] = np.maximum(lam_N[rows], price_N[moves_N])
    events.append((lam_N[rows], rows, current_N[rows], next_N))
    current_N[rows] = next_N
  return _assemble(cost_M, order_M, start_N, events)


def thin(lam_path: LambdaPath, lams: np.ndarray) -> LambdaPath:
  """The points whose decisions hold at these prices, in order of λ."""
  at = np.searchsorted(lam_path.lam_P, np.asarray(lams), side='right') - 1
  kept = np.unique(at)
  return dataclasses.replace(
    lam_path,
    **{
      name: getattr(lam_path, name)[kept]
      for name in ('lam_P', 'cost_P', 'share_PM', 'end_P')
    },
  )


def deal(lam_path: LambdaPath, order_N: np.ndarray) -> LambdaPath:
  """The same decisions dealt to other prompts: n's go to order_N[n]."""
  start_N = np.empty_like(lam_path.start_N)
  start_N[order_N] = lam_path.start_N
  return dataclasses.replace(
    lam_path, start_N=start_N, event_prompt=order_N[lam_path.event_prompt]
  )


def inner_prices(lam_P: np.ndarray) -> np.ndarray:
  """A price well inside each point's range, out of reach of rounding.

  Decisions hold from one λ up to the next, so that is the middle. The last
  point is the cheapest arm, whatever the prediction: an infinite price.
  """
  inner_P = np.append((lam_P[:-1] + lam_P[1:]) / 2, np.inf)
  inner_P[0] = 0.0
  return inner_P


def by_cost(cost_M: np.ndarray) -> np.ndarray:
  """Arms from cheap to dear, equal costs in order of index."""
  return np.argsort(cost_M, kind='stable')


def choose(
  prediction_NM: np.ndarray, cost_M: np.ndarray, lam_N: np.ndarray
) -> np.ndarray:
  """choice_N at each prompt's own price, as (4.4), ties as in the path.

  An infinite price means: among the cheapest arms.
  """
  order_M = by_cost(cost_M)
  sorted_cost_M = np.asarray(cost_M, np.float64)[order_M]
  # Above the cheapest: the same argmax, and 0 x infinity does not arise.
  extra_M = sorted_cost_M - sorted_cost_M[0]
  score_NM = prediction_NM[:, order_M].astype(np.float64)
  dearer_M = extra_M > 0
  score_NM[:, dearer_M] -= np.multiply.outer(lam_N, extra_M[dearer_M])
  return order_M[np.argmax(score_NM, axis=1)]


def is_feasible(cost_P: np.ndarray, budget: float) -> bool:
  """Whether the cheapest point keeps to this mean cost."""
  return bool(_snap(cost_P, np.array([budget]))[0] >= cost_P[-1])


def mix_at(cost_P: np.ndarray, budget: float) -> Mix:
  """The lottery whose mean cost is min(budget, cost_P[0]).

  Raises UserError where the budget is infeasible, below the cheapest point.
  """
  asked, budget = budget, _snap(cost_P, np.array([budget]))[0]
  if budget < cost_P[-1]:
    raise errors.UserError(
      f'a budget of {asked:.6g} a prompt is infeasible: the cheapest arm '
      f'costs {cost_P[-1]:.6g}; give at least that.'
    )
  if budget >= cost_P[0]:
    return Mix(0, 0.0)
  point = int(np.searchsorted(-cost_P, -budget, side='right')) - 1
  if budget == cost_P[point]:
    return Mix(point, 0.0)
  gap = cost_P[point] - cost_P[point + 1]
  return Mix(point, float((cost_P[point] - budget) / gap))


def value_at(
  cost_P: np.ndarray, value_P: np.ndarray, budgets: np.ndarray
) -> np.ndarray:
  """Expected values of those lotteries; NaN where infeasible."""
  return np.interp(
    _snap(cost_P, budgets), cost_P[::-1], value_P[::-1], left=np.nan
  )


def mean_weights(cost_P: np.ndarray, lo: float, hi: float) -> np.ndarray:
  """weight_P: weight_P @ value_P is the mean of `value_at` over [lo, hi].

  Exact, since values are linear between points. Raises ValueError unless
  lo < hi, and `lo` is feasible.
  """
  if not (lo < hi and is_feasible(cost_P, lo)):
    raise ValueError(f'no mean over costs from {lo} to {hi}.')
  weight_P = np.zeros(len(cost_P))
  left, right = cost_P[1:], cost_P[:-1]
  start, end = np.clip(lo, left, right), np.clip(hi, left, right)
  toward = np.zeros(len(left))  # How near the dearer point, on average.
  np.divide(
    (start + end) / 2 - left, right - left, out=toward, where=right > left
  )
  weight_P[:-1] += (end - start) * toward
  weight_P[1:] += (end - start) * (1 - toward)
  weight_P[0] += max(hi - max(lo, cost_P[0]), 0.0)
  return weight_P / weight_P.sum()  # The width, but for what `_snap` snaps.


def _snap(cost_P: np.ndarray, budgets: np.ndarray) -> np.ndarray:
  """Budgets that miss the cheapest point by rounding alone, put on it."""
  near = abs(budgets - cost_P[-1]) <= 1e-9 * abs(cost_P[-1])
  return np.where(near, cost_P[-1], budgets)


def _assemble(
  cost_M: np.ndarray,
  order_M: np.ndarray,
  start_N: np.ndarray,
  events: list[tuple[np.ndarray, ...]],
) -> LambdaPath:
  """Sorts the switches by λ and sums what they change."""
  empty = [(np.zeros(0), *[np.zeros(0, np.intp)] * 3)]
  lam, prompt, source, target = (
    np.concatenate(parts) for parts in zip(*(events or empty), strict=True)
  )
  by_lam = np.argsort(lam, kind='stable')  # A prompt's own switches in order.
  lam, prompt = lam[by_lam], prompt[by_lam]
  source, target = order_M[source[by_lam]], order_M[target[by_lam]]
  start_N = order_M[start_N]
  last = np.append(lam[1:] != lam[:-1], True)[: len(lam)]
  ends = np.flatnonzero(last)
  end_P = np.concatenate([[0], ends + 1])
  # Whole numbers, so that the last point costs what the cheapest arm costs.
  count_PM = np.empty((len(end_P), len(cost_M)), np.int64)
  for m in range(len(cost_M)):
    change = (target == m).astype(np.int64) - (source == m)
    total = np.concatenate([[0], np.cumsum(change)])
    count_PM[:, m] = (start_N == m).sum() + total[end_P]
  share_PM = count_PM / len(start_N)
  return LambdaPath(
    lam_P=np.concatenate([[0.0], lam[ends]]),
    cost_P=share_PM @ cost_M,
    share_PM=share_PM,
    start_N=start_N,
    event_prompt=prompt,
    event_from=source,
    event_arm=target,
    end_P=end_P,
  )
