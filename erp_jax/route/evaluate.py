"""Numbers of one split: R², AUROC, regret and cost at budgets, win shares."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import scores
from erp_jax.route import curve as curve_lib
from erp_jax.route import path, winrates
from erp_jax.route import split as split_lib

# Shares of the best single arm's mean cost; the text is the key in the metrics.
BUDGETS = {'0.25': 0.25, '0.5': 0.5, '0.75': 0.75, '1.0': 1.0}
NUM_FRACTIONS = 101  # Of the way from the cheapest to the dearest arm.


def evaluate(
  split: split_lib.Split, curves: Mapping[str, curve_lib.Curve]
) -> dict[str, Any]:
  """Nested dict of floats, None where undefined or infeasible.

  `curves` are those of `baselines.curves`, or a selection.
  """
  return {
    'r2': _r2(split),
    'auroc': _auroc(split),
    'regret_at_budget': {
      name: _at_budgets(split, curve, curve.regret_P)
      for name, curve in curves.items()
    },
    'cost_at_budget': {
      name: _at_budgets(split, curve, curve.spent_P)
      for name, curve in curves.items()
    },
    'frontier': {
      name: _frontier(split, curve) for name, curve in curves.items()
    },
    'win_share': _win_share(split),
  }


def breakpoints(
  curves: Mapping[str, curve_lib.Curve],
) -> dict[str, np.ndarray]:
  """Every point of every curve, as columns of equal length for a table.

  `cost` is what decisions go by, `spent` what was realised.
  """
  columns = {
    'policy': [np.full(len(c.regret_P), name) for name, c in curves.items()],
    'lam': [c.path.lam_P for c in curves.values()],
    'cost': [c.path.cost_P for c in curves.values()],
    'spent': [c.spent_P for c in curves.values()],
    'predicted_reward': [c.predicted_P for c in curves.values()],
    'regret': [c.regret_P for c in curves.values()],
  }
  return {name: np.concatenate(parts) for name, parts in columns.items()}


def win_share(value_NM: np.ndarray) -> np.ndarray:
  """share_M: how often an arm has the highest value; m tied arms 1/m each."""
  return winrates.best(value_NM).mean(axis=0)


def _r2(split: split_lib.Split) -> dict[str, Any]:
  """R² per model, over all test prompts that have its reward."""
  rows = split_lib.category_rows(split.category_N)
  result = {}
  for m, name in enumerate(split.models):
    reward_N, prediction_N = split.reward_NM[:, m], split.prediction_NM[:, m]
    result[name] = {
      'aggregate': resample.defined(scores.r2(reward_N, prediction_N)),
      'by_category': {
        category: resample.defined(scores.r2(reward_N[r], prediction_N[r]))
        for category, r in rows.items()
      },
    }
  return result


def _auroc(split: split_lib.Split) -> dict[str, Any]:
  """Who wins, for each pair of models that answered; ties dropped, counted."""
  result = {}
  for a, b in itertools.combinations(range(len(split.models)), 2):
    margin_N = split.reward_NM[:, a] - split.reward_NM[:, b]
    score_N = split.prediction_NM[:, a] - split.prediction_NM[:, b]
    known_N = np.isfinite(margin_N)
    untied_N = known_N & (margin_N != 0)
    result[f'{split.models[a]}|{split.models[b]}'] = {
      'erp': resample.defined(
        scores.auroc(margin_N[untied_N] > 0, score_N[untied_N])
      ),
      'tied_share': float(1 - untied_N.sum() / known_N.sum()),
    }
  return result


def _at_budgets(
  split: split_lib.Split, curve: curve_lib.Curve, value_P: np.ndarray
) -> dict[str, float | None]:
  reference = split.cost_M[split.best_arm]
  return {
    key: resample.defined(curve.at(value_P, budget * reference))
    for key, budget in BUDGETS.items()
  }


def _frontier(
  split: split_lib.Split, curve: curve_lib.Curve
) -> list[float | None]:
  costs = np.linspace(split.cost_M.min(), split.cost_M.max(), NUM_FRACTIONS)
  value = path.value_at(curve.path.cost_P, curve.regret_P, costs)
  return [resample.defined(v) for v in value]


def _win_share(split: split_lib.Split) -> dict[str, Any]:
  """Win shares on complete test prompts, of rewards and of predictions."""
  truth_NM = split.reward_NM[split.complete_N]
  prediction_NM = split.prediction_NM[split.complete_N]
  rows = split_lib.category_rows(split.category_N[split.complete_N])
  result = {
    name: {'aggregate': {}, 'by_category': {category: {} for category in rows}}
    for name in split.models
  }
  for kind, value_NM in (('true', truth_NM), ('predicted', prediction_NM)):
    for name, share in zip(split.models, win_share(value_NM), strict=True):
      result[name]['aggregate'][kind] = float(share)
    for category, r in rows.items():
      share_M = win_share(value_NM[r])
      for name, share in zip(split.models, share_M, strict=True):
        result[name]['by_category'][category][kind] = float(share)
  return result
