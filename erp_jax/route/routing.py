"""Routing on one split: fit every policy, and all that its curves say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from erp_jax.core import errors, resample
from erp_jax.probe import factor
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.probe import zooter as zooter_lib
from erp_jax.route import baselines, benchmarks, contributions, evaluate, path
from erp_jax.route import curve as curve_lib
from erp_jax.route import guarded as guarded_lib
from erp_jax.route import split as split_lib

ERP, LOO, GUARDED, ZOOTER = 'erp', 'erp_loo', 'erp_guarded', 'zooter'
POLICIES = (ERP, LOO, GUARDED, ZOOTER)
STATIC = 'static_mixture'
_CPT_FRACS = {'cpt50': 0.5, 'cpt80': 0.8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingConfig:
  """Policies of E9 to E11, and the switches of PAPER.md 9 to 12b and 17."""

  # Fitted beside the baselines, which are always there. `erp` is the paper's
  # and must be one of them; `permuted` deals out its decisions.
  policies: tuple[str, ...] = POLICIES
  curve: baselines.CurveConfig = baselines.CurveConfig()
  # λ and lottery of a budget come from predictions for the 'test' prompts, or
  # 'out_of_fold' ones for the training prompts.
  calibrate: str = 'test'
  folds: int = 5  # Of training prompts, for 'out_of_fold'.
  # The drawn frontier: a 'polyline' through the points, or their convex 'hull'
  # (in hindsight: it is chosen by the test rewards).
  frontier: str = 'polyline'
  # Reward that a unit of cost takes away from the value regret is measured in;
  # 0 is the paper's regret, which leaves cost out.
  cost_weight: float = 0.0
  # Beside plug-in and split-half: regret against the best shrunken mean.
  shrinkage: bool = False
  # Draws of the interval that fits `erp` again on resampled training prompts,
  # on the first split; 0 leaves it out.
  refit_draws: int = 100
  zooter: zooter_lib.ZooterConfig = zooter_lib.ZooterConfig()
  guarded: guarded_lib.GuardedConfig = guarded_lib.GuardedConfig()

  def __post_init__(self):
    unknown = [name for name in self.policies if name not in POLICIES]
    if unknown or ERP not in self.policies:
      raise errors.UserError(
        f'routing.policies is {self.policies}; allowed: {", ".join(POLICIES)}, '
        f'{ERP} always among them.'
      )
    for name, allowed in (
      ('calibrate', ('test', 'out_of_fold')),
      ('frontier', ('polyline', 'hull')),
    ):
      errors.check_choice(f'routing.{name}', getattr(self, name), allowed)
    errors.check_least('routing.folds', self.folds, 2)
    if self.refit_draws and self.refit_draws < 100:
      raise errors.UserError(
        f'routing.refit_draws must be 0 or >= 100, got {self.refit_draws}.'
      )
    if not (np.isfinite(self.cost_weight) and self.cost_weight >= 0):
      raise errors.UserError(
        f'routing.cost_weight must be >= 0, got {self.cost_weight}.'
      )


def predict(
  records: records_lib.Records,
  train_N: np.ndarray,
  policy: str,
  ridge: ridge_lib.RidgeConfig,
  cfg: RoutingConfig,
) -> dict[str, np.ndarray]:
  """prediction_NM of every prompt by reward model, from training prompts alone.

  One ridge for all reward models; the others see one reward model at a time.
  """
  if policy in (ERP, LOO):
    if policy == LOO:
      ridge = dataclasses.replace(ridge, selection='leave_one_out')
    return records_lib.predict_rewards(records, train_N, ridge)
  if policy == GUARDED:
    return _guarded(records, train_N, cfg)
  return {
    reward: _zooter(records, train_N, reward, cfg) for reward in records.rewards
  }


def out_of_fold(
  records: records_lib.Records,
  train_N: np.ndarray,
  policy: str,
  ridge: ridge_lib.RidgeConfig,
  cfg: RoutingConfig,
) -> dict[str, np.ndarray]:
  """prediction_NM of the training prompts, each by a fit without its fold."""
  rows = np.flatnonzero(train_N)
  fold_N = np.random.default_rng(0).permutation(len(rows)) % cfg.folds
  result = {
    reward: np.empty((len(rows), len(records.arms)))
    for reward in records.rewards
  }
  for fold in range(cfg.folds):
    kept_N = train_N.copy()
    kept_N[rows[fold_N == fold]] = False
    fitted = predict(records, kept_N, policy, ridge, cfg)
    for reward, prediction_NM in fitted.items():
      result[reward][fold_N == fold] = prediction_NM[rows[fold_N == fold]]
  return result


def evaluate_split(
  split: split_lib.Split,
  curves: Mapping[str, curve_lib.Curve],
  predictions: Mapping[str, np.ndarray],
  cfg: RoutingConfig,
) -> dict[str, Any]:
  """Numbers of one split, None where undefined or infeasible.

  `predictions` are the policies' own, of the test prompts, `erp`'s among them.
  regret, spent: by policy and budget. area: by policy, mean regret over budgets
  from the cheapest arm's cost to the best single arm's. frontier: by policy, at
  equal steps of cost. benchmarks: by policy and metric.
  """
  evaluated = evaluate.evaluate(split, curves)
  frontier = evaluated['frontier']
  if cfg.frontier == 'hull':
    frontier = {name: _hull(split, curve) for name, curve in curves.items()}
  areas = contributions.areas(split, curves)
  return {
    'regret': evaluated['regret_at_budget'],
    'spent': evaluated['cost_at_budget'],
    'area': {
      name: float(areas[name].mean()) if name in areas else None
      for name in curves
    },
    'frontier': frontier,
    'benchmarks': {
      name: _benchmarks(split, curve, predictions.get(name))
      for name, curve in curves.items()
      if not name.startswith('same:')
    },
  }


def weak_and_strong(split: split_lib.Split) -> tuple[int, int]:
  """RouteLLM's two arms: the cheapest, and the best single one."""
  return int(path.by_cost(split.cost_M)[0]), split.best_arm


def why_no_calls(split: split_lib.Split) -> str:
  """Why there are no weak and strong arm; empty if there are."""
  weak, strong = weak_and_strong(split)
  if weak == strong:
    return 'the cheapest arm is the best single one: there is nothing to call'
  return ''


def _benchmarks(
  split: split_lib.Split,
  curve: curve_lib.Curve,
  prediction_NM: np.ndarray | None,
) -> dict[str, float | None]:
  """AIQ, hypervolume; with predictions PGR, APGR, CPT between two arms."""
  cost_P, quality_P = curve.path.cost_P, -curve.regret_P
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  reference = -(split.value_NM.max(axis=1) - split.value_NM.mean(axis=1)).mean()
  found = {
    'aiq': benchmarks.aiq(cost_P, quality_P, lo, hi).value,
    'hypervolume': benchmarks.hypervolume(cost_P, quality_P, hi, reference),
  }
  if prediction_NM is not None and not why_no_calls(split):
    weak, strong = weak_and_strong(split)
    complete_N = split.complete_N
    calls = benchmarks.call_curve(
      (prediction_NM[:, strong] - prediction_NM[:, weak])[complete_N],
      split.reward_NM[complete_N, weak],
      split.reward_NM[complete_N, strong],
    )
    found['pgr50'] = benchmarks.pgr(calls, 0.5).value
    found['apgr'] = benchmarks.apgr(calls).value
    for name, frac in _CPT_FRACS.items():
      found[name] = benchmarks.cpt(calls, frac).value
  return {name: resample.defined(value) for name, value in found.items()}


def _hull(split: split_lib.Split, curve: curve_lib.Curve) -> list[float | None]:
  """Regret on the lower hull of a curve's points, flat beyond its best one."""
  cost_P, quality_P = benchmarks.upper_hull(curve.path.cost_P, -curve.regret_P)
  costs = np.linspace(
    split.cost_M.min(), split.cost_M.max(), evaluate.NUM_FRACTIONS
  )
  feasible = costs >= cost_P[0] * (1 - 1e-9)
  value = -np.interp(costs, cost_P, quality_P)
  return [
    float(v) if ok else None for v, ok in zip(value, feasible, strict=True)
  ]


def _guarded(
  records: records_lib.Records, train_N: np.ndarray, cfg: RoutingConfig
) -> dict[str, np.ndarray]:
  factorise = factor.factorise
  if len(records.rewards) > 1:
    factorise = factor.remember()
  result = {}
  for reward in records.rewards:
    table = records.outcomes(reward)
    fitted = guarded_lib.fit(
      records.emb_NE[train_N],
      table.reward_NM[train_N],
      table.mean_cost_M(train_N),
      cfg.guarded,
      records.category_N[train_N],
      factorise,
    )
    result[reward] = fitted.predict(records.emb_NE)
  return result


def _zooter(
  records: records_lib.Records,
  train_N: np.ndarray,
  reward: str,
  cfg: RoutingConfig,
) -> np.ndarray:
  ids = [records.prompt_ids[n] for n in np.flatnonzero(train_N)]
  fitted, _ = zooter_lib.fit(
    records.emb_NE[train_N],
    records.reward_NKM[reward][train_N],
    ids,
    cfg.zooter,
    records.category_N[train_N],
  )
  return fitted.score(records.emb_NE)
