"""Every config builds, and every point of every sweep is another config."""

import importlib
import pathlib

import ml_collections
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import config, errors
from erp_jax.data import prompts
from erp_jax.report import paper
from launch import pipeline_config

_ROOT = pathlib.Path(__file__).parents[2]
_SWEPT = [
  file.stem
  for file in sorted((_ROOT / 'configs').glob('*.py'))
  if 'def get_sweep' in file.read_text()
]


def _overridden(values, overrides):
  """The config with 'dotted.name=value' set as a flag would."""
  for override in overrides:
    name, _, value = override.partition('=')
    node = values
    *path, last = name.split('.')
    for part in path:
      node = node[part]
    kind = type(node[last])
    node[last] = value == 'True' if kind is bool else kind(value)
  return values


@pytest.mark.parametrize('name', _SWEPT)
def test_every_point_of_a_sweep_is_a_config_of_its_own(name):
  module = importlib.import_module(f'configs.{name}')
  points = module.get_sweep()
  default = module.get_config()
  assert len(points) > 1
  seen = []
  for overrides in points:
    values = _overridden(module.get_config(), overrides)
    assert isinstance(values, ml_collections.ConfigDict)
    kind = {'simulate': pipeline_config.Simulate}
    config.build(kind.get(name, pipeline_config.Pipeline), values.to_dict())
    seen.append(values.to_json_best_effort())
  assert len(set(seen)) == len(points)
  assert any(point != default.to_json_best_effort() for point in seen)


def test_the_papers_sweep_is_there():
  assert {'mmlu_pro', 'perfectblend', 'recorded'} <= set(_SWEPT)


@pytest.mark.parametrize('arg', ['', 'simulated'])
def test_perfectblend(arg):
  values = importlib.import_module('configs.perfectblend').get_config(arg)
  cfg = config.build(pipeline_config.Pipeline, values.to_dict())
  assert cfg.experiments.origin == (arg or 'run')
  assert cfg.sample.k == cfg.experiments.simulation.k == 32
  assert {name: arm.nominal_b for name, arm in cfg.arms.items()} == {
    name: arm.nominal_b for name, arm in cfg.experiments.simulation.arms.items()
  }
  assert list(cfg.rewards) == list(cfg.experiments.simulation.rewards)
  assert cfg.prompts.limit_per_category == 1000


def test_perfectblend_reads_the_hubs_rows(tmp_path):
  """Columns and sources as the data set has them, first user turns as prompts.

  Its rows by source are facts of the data set: together they are all of it.
  """
  rows = {
    'meta-math/MetaMathQA': 386043,
    'openbmb/UltraInteract_sft': 272266,
    'mlabonne/ultrachat_200k_sft': 207865,
    'HuggingFaceH4/orca-math-word-problems-200k': 199707,
    'HuggingFaceH4/ultrafeedback_binarized': 125255,
    'theblackcat102/evol-codealpaca-v1': 111272,
    'Post-training-Data-Flywheel/AutoIF-instruct-61k': 61492,
    'mlabonne/lmsys-arena-human-preference-55k-sharegpt': 57009,
  }
  assert sum(rows.values()) == 1420909
  values = importlib.import_module('configs.perfectblend').get_config()
  values.prompts.path = str(tmp_path / 'perfectblend.parquet')
  cfg = config.build(pipeline_config.Pipeline, values.to_dict())
  turns = lambda *pairs: [{'from': a, 'value': b} for a, b in pairs]
  table = [
    {
      'conversations': turns(
        *(('system', 's'), ('human', f'{source} {i // 2}'), ('gpt', 'answer')),
        *(('human', 'and then?'), ('gpt', f'answer {i}')),
      ),
      'source': source,
    }
    for source in rows
    for i in range(4)
  ]
  pq.write_table(pa.Table.from_pylist(table), values.prompts.path)
  found = prompts.select(cfg.prompts)
  assert {(p.prompt, p.category) for p in found.prompts} == {
    (f'{source} {i}', category)
    for source, category in cfg.prompts.categories.items()
    for i in range(2)
    if category
  }
  assert set(cfg.prompts.categories) == set(rows)
  assert {p.category for p in found.prompts} == set(paper.CATEGORIES)


def test_perfectblend_refuses_another_argument():
  with pytest.raises(errors.UserError, match='perfectblend.py:real is unknown'):
    importlib.import_module('configs.perfectblend').get_config('real')


def test_recorded_tables_lie_in_the_folder_that_is_named():
  recorded = importlib.import_module('configs.recorded')
  assert list(recorded.get_config().replays) == ['paretobandit']
  replays = recorded.get_config('some/folder/').replays
  assert {
    replay.outcomes
    for replay in replays.values()
    if not replay.outcomes.startswith('package:')
  } == {
    'some/folder/zeroeval.parquet', 'some/folder/mmlu_pro.parquet',
    'some/folder/routellm.parquet',
  }  # fmt: skip
  assert {len(replay.models) for replay in replays.values()} == {2, 3, 4, 8}
