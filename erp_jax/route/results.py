"""The four files of an evaluation: over split seeds, and of its first split."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from erp_jax.core import resample, store
from erp_jax.data import outcomes
from erp_jax.route import baselines, bootstrap, evaluate, metrics
from erp_jax.route import split as split_lib


class SplitResult(NamedTuple):
  """One split of a table of outcomes, and what probes say of its prompts."""

  seed: int
  train_N: np.ndarray
  prediction_NM: np.ndarray


def files(
  table: outcomes.Outcomes,
  cost_unit: str,
  splits: Iterable[SplitResult],
  cfg: resample.BootstrapConfig,
) -> dict[str, bytes]:
  """Contents by file name.

  metrics.json: leaves {mean, sd, n_splits}, as the package's schema says.
  intervals.json: bootstrap intervals {mean, lo, hi} on the first split.
  breakpoints.parquet: every policy's path on every split.
  predictions.parquet: rewards and predictions of the first split, long.
  about.json: models, their costs, cost unit, seeds, counts.
  """
  evaluated, paths = [], []
  first: SplitResult | None = None
  for result in splits:
    split = split_lib.from_outcomes(table, result.train_N, result.prediction_NM)
    curves = baselines.curves(split)
    evaluated.append(evaluate.evaluate(split, curves))
    paths.append((result.seed, evaluate.breakpoints(curves)))
    if first is None:
      first = result
      intervals = bootstrap.bootstrap_intervals(split, curves, cfg)
  merged = metrics.aggregate(evaluated)
  metrics.validate_metrics(merged)
  cost_M = table.mean_cost_M(first.train_N)
  about = {
    'models': list(table.models),
    'costs': dict(zip(table.models, cost_M.tolist(), strict=True)),
    'cost_source': table.cost_source,
    'cost_unit': cost_unit,
    'reward_kind': table.reward_kind,
    'seeds': [seed for seed, _ in paths],
    'bootstrap': dataclasses.asdict(cfg),
    'counts': {
      **table.counts,
      'train': int(first.train_N.sum()),
      'test': int((~first.train_N).sum()),
    },
  }
  return {
    'metrics.json': store.json_bytes(merged),
    'intervals.json': store.json_bytes(intervals),
    'breakpoints.parquet': store.parquet_bytes(_paths_table(paths)),
    'predictions.parquet': store.parquet_bytes(_predictions(table, first)),
    'about.json': store.json_bytes(about),
  }


def _paths_table(paths: list[tuple[int, dict[str, Any]]]) -> pa.Table:
  return pa.concat_tables(
    pa.table({'seed': np.full(len(columns['lam']), seed), **columns})
    for seed, columns in paths
  )


def _predictions(table: outcomes.Outcomes, result: SplitResult) -> pa.Table:
  """One row per prompt and arm, by prompt; a missing reward is null."""
  num_arms = len(table.models)
  reward = table.reward_NM.ravel()
  return pa.table(
    {
      'prompt_id': np.repeat(table.prompt_ids, num_arms),
      'category': np.repeat(table.category_N, num_arms),
      'split': np.repeat(np.where(result.train_N, 'train', 'test'), num_arms),
      'arm': np.tile(table.models, len(table.prompt_ids)),
      'reward': pa.array(reward, mask=np.isnan(reward)),
      'prediction': result.prediction_NM.ravel(),
    }
  )
