"""A policy's cost-regret curve along λ, and its lottery at a budget."""

import dataclasses

import numpy as np

from erp_jax.route import path


@dataclasses.dataclass(frozen=True)
class BlindPath:
  """Points of a policy that does not look at the prompt, dearest first.

  Attributes:
    lam_P: price at which each point is reached.
    cost_P: mean cost.
    share_PM: probability of each arm, the same for every prompt.
    num_prompts: how many prompts it is for.
  """

  lam_P: np.ndarray
  cost_P: np.ndarray
  share_PM: np.ndarray
  num_prompts: int

  def accumulate(self, value_NM: np.ndarray) -> np.ndarray:
    """Expected mean over prompts of the chosen arm's value, at every point."""
    return self.share_PM @ value_NM.mean(axis=0)

  def share(self, mix: path.Mix) -> np.ndarray:
    """share_NM, the probability of each arm for each prompt."""
    share_M = (1 - mix.next_frac) * self.share_PM[mix.point]
    if mix.next_frac:
      share_M = share_M + mix.next_frac * self.share_PM[mix.point + 1]
    return np.tile(share_M, (self.num_prompts, 1))

  def mean_share(self, weight_P: np.ndarray) -> np.ndarray:
    """share_NM, averaged over the points with these weights."""
    return np.tile(weight_P @ self.share_PM, (self.num_prompts, 1))


@dataclasses.dataclass(frozen=True)
class Curve:
  """A policy on the complete test prompts of a split, along λ.

  Attributes:
    path: its decisions.
    predicted_P: mean reward that the policy itself expects.
    regret_P: mean regret (4.2), against the best observed reward.
    spent_P: realised mean cost. path.cost_P is what decisions go by.
    calibration: the λ path of other prompts on which budgets are set; None sets
      them on `path` itself, whose predictions need no labels (PAPER.md 12b).
  """

  path: path.LambdaPath | BlindPath
  predicted_P: np.ndarray
  regret_P: np.ndarray
  spent_P: np.ndarray
  calibration: path.LambdaPath | None = None

  def is_feasible(self, budget: float) -> bool:
    """Whether the cheapest point of the calibration keeps to this mean cost."""
    return path.is_feasible((self.calibration or self.path).cost_P, budget)

  def lottery(self, budget: float) -> dict[int, float]:
    """{point of `path`: probability} at a budget in units of cost.

    Raises UserError where the budget is infeasible.
    """
    source = self.calibration or self.path
    mix = path.mix_at(source.cost_P, budget)
    found = {mix.point: 1 - mix.next_frac}
    if mix.next_frac:
      found[mix.point + 1] = mix.next_frac
    if self.calibration is None:
      return found
    lam_P = path.inner_prices(source.lam_P)
    moved: dict[int, float] = {}
    for point, prob in found.items():
      there = np.searchsorted(self.path.lam_P, lam_P[point], side='right') - 1
      moved[int(there)] = moved.get(int(there), 0.0) + prob
    return moved

  def at(self, value_P: np.ndarray, budget: float) -> float:
    """Expected value of a budget's lottery; NaN where it is infeasible."""
    if not self.is_feasible(budget):
      return float('nan')
    return float(
      sum(prob * value_P[p] for p, prob in self.lottery(budget).items())
    )

  def share(self, budget: float) -> np.ndarray:
    """share_NM at a feasible budget, the probability of each arm."""
    return sum(
      prob * self.path.share(path.Mix(point, 0.0))
      for point, prob in self.lottery(budget).items()
    )

  def mean_share(self, lo: float, hi: float) -> np.ndarray:
    """share_NM, averaged over all budgets from lo to hi, exactly."""
    source = self.calibration or self.path
    weight_P = path.mean_weights(source.cost_P, lo, hi)
    if self.calibration is not None:
      lam_P = path.inner_prices(source.lam_P)
      there = np.searchsorted(self.path.lam_P, lam_P, side='right') - 1
      weight_P = np.bincount(there, weight_P, minlength=len(self.path.lam_P))
    return self.path.mean_share(weight_P)
