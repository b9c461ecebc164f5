"""metrics.json: mean and spread over splits, and the schema it keeps to."""

import functools
import importlib.resources
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jsonschema

_WHY_NULL = {
  'r2': {'reason': 'all rewards are equal, or there are fewer than two'},
  'auroc': {'reason': 'no prompt on which either model beats the other'},
  'regret_at_budget': {'feasible': False},
  'cost_at_budget': {'feasible': False},
  'frontier': {'feasible': False},
}


def aggregate(splits: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Every leaf of `evaluate.evaluate` over splits: {mean, sd, n_splits}.

  `n_splits` counts the splits where the number is defined, and mean and sd
  (n - 1; null for one split) are over those. Where it is defined in none, the
  mean is null and `reason`, or `feasible: false`, says why.
  """
  return {
    group: merge(
      [split[group] for split in splits],
      functools.partial(_leaf, why=_WHY_NULL.get(group, {})),
    )
    for group in splits[0]
  }


def validate_metrics(metrics: dict[str, Any]) -> None:
  """Raises jsonschema.ValidationError unless `metrics` keeps to the schema."""
  jsonschema.validate(metrics, schema(), jsonschema.Draft202012Validator)


def schema() -> dict[str, Any]:
  """The JSON Schema (2020-12) of metrics.json."""
  source = importlib.resources.files('erp_jax.route') / 'metrics.schema.json'
  return json.loads(source.read_text())


def merge(values: Sequence[Any], leaf: Callable[[list], Any]) -> Any:
  """`leaf` of what stands at each place of equal nestings.

  A category may be missing in a split.
  """
  if isinstance(values[0], dict):
    names = {name: None for value in values for name in value}
    return {
      name: merge([v[name] for v in values if name in v], leaf)
      for name in names
    }
  if isinstance(values[0], list):
    return [merge(items, leaf) for items in zip(*values, strict=True)]
  return leaf(list(values))


def _leaf(values: list[float | None], why: dict[str, Any]) -> dict[str, Any]:
  known = [value for value in values if value is not None]
  leaf = {
    'mean': statistics.fmean(known) if known else None,
    'sd': statistics.stdev(known) if len(known) > 1 else None,
    'n_splits': len(known),
  }
  return leaf if known else leaf | why
