import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import prompts
from erp_jax.probe import rewards as rewards_lib
from erp_jax.score import imported, rewards

_PROMPTS = tuple(prompts.Prompt(name, f'ask {name}', 'x') for name in 'abc')
_IDS = ['a', 'b', 'c']
_ROWS = [
  {'prompt_id': 'c', 'k': 1, 'reward': 4.0, 'cost': 1.0},
  {'prompt_id': 'c', 'k': 0, 'reward': 1.5, 'cost': 2.0},
  {'prompt_id': 'a', 'k': 0, 'reward': -2.0, 'cost': 5.0},
]
_PROVENANCE = {'versions': {}, 'revision': '', 'machine': {}}


def _write(path, rows):
  if path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(rows), path)
  else:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def _run(tmp_path, rows, cost=math.nan, name='table.jsonl'):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path / 'run'), _PROVENANCE)
  path = _write(tmp_path / name, rows)
  cfg = rewards.RewardConfig(kind='verify')
  imported.run(workdir, 'verify', cfg, 'new', _PROMPTS, path, cost)
  return workdir.path


@pytest.mark.parametrize('name', ['table.jsonl', 'table.parquet'])
def test_rewards_and_costs_are_read_back(name, tmp_path):
  run = _run(tmp_path, _ROWS, name=name)
  target = rewards_lib.read(run, 'verify', ['new'], _IDS)
  np.testing.assert_array_equal(target.mean_NM[:, 0], [-2, np.nan, 2.75])
  cost_N = imported.read_cost(run, 'verify', 'new', _IDS)
  np.testing.assert_array_equal(cost_N, [5, np.nan, 1.5])
  identity = store.read_manifest(run / 'rewards/verify/new')['identity']
  assert identity['stage'] == 'import'
  assert identity['imported'] == {
    'sha256': store.sha256(epath.Path(tmp_path / name)),
    'cost': 'its column',
  }


def test_rows_without_k_are_counted_and_nulls_leave_the_mean(tmp_path):
  rows = [
    {'prompt_id': 'a', 'reward': 1},
    {'prompt_id': 'a', 'reward': None},
    {'prompt_id': 'a', 'reward': 4},
  ]
  run = _run(tmp_path, rows, cost=8.0)
  table = store.read_table(run / 'rewards/verify/new')
  assert table['k'].to_pylist() == [0, 1, 2]
  target = rewards_lib.read(run, 'verify', ['new'], _IDS)
  assert target.mean_NM[0, 0] == 2.5
  assert target.num_not_finite_M[0] == 1
  cost_N = imported.read_cost(run, 'verify', 'new', _IDS)
  np.testing.assert_array_equal(cost_N, [8, np.nan, np.nan])


def test_the_same_table_is_not_read_in_twice_and_another_is_refused(tmp_path):
  run = _run(tmp_path, _ROWS)
  shard = next((run / 'rewards/verify/new').glob('*.parquet'))
  before = shard.stat().mtime
  _run(tmp_path, _ROWS)
  assert shard.stat().mtime == before
  with pytest.raises(errors.UserError, match='imported.sha256'):
    _run(tmp_path, _ROWS[:2])


@pytest.mark.parametrize(
  'change, cost, expected',
  [
    ({'prompt_id': 'd'}, math.nan, "'d', which is no prompt of this run"),
    ({'prompt_id': None}, math.nan, 'None, which is no prompt of this run'),
    ({'k': 1}, math.nan, "line 2 is a second response 1 to prompt 'c'"),
    ({'k': -1}, math.nan, 'k -1: number responses from 0'),
    ({'k': 0.5}, math.nan, 'k 0.5: number responses from 0'),
    ({'reward': 'good'}, math.nan, "reward 'good', which is no number"),
    ({'reward': 1e39}, math.nan, 'line 2 has a reward beyond 3.4e.38 in size'),
    ({'reward': -(10**400)}, math.nan, 'line 2 has a reward beyond'),
    ({'cost': 'dear'}, math.nan, "cost 'dear', which is no number"),
    ({'cost': -1.0}, math.nan, 'the cost -1.0; costs are 0 or more'),
    ({}, 3.0, 'line 1 has a cost, and --cost is given too'),
  ],
)
def test_a_wrong_row_is_named(change, cost, expected, tmp_path):
  rows = [dict(row) for row in _ROWS]
  rows[1] |= change
  with pytest.raises(errors.UserError, match=expected):
    _run(tmp_path, rows, cost)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'rows, expected',
  [
    ([{'prompt_id': 'a', 'reward': 1.0}], 'has no cost in any row'),
    ([{'prompt_id': 'a', 'cost': 1.0}], 'has no reward in any row'),
    ([], 'has no reward in any row'),
  ],
)
def test_a_table_without_rewards_or_costs_is_refused(rows, expected, tmp_path):
  with pytest.raises(errors.UserError, match=expected):
    _run(tmp_path, rows)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('none.csv', 'must end in .jsonl or .parquet'),
    ('none.jsonl', 'there is no such file: check the path.$'),
  ],
)
def test_a_table_that_is_none_is_refused(name, expected, tmp_path):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), _PROVENANCE)
  with pytest.raises(errors.UserError, match=expected):
    imported.run(
      *(workdir, 'verify', rewards.RewardConfig(kind='verify'), 'new'),
      *(_PROMPTS, tmp_path / name),
    )
