"""Bootstrap intervals over test prompts, for one fitted router.

The estimand is the population value for this router: probe, λ and lotteries
stay as they are, and test prompts are drawn again. All numbers of one draw use
the same prompts, so differences are paired.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.route import baselines, evaluate, path
from erp_jax.route import split as split_lib

PAIRED = (('erp', 'static_mixture'),)


def bootstrap_intervals(
  split: split_lib.Split,
  curves: Mapping[str, baselines.Curve],
  cfg: resample.BootstrapConfig,
) -> dict[str, Any]:
  """{mean, lo, hi} for R², regret at budgets, and paired differences of regret.

  `mean` is the value on the test prompts themselves. All three are None where
  it is undefined or infeasible. Draws in which an R² is undefined (equal
  rewards) are left out of its interval.
  """
  complete = np.flatnonzero(split.complete_N)
  regrets = _regret_at_budgets(split, curves)
  moments, names = _moments(split)
  columns = np.zeros((len(split.reward_NM), len(regrets) + 1))
  columns[complete, 0] = 1  # How many complete prompts a draw has.
  for i, regret_N in enumerate(regrets.values(), start=1):
    columns[complete, i] = regret_N
  values = np.concatenate([columns, moments], axis=1)
  sums_QS = np.concatenate(
    [counts_QN @ values for counts_QN in resample.draw_counts(len(values), cfg)]
  )
  point_S = values.sum(axis=0)
  with np.errstate(divide='ignore', invalid='ignore'):
    regret_QS = sums_QS[:, 1 : len(regrets) + 1] / sums_QS[:, :1]
    r2_QS = _r2(sums_QS[:, len(regrets) + 1 :])
    r2_S = _r2(point_S[None, len(regrets) + 1 :])[0]
  regret_S = point_S[1 : len(regrets) + 1] / point_S[0]
  at = {key: i for i, key in enumerate(regrets)}

  def regret(policy, budget):
    i = at.get((policy, budget))
    return (
      resample.undefined()
      if i is None
      else resample.interval(regret_S[i], regret_QS[:, i])
    )

  def difference(a, b, budget):
    i, j = at.get((a, budget)), at.get((b, budget))
    if i is None or j is None:
      return resample.undefined()
    return resample.interval(
      regret_S[i] - regret_S[j], regret_QS[:, i] - regret_QS[:, j]
    )

  r2 = {
    name: {'aggregate': resample.undefined(), 'by_category': {}}
    for name in split.models
  }
  for i, (model, category) in enumerate(names):
    interval = resample.interval(r2_S[i], r2_QS[:, i])
    if category is None:
      r2[model]['aggregate'] = interval
    else:
      r2[model]['by_category'][category] = interval
  return {
    'r2': r2,
    'regret_at_budget': {
      policy: {budget: regret(policy, budget) for budget in evaluate.BUDGETS}
      for policy in curves
    },
    'paired': {
      f'{a}-{b}': {
        budget: difference(a, b, budget) for budget in evaluate.BUDGETS
      }
      for a, b in PAIRED
    },
  }


def _regret_at_budgets(
  split: split_lib.Split, curves: Mapping[str, baselines.Curve]
) -> dict[tuple[str, str], np.ndarray]:
  """regret_N of the complete prompts by (policy, budget), where feasible."""
  reward_NM = split.reward_NM[split.complete_N]
  best_N = reward_NM.max(axis=1)
  reference = split.cost_M[split.best_arm]
  result = {}
  for policy, curve in curves.items():
    for key, budget in evaluate.BUDGETS.items():
      if path.is_feasible(curve.path.cost_P, budget * reference):
        share_NM = curve.path.share(
          path.mix_at(curve.path.cost_P, budget * reference)
        )
        result[policy, key] = best_N - (share_NM * reward_NM).sum(axis=1)
  return result


def _moments(
  split: split_lib.Split,
) -> tuple[np.ndarray, list[tuple[str, str | None]]]:
  """Per R²: count, sum, sum of squares and squared errors, as 4 columns.

  And their (model, category), None for the aggregate.
  """
  rows = {None: np.arange(len(split.category_N))}
  rows |= split_lib.category_rows(split.category_N)
  columns, names = [], []
  for m, name in enumerate(split.models):
    for category, r in rows.items():
      r = r[np.isfinite(split.reward_NM[r, m])]
      part = np.zeros((len(split.category_N), 4))
      if len(r):
        reward_N = split.reward_NM[r, m]
        centred_N = reward_N - reward_N.mean()  # Digits; R² does not change.
        part[r, 0] = 1
        part[r, 1] = centred_N
        part[r, 2] = centred_N**2
        part[r, 3] = (reward_N - split.prediction_NM[r, m]) ** 2
      columns.append(part)
      names.append((name, category))
  return np.concatenate(columns, axis=1), names


def _r2(sums_QS: np.ndarray) -> np.ndarray:
  """R² of each draw from the sums of `_moments`; NaN where undefined."""
  count, first, second, error = (sums_QS[:, i::4] for i in range(4))
  spread = second - first**2 / count
  # Equal rewards leave rounding, not a variance.
  return 1 - error / np.where(spread > 1e-12 * second, spread, np.nan)
