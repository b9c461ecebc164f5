"""What an evaluation folder says, ready to be shown.

The live part writes such a folder per reward model, a replay writes one.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from etils import epath

from erp_jax.core import resample, store

ERP = 'erp'
STATIC = 'static_mixture'
RANDOM = 'random'
PERMUTED = 'permuted'
ORACLE = 'per_category'
SAME = 'same:'
_METRICS = 'metrics.json'
_INTERVALS = 'intervals.json'
_PREDICTIONS = 'predictions.parquet'
_ABOUT = 'about.json'


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation folder.

  Attributes:
    name: what a reader calls it: the reward model, or the replay's title.
    metrics: metrics.json: leaves {mean, sd, n_splits} over split seeds.
    intervals: intervals.json: leaves {mean, lo, hi}: value on the first split
      and its 95 % bootstrap interval over test prompts.
    predictions: columns of predictions.parquet, of the first split.
    about: about.json: models, costs, cost unit, split seeds, counts.
    names: what each model is called in tables and figures.
  """

  name: str
  metrics: Mapping[str, Any]
  intervals: Mapping[str, Any]
  predictions: Mapping[str, np.ndarray]
  about: Mapping[str, Any]
  names: Mapping[str, str]

  @property
  def models(self) -> list[str]:
    return list(self.about['models'])

  @property
  def costs(self) -> dict[str, float]:
    """Mean cost per prompt of each model, in `cost_unit`."""
    return dict(self.about['costs'])

  @property
  def categories(self) -> list[str]:
    return sorted(set(self.predictions['category'].tolist()))

  @property
  def policies(self) -> list[str]:
    """Those that were evaluated: ERP first, the oracle last."""
    found = self.metrics.get('regret_at_budget', {})
    order = [ERP, STATIC, PERMUTED, RANDOM]
    order += [SAME + model for model in self.models] + [ORACLE]
    return [policy for policy in order if policy in found]

  @property
  def cost_unit(self) -> str:
    return self.about['cost_unit']

  @property
  def seeds(self) -> list[int]:
    return list(self.about['seeds'])

  @property
  def num_splits(self) -> int:
    return len(self.seeds)

  def frontier(self, policy: str) -> np.ndarray:
    """Regret at equal cost fractions, cheapest to dearest arm; NaN: none."""
    return np.array(
      [
        resample.number(leaf['mean'])
        for leaf in self.metrics['frontier'][policy]
      ]
    )

  def point(self, policy: str) -> tuple[float, float]:
    """(mean cost, regret) of a policy with one cost: same:MODEL or random."""
    costs = self.costs
    if policy.startswith(SAME):
      cost = costs[policy.removeprefix(SAME)]
    else:
      cost = float(np.mean(list(costs.values())))
    return cost, float(self.frontier(policy)[-1])

  def win_share(self, category: str, model: str, kind: str) -> float:
    """Share of test prompts on which `model` is best: 'true' or 'predicted'."""
    return self.mean('win_share', model, 'by_category', category, kind)

  def mean(self, *keys: str) -> float:
    """Mean over splits of a leaf of the metrics; NaN where undefined."""
    return _number(self.metrics, keys, 'mean')

  def splits_with(self, *keys: str) -> int:
    """In how many splits a leaf of the metrics is defined."""
    return int(_number(self.metrics, keys, 'n_splits'))

  def interval(self, *keys: str) -> tuple[float, float, float]:
    """(mean, lo, hi) of a leaf of the intervals; NaN where undefined."""
    mean, lo, hi = (
      _number(self.intervals, keys, last) for last in ('mean', 'lo', 'hi')
    )
    return mean, lo, hi

  def num_prompts(self, split: str) -> int:
    """Prompts of the first split's half: 'train' or 'test'."""
    ids = self.predictions['prompt_id'][self.predictions['split'] == split]
    return len(set(ids.tolist()))


def load(folder: epath.PathLike, name: str) -> Evaluation:
  """Reads an evaluation folder; UserError unless it is complete, unaltered."""
  read = lambda file: store.read_file(folder, file)
  about = json.loads(read(_ABOUT))
  table = pq.read_table(io.BytesIO(read(_PREDICTIONS)))
  return Evaluation(
    name=name,
    metrics=json.loads(read(_METRICS)),
    intervals=json.loads(read(_INTERVALS)),
    predictions={
      column: table[column].to_numpy(zero_copy_only=False)
      for column in table.column_names
    },
    about=about,
    names=_short_names(about['models']),
  )


def _number(tree: Mapping[str, Any], keys: tuple[str, ...], last: str) -> float:
  for key in keys:
    tree = tree.get(key, {})
  return float(resample.number(tree.get(last)))


def _short_names(models: list[str]) -> dict[str, str]:
  """Without the owner, where that still tells the models apart."""
  short = [model.rsplit('/', 1)[-1] for model in models]
  unique = len(set(short)) == len(short)
  return dict(zip(models, short if unique else models, strict=True))
