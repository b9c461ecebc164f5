"""What each test prompt adds to a number, so that draws are counts @ columns.

Regrets are plug-in: against the best mean of the samples that there are.
"""

from collections.abc import Mapping

import numpy as np

from erp_jax.probe import scores
from erp_jax.route import curve as curve_lib
from erp_jax.route import evaluate
from erp_jax.route import split as split_lib


def regret_at_budgets(
  split: split_lib.Split,
  curves: Mapping[str, curve_lib.Curve],
  reference: float,
) -> dict[tuple[str, str], np.ndarray]:
  """regret_N of the complete prompts by (policy, budget), where feasible.

  Budgets are shares of the cost `reference`: the best single arm's.
  """
  return {
    (policy, key): regret(split, curve.share(budget * reference))
    for policy, curve in curves.items()
    for key, budget in evaluate.BUDGETS.items()
    if curve.is_feasible(budget * reference)
  }


def areas(
  split: split_lib.Split, curves: Mapping[str, curve_lib.Curve]
) -> dict[str, np.ndarray]:
  """regret_N of the complete prompts, averaged over budgets, by policy.

  Over budgets from the cheapest arm's cost to the best single arm's: the area
  under the frontier, over its width. Left out are policies that can't be had
  for the cheapest arm's cost, and all of them if the best arm is the cheapest.
  """
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  if not lo < hi:
    return {}
  return {
    policy: regret(split, curve.mean_share(lo, hi))
    for policy, curve in curves.items()
    if curve.is_feasible(lo)
  }


def regret(split: split_lib.Split, share_NM: np.ndarray) -> np.ndarray:
  """regret_N of the complete prompts at these probabilities of the arms."""
  value_NM = split.value_NM
  return value_NM.max(axis=1) - (share_NM * value_NM).sum(axis=1)


def r2_columns(
  split: split_lib.Split,
) -> tuple[np.ndarray, list[tuple[str, str | None]]]:
  """Columns of `scores.moment_columns`, and what each R² is of.

  That is a (model, category), None for the aggregate.
  """
  rows = {None: np.arange(len(split.category_N))}
  rows |= split_lib.category_rows(split.category_N)
  names = [(name, category) for name in split.models for category in rows]
  reward_NS = np.full((len(split.category_N), len(names)), np.nan)
  for s, (name, category) in enumerate(names):
    m = split.models.index(name)
    reward_NS[rows[category], s] = split.reward_NM[rows[category], m]
  prediction_NS = np.repeat(split.prediction_NM, len(rows), axis=1)
  return scores.moment_columns(reward_NS, prediction_NS)[0], names


def r2(sums_QS: np.ndarray) -> np.ndarray:
  """R² of each draw from its sums of `r2_columns`; NaN where undefined."""
  return scores.Moments.of_sums(sums_QS).r2()
