"""Learning curves of records: the grid that fits, tables, metrics."""

import json
import math

import numpy as np
import pytest

from erp_jax.core import errors, resample
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge, scores
from erp_jax.report import experiment
from erp_jax.report import learning as report
from erp_jax.route import learning

_CFG = learning.LearningConfig(
  num_prompts=(15, 60), num_samples=(1, 4, 8), repeats=2
)


def _common():
  return experiment.ExperimentConfig(
    bootstrap=resample.BootstrapConfig(num_draws=100)
  )


def test_the_whole_training_set_is_the_ordinary_fit(make_records):
  records = make_records()
  result = report.build([records], _CFG, _common())
  found = result.metrics['made']['first']
  assert found['num_prompts'] == [15, 60] and found['num_samples'] == [1, 4]
  train_N = next(_common().masks(records))
  predicted = records_lib.predict_rewards(
    records, train_N, ridge.RidgeConfig()
  )['first'][~train_N]
  truth_NM = records.er_NM['first'][~train_N]
  r2 = np.mean([scores.r2(truth_NM[:, m], predicted[:, m]) for m in range(3)])
  assert found['r2']['mean'][1][1] == pytest.approx(r2)
  assert found['r2']['se'][1][1] == pytest.approx(0, abs=1e-9)
  json.dumps(result.metrics, allow_nan=False)


def test_what_does_not_fit_the_grid_is_said(make_records):
  result = report.build([make_records()], _CFG, _common())
  assert 'too few for K = 8' in result.sections[0].text[0]
  cfg = learning.LearningConfig(num_prompts=(1000,), num_samples=(1,))
  with pytest.raises(errors.UserError, match='60 training prompts'):
    report.build([make_records()], cfg, _common())


def test_tables_hold_the_grid_and_the_best_cells(make_records):
  result = report.build([make_records()], _CFG, _common())
  section = result.sections[0].sections[0]
  tables = {table.kind: table for table in section.tables}
  assert set(tables) == {
    f'made-first-{kind}' for kind in ('r2', 'contrast-r2', 'saved', 'best')
  }
  grid = tables['made-first-r2']
  assert grid.head == ['Prompts N', 'K = 1', 'K = 4']
  value = result.metrics['made']['first']['r2']['mean']
  assert grid.rows[0][2].value == pytest.approx(value[0][1])
  best = tables['made-first-best']
  assert {row[0].text for row in best.rows} == {'60'}  # 15 × 4 and 60 × 1.
  assert not any(math.isnan(row[3].value) for row in best.rows)
