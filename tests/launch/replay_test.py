"""Replay of real recorded outcomes agrees with an independent script.

Its figures, and how they were made: tests/route/independent_figures.json.
"""

import json
import pathlib
import shutil

import jsonschema
import numpy as np
import pytest

from erp_jax.data import outcomes
from erp_jax.route import metrics as metrics_lib

_FIGURES = json.loads(
  (
    pathlib.Path(__file__).parents[1] / 'route' / 'independent_figures.json'
  ).read_text()
)
_BUDGETS = ('0.25', '0.5', '0.75', '1.0')


def _replay(launch, shared_data, workdir, case, *flags):
  """Runs the binary as a user would, and returns its metrics."""
  done = launch(
    'replay',
    '--config=configs/replay.py',
    f'--workdir={workdir}',
    f'--outcomes={shared_data / case["outcomes"]}',
    f'--models={",".join(case["models"])}',
    f'--costs={",".join(map(str, case["costs"]))}',
    f'--category_column={case["category_column"]}',
    '--config.embed.max_tokens=128',  # As the independent script.
    *flags,
  )
  assert done.returncode == 0, done.stderr
  metrics = json.loads((workdir / 'metrics.json').read_text())
  metrics_lib.validate_metrics(metrics)
  return metrics


def _at_budgets(metrics, policy):
  found = metrics['regret_at_budget'][policy]
  return [found[budget]['mean'] for budget in _BUDGETS]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['zeroeval', 'mmlu_pro'])
def test_agrees_with_the_independent_figures(
  name, launch, shared_data, tmp_path
):
  case = _FIGURES[name]
  expected = case['regret_at_budget']
  # 12 032 prompts of MMLU-Pro are five minutes in float32.
  flags = ['--config.embed.dtype=bfloat16'] if name == 'mmlu_pro' else []
  metrics = _replay(launch, shared_data, tmp_path / 'beta1', case, *flags)
  # The second penalty needs no second embedding.
  shutil.copytree(tmp_path / 'beta1/embeddings', tmp_path / 'loo/embeddings')
  loo = _replay(
    *(launch, shared_data, tmp_path / 'loo', case, *flags),
    '--config.ridge.selection=leave_one_out',
  )
  for policy in ('static_mixture', 'erp', 'per_category'):
    np.testing.assert_allclose(
      _at_budgets(metrics, policy), expected[policy], atol=case['tolerance']
    )
  np.testing.assert_allclose(
    _at_budgets(loo, 'erp'),
    expected['erp_leave_one_out'],
    atol=case['tolerance'],
  )
  share = 1 / len(case['models'])
  random = metrics['frontier']['random'][100]['mean']
  singles = [
    metrics['frontier'][f'same:{model}'][100]['mean']
    for model in case['models']
  ]
  np.testing.assert_allclose(random, share * sum(singles), atol=1e-9)


@pytest.mark.slow
def test_the_packaged_records_replay_with_their_own_costs(
  launch, paretobandit_dir, tmp_path
):
  """Only five splits; mean rewards and costs as counted from the records."""
  models = (
    'meta-llama/llama-3.1-8b-instruct',
    'mistralai/mistral-large-2512',
    'google/gemini-2.5-pro',
  )
  done = launch(
    'replay',
    '--config=configs/replay.py',
    f'--workdir={tmp_path}',
    '--outcomes=package:paretobandit',
    f'--models={",".join(models)}',
    '--config.splits=5',
    '--config.embed.max_tokens=32',  # What is checked needs no better.
  )
  assert done.returncode == 0, done.stderr
  metrics = json.loads((tmp_path / 'metrics.json').read_text())
  about = json.loads((tmp_path / 'about.json').read_text())
  assert about['cost_source'] == 'recorded' and about['cost_unit'] == 'USD'
  table = outcomes.load(tmp_path / 'outcomes.parquet', models)
  assert len(table.prompt_ids) == 3609
  best_NM = table.reward_NM.max(axis=1, keepdims=True)
  regret_M = (best_NM - table.reward_NM).mean(axis=0)
  for m, model in enumerate(models):
    leaf = metrics['frontier'][f'same:{model}'][100]
    np.testing.assert_allclose(leaf['mean'], regret_M[m], atol=0.004)
    mean_cost = np.nanmean(table.cost_NM[:, m])
    np.testing.assert_allclose(about['costs'][model], mean_cost, rtol=0.1)


def test_the_schema_refuses_what_is_not_a_leaf():
  leaf = {'mean': 0.1, 'sd': None, 'n_splits': 1}
  by_budget = dict.fromkeys(_BUDGETS, leaf)
  policies = ('erp', 'static_mixture', 'random', 'permuted', 'per_category')
  good = {
    'r2': {'a': {'aggregate': leaf, 'by_category': {'c': leaf}}},
    'auroc': {},
    'regret_at_budget': dict.fromkeys(policies, by_budget),
    'cost_at_budget': dict.fromkeys(policies, by_budget),
    'frontier': dict.fromkeys(policies, [leaf] * 101),
    'win_share': {},
  }
  metrics_lib.validate_metrics(good)
  for broken in (
    good | {'r2': {'a': {'aggregate': 0.1, 'by_category': {'c': leaf}}}},
    good | {'frontier': dict.fromkeys(policies, [leaf] * 100)},
    good | {'extra': {}},
    {k: v for k, v in good.items() if k != 'auroc'},
  ):
    with pytest.raises(jsonschema.ValidationError):
      metrics_lib.validate_metrics(broken)
