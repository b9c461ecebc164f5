import copy
import json

import jsonschema
import numpy as np
import pytest

from erp_jax.route import baselines, evaluate, metrics


@pytest.fixture
def splits(make_split):
  made = [make_split(seed) for seed in range(3)]
  return [evaluate.evaluate(s, baselines.curves(s)) for s in made]


def test_leaves_are_mean_and_spread_over_splits(splits):
  merged = metrics.aggregate(splits)
  values = [s['regret_at_budget']['erp']['0.5'] for s in splits]
  leaf = merged['regret_at_budget']['erp']['0.5']
  assert leaf['mean'] == pytest.approx(np.mean(values))
  assert leaf['sd'] == pytest.approx(np.std(values, ddof=1))
  assert leaf['n_splits'] == 3
  assert merged['frontier']['erp'][37]['mean'] == pytest.approx(
    np.mean([s['frontier']['erp'][37] for s in splits])
  )


def test_splits_without_a_value_are_left_out_and_counted(splits):
  for i, value in enumerate([0.2, None, 0.4]):
    splits[i]['regret_at_budget']['random']['0.5'] = value
    splits[i]['regret_at_budget']['random']['0.25'] = None
  merged = metrics.aggregate(splits)['regret_at_budget']['random']
  assert merged['0.5'] == {
    'mean': pytest.approx(0.3),
    'sd': pytest.approx(0.02**0.5),
    'n_splits': 2,
  }
  assert merged['0.25'] == {
    'mean': None,
    'sd': None,
    'n_splits': 0,
    'feasible': False,
  }


def test_one_split_has_no_spread(splits):
  leaf = metrics.aggregate(splits[:1])['r2']['w']['aggregate']
  assert leaf['sd'] is None and leaf['n_splits'] == 1


def test_what_aggregate_makes_keeps_to_the_schema(splits):
  jsonschema.Draft202012Validator.check_schema(metrics.schema())
  merged = metrics.aggregate(splits)
  metrics.validate_metrics(merged)
  metrics.validate_metrics(json.loads(json.dumps(merged, allow_nan=False)))


def _spoil(merged, *keys, value):
  merged = copy.deepcopy(merged)
  inner = merged
  for key in keys[:-1]:
    inner = inner[key]
  if value is KeyError:
    del inner[keys[-1]]
  else:
    inner[keys[-1]] = value
  return merged


@pytest.mark.parametrize(
  ('keys', 'value'),
  [
    (('r2',), KeyError),
    (('regret_at_budget', 'erp'), KeyError),
    (('regret_at_budget', 'erp', '0.25'), KeyError),
    (('regret_at_budget', 'erpp'), {}),
    (('frontier', 'erp', 4), 0.5),
    (('frontier', 'erp'), []),
    (('r2', 'w', 'aggregate', 'mean'), 'high'),
    (('r2', 'w', 'aggregate', 'mean'), None),
    (('r2', 'w', 'aggregate', 'sd'), -1.0),
    (('r2', 'w', 'aggregate', 'feasible'), False),
    (('auroc', 'w|x', 'tied_share'), KeyError),
    (('auroc', 'w'), {}),
    (('win_share', 'w', 'aggregate', 'true'), KeyError),
    (('extra',), {}),
  ],
)
def test_the_schema_finds_faults(splits, keys, value):
  merged = metrics.aggregate(splits)
  with pytest.raises(jsonschema.ValidationError):
    metrics.validate_metrics(_spoil(merged, *keys, value=value))
