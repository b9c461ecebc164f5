"""Bootstrap intervals over test prompts, for one fitted router.

The estimand is the population value for this router at this K: probe, λ and
lotteries stay as they are, the rewards are means of as many samples, regret is
against the best of such means (plug-in), and test prompts are drawn again. All
numbers of one draw use the same prompts, so differences are paired.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import pairwise, ranking
from erp_jax.route import contributions, evaluate
from erp_jax.route import curve as curve_lib
from erp_jax.route import split as split_lib

# Differences are taken of all pairs of these: the first minus the second.
COMPARED = (
  'erp',
  'erp_loo',
  'erp_guarded',
  'zooter',
  'static_mixture',
  'permuted',
  'random',
  'per_category',
)
_AREA = 'area'  # In the place of a budget.


def bootstrap_intervals(
  split: split_lib.Split,
  curves: Mapping[str, curve_lib.Curve],
  cfg: resample.BootstrapConfig,
  compared: Sequence[str] = COMPARED,
) -> dict[str, Any]:
  """{mean, lo, hi} by statistic, and of paired differences of policies.

  `r2` and `auroc` are nested as in `evaluate.evaluate`. `regret_at_budget` and
  `area` (of `contributions.areas`) are by policy; `paired` and `paired_area`
  are their differences 'a-b' for all pairs of `compared` in `curves`.

  `mean` is the value on the test prompts themselves. All three are None where
  it is undefined or infeasible. Draws in which a value is undefined (R² of
  equal rewards, AUROC without wins of both) are left out of its interval.
  """
  regrets = contributions.regret_at_budgets(
    split, curves, split.cost_M[split.best_arm]
  )
  regrets |= {
    (policy, _AREA): area_N
    for policy, area_N in contributions.areas(split, curves).items()
  }
  r2_columns, r2_names = contributions.r2_columns(split)
  columns = np.zeros((len(split.reward_NM), len(regrets) + 1))
  columns[split.complete_N, 0] = 1  # How many complete prompts a draw has.
  for i, regret_N in enumerate(regrets.values(), start=1):
    columns[split.complete_N, i] = regret_N
  values = np.concatenate([columns, r2_columns], axis=1)
  rankings = _rankings(split)
  sums, aurocs = [], []
  for counts_QN in itertools.chain(
    [np.ones((1, len(values)))],  # The test prompts themselves.
    resample.draw_counts(len(values), cfg),
  ):
    sums.append(counts_QN @ values)
    counts_NQ = np.ascontiguousarray(counts_QN.T)
    aurocs.append([ranking.aurocs(r, counts_NQ) for r in rankings.values()])
  sums_QS = np.concatenate(sums)
  with np.errstate(divide='ignore', invalid='ignore'):
    regret_QS = sums_QS[:, 1 : len(regrets) + 1] / sums_QS[:, :1]
  r2_QS = contributions.r2(sums_QS[:, len(regrets) + 1 :])
  auroc_Q = np.concatenate(aurocs, axis=1) if rankings else []
  draws = dict(zip(regrets, regret_QS.T, strict=True))
  pairs = [
    pair
    for pair in itertools.combinations(compared, 2)
    if all(policy in curves for policy in pair)
  ]

  def regret(policy, key):
    return _interval(draws.get((policy, key)))

  def difference(a, b, key):
    first_Q, second_Q = draws.get((a, key)), draws.get((b, key))
    if first_Q is None or second_Q is None:
      return resample.undefined()
    return _interval(first_Q - second_Q)

  return {
    'r2': _r2(split, dict(zip(r2_names, r2_QS.T, strict=True))),
    'auroc': {
      pair: {'erp': resample.share_interval(value_Q[0], value_Q[1:])}
      for pair, value_Q in zip(rankings, auroc_Q, strict=True)
    },
    'regret_at_budget': {
      policy: {budget: regret(policy, budget) for budget in evaluate.BUDGETS}
      for policy in curves
    },
    'area': {policy: regret(policy, _AREA) for policy in curves},
    'paired': {
      f'{a}-{b}': {
        budget: difference(a, b, budget) for budget in evaluate.BUDGETS
      }
      for a, b in pairs
    },
    'paired_area': {f'{a}-{b}': difference(a, b, _AREA) for a, b in pairs},
  }


def _rankings(split: split_lib.Split) -> dict[str, ranking.Ranking]:
  """ERP's margin against who wins, by pair of models as in `evaluate`."""
  wins = pairwise.count_wins(split.reward_NM[:, None], 'means')
  result = {}
  for index, (i, j) in enumerate(pairwise.arm_pairs(len(split.models))):
    result[f'{split.models[i]}|{split.models[j]}'] = ranking.rank(
      wins.win_NI[:, index],
      wins.loss_NI[:, index],
      split.prediction_NM[:, i] - split.prediction_NM[:, j],
    )
  return result


def _r2(
  split: split_lib.Split,
  draws: Mapping[tuple[str, str | None], np.ndarray],
) -> dict[str, Any]:
  result = {name: {'aggregate': {}, 'by_category': {}} for name in split.models}
  for (model, category), value_Q in draws.items():
    if category is None:
      result[model]['aggregate'] = _interval(value_Q)
    else:
      result[model]['by_category'][category] = _interval(value_Q)
  return result


def _interval(value_Q: np.ndarray | None) -> dict[str, float | None]:
  """Of draws, the first of which is the test prompts; None: infeasible."""
  if value_Q is None:
    return resample.undefined()
  return resample.interval(value_Q[0], value_Q[1:])
