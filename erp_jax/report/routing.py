"""Routing, E9 to E11: regret against cost of every policy, and who wins."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.data import splits
from erp_jax.probe import records as records_lib
from erp_jax.report import document, experiment, routing_tables, words
from erp_jax.report import frontier as frontier_lib
from erp_jax.route import (
  baselines,
  bootstrap,
  evaluate,
  metrics,
  oracle_bias,
  refit,
  routing,
)
from erp_jax.route import split as split_lib


def build(
  records: Sequence[records_lib.Records],
  cfg: routing.RoutingConfig,
  common: experiment.ExperimentConfig,
) -> experiment.Result:
  """A section per records, a part of it per reward model."""

  def say(one: records_lib.Records) -> experiment.Part:
    if len(one.arms) < 2:
      return _one_arm(one)
    return experiment.Part(
      text=[_scope(one, common)],
      rewards={
        reward: (
          _section(one, reward, found, cfg),
          {
            'over_splits': found.over_splits,
            'first_split': found.first,
            'oracle': found.oracle,
            'refit': found.refit,
          },
        )
        for reward, found in _evaluate(one, cfg, common).items()
      },
    )

  return experiment.gather(records, say)


def _one_arm(records: records_lib.Records) -> experiment.Part:
  """What is said instead of numbers."""
  section = lambda reward: document.Section(
    title=f'Reward: {reward}',
    origin=records.origin,
    text=['One arm: there is nothing to route between.'],
  )
  return experiment.Part(
    text=[],
    rewards={reward: (section(reward), {}) for reward in records.rewards},
  )


def _evaluate(
  records: records_lib.Records,
  cfg: routing.RoutingConfig,
  common: experiment.ExperimentConfig,
) -> dict[str, routing_tables.Found]:
  """All splits of one table; fits are shared between its reward models."""
  values: dict[str, list] = {reward: [] for reward in records.rewards}
  first: dict[str, tuple] = {}
  for train_N in common.track(records, 'routing'):
    fitted = {
      policy: routing.predict(records, train_N, policy, common.ridge, cfg)
      for policy in cfg.policies
    }
    elsewhere = {}
    if cfg.calibrate == 'out_of_fold':
      elsewhere = {
        policy: routing.out_of_fold(records, train_N, policy, common.ridge, cfg)
        for policy in cfg.policies
      }
    for reward in records.rewards:
      split = split_lib.from_outcomes(
        records.outcomes(reward),
        train_N,
        fitted[routing.ERP][reward],
        cfg.cost_weight,
      )
      predictions = {
        policy: by_reward[reward][~train_N]
        for policy, by_reward in fitted.items()
      }
      curves = baselines.curves(
        split,
        cfg.curve,
        {p: v for p, v in predictions.items() if p != routing.ERP},
        {p: by_reward[reward] for p, by_reward in elsewhere.items()},
      )
      values[reward].append(
        routing.evaluate_split(split, curves, predictions, cfg)
      )
      first.setdefault(reward, (split, curves, train_N))
  result = {}
  for reward in records.rewards:
    split, curves, train_N = first[reward]
    er_NM = records.er_NM.get(reward)
    result[reward] = routing_tables.Found(
      over_splits=_over_splits(values[reward], splits.test_over_train(train_N)),
      first=bootstrap.bootstrap_intervals(split, curves, common.bootstrap),
      oracle=oracle_bias.intervals(
        split,
        {p: curves[p] for p in routing_tables.COMPARED if p in curves},
        records.reward_NKM[reward][~train_N],
        None if er_NM is None else er_NM[~train_N],
        cfg.shrinkage,
        common.bootstrap,
      ),
      refit=_refit(records, reward, split, train_N, cfg, common),
      split=split,
      num_splits=common.splits,
    )
  return result


def _over_splits(values: Sequence[dict], ratio: float) -> dict[str, Any]:
  """Leaves of all splits, and of each policy's difference to the mixture."""
  with_differences = []
  for value in values:
    static, static_area = (
      value['regret'][routing.STATIC],
      value[routing_tables.AREA],
    )
    difference = {
      policy: {
        **{b: _minus(regret[b], static[b]) for b in evaluate.BUDGETS},
        routing_tables.AREA: _minus(
          static_area[policy], static_area[routing.STATIC]
        ),
      }
      for policy, regret in value['regret'].items()
      if policy != routing.STATIC
    }
    with_differences.append(value | {'minus_static': difference})

  return metrics.merge(
    with_differences,
    lambda items: resample.split_corrected(
      np.array([resample.number(item) for item in items]), ratio
    ),
  )


def _minus(a: float | None, b: float | None) -> float | None:
  return None if a is None or b is None else a - b


def _refit(
  records: records_lib.Records,
  reward: str,
  split: split_lib.Split,
  train_N: np.ndarray,
  cfg: routing.RoutingConfig,
  common: experiment.ExperimentConfig,
) -> dict[str, Any]:
  """Intervals over training prompts too; empty without draws."""
  if not cfg.refit_draws:
    return {}
  return refit.refit_intervals(
    split,
    refit.ridge_fit(
      records.emb_NE[train_N],
      records.mean_NM(reward)[train_N],
      records.emb_NE[~train_N],
      common.ridge,
    ),
    resample.BootstrapConfig(
      num_draws=cfg.refit_draws, seed=common.bootstrap.seed
    ),
  )


def _scope(records, common) -> str:
  counts = [
    f'{what.replace("_", " ")} {words.count(number)}'
    for what, number in records.counts.items()
  ]
  return (
    f'{len(records.arms)} arms ({words.join(list(records.arms))}) on '
    f'{words.count(len(records.prompt_ids))} prompts; '
    f'{common.splits} random splits, {words.share(common.train_frac)} of each '
    f'category to train. {"; ".join(counts)}.'
  )


def _section(
  records: records_lib.Records,
  reward: str,
  found: routing_tables.Found,
  cfg: routing.RoutingConfig,
) -> document.Section:
  prefix = f'{records.name}-{reward}'
  policies = [
    p
    for p in (
      *routing_tables.COMPARED,
      *(f'same:{arm}' for arm in records.arms),
    )
    if p in found.over_splits['regret']
  ]
  names = {p: words.policy(p, {}) for p in found.over_splits['regret']}
  return document.Section(
    title=f'Reward: {reward}',
    origin=records.origin,
    tables=[
      routing_tables.budgets(prefix, found, policies, names),
      routing_tables.differences(prefix, found, policies, names),
      routing_tables.verdicts(prefix, found, names),
      *([routing_tables.refits(prefix, found, names)] if found.refit else []),
      routing_tables.oracle(prefix, found, names),
      routing_tables.benchmarks(prefix, found, names),
    ],
    figures=[
      document.Figure(
        f'{prefix}-frontier',
        frontier_lib.draw(_frontier(records, found, names)),
        'What more money buys: mean regret over splits of each policy at each '
        'mean cost; lower and further left is better. Shaded: one standard '
        'deviation over splits. Dots: points of ERP that no cheaper one beats. '
        f'{_hull_note(cfg)}Reward: {reward}.',
      )
    ],
  )


def _hull_note(cfg: routing.RoutingConfig) -> str:
  if cfg.frontier == 'hull':
    return 'Lines are convex hulls, chosen in hindsight by the test rewards. '
  return ''


def _frontier(records, found, names) -> frontier_lib.Frontier:
  leaves = found.over_splits['frontier']
  split = found.split
  column = lambda policy, key: np.array(
    [resample.number(leaf.get(key)) for leaf in leaves[policy]]
  )
  mean = {policy: column(policy, 'mean') for policy in leaves}
  own = [p for p in routing.POLICIES if p in leaves]
  cost = dict(zip(records.arms, split.cost_M.tolist(), strict=True))
  return frontier_lib.Frontier(
    cost_P=np.linspace(
      split.cost_M.min(), split.cost_M.max(), evaluate.NUM_FRACTIONS
    ),
    regret_P=mean,
    band_P={
      p: (mean[p] - column(p, 'sd'), mean[p] + column(p, 'sd'))
      for p in own
      if found.num_splits > 1
    },
    marked_P={'erp': frontier_lib.not_dominated(mean['erp'])},
    arms={
      f'Always {arm}': (cost[arm], float(mean[f'same:{arm}'][-1]))
      for arm in records.arms
    },
    random=(float(np.mean(split.cost_M)), float(mean['random'][-1])),
    names=names,
    cost_unit=records.cost_unit,
  )
