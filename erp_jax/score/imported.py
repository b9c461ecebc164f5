"""A table of rewards made elsewhere -> the rewards of one arm of this run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.data import tables
from erp_jax.score import rewards as rewards_lib
from erp_jax.score import stage

FORMAT_VERSION = 1
_MOST = float(np.finfo(np.float32).max)  # Rewards are float32.
SCHEMA = stage.SCHEMA.append(pa.field('cost', pa.float64()))


def run(
  workdir: workdir_lib.Workdir,
  reward: str,
  cfg: rewards_lib.RewardConfig,
  arm: str,
  prompts: Sequence[prompts_lib.Prompt],
  path: epath.PathLike,
  cost: float = math.nan,
) -> None:
  """Writes rewards/{reward}/{arm} from a .jsonl or .parquet table.

  A row is a response: `prompt_id`, `reward` in this reward model's units (null
  where it has none), `k` if the responses are numbered, and `cost` of the
  answer unless `cost` says what each one costs. Prompts may be missing.
  Raises UserError for a row that can't be read, a prompt that is not of this
  run, a response that is there twice, no reward or no cost at all.
  """
  workdir_lib.check_name('arm', arm)
  path = epath.Path(path)
  kinds = (tables.JSONL, tables.PARQUET)
  found = list(tables.rows(path, '--rewards_table', kinds=kinds))
  table = _table(found, path, {p.id for p in prompts}, cost)
  identity = {
    'stage': 'import',
    'format_version': FORMAT_VERSION,
    'reward': cfg.fields(),
    'prompts': prompts_lib.digest(prompts),
    'imported': {
      'sha256': store.sha256(path),
      'cost': 'its column' if math.isnan(cost) else cost,
    },
  }
  artifact = workdir.artifact(f'rewards/{reward}/{arm}', identity, num_shards=1)
  if not artifact.is_done():
    with workdir.writer(artifact) as writer:
      bad = np.isnan(table['reward'].to_numpy()).sum()
      writer.write_shard(0, table, {'non_finite': int(bad)})
      writer.finish({'imported': True})


def read_cost(
  run: epath.Path, reward: str, arm: str, prompt_ids: Sequence[str]
) -> np.ndarray:
  """cost_N: mean cost of an imported arm's answers; NaN where none is known."""
  table = store.read_table(run / 'rewards' / reward / arm)
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  cost = table['cost'].to_numpy()
  known = np.isfinite(cost)
  rows = np.array([row_of[name] for name in table['prompt_id'].to_pylist()])
  num_N = np.bincount(rows[known], None, len(prompt_ids))
  sum_N = np.bincount(rows[known], cost[known], len(prompt_ids))
  cost_N = np.full(len(prompt_ids), np.nan)
  np.divide(sum_N, num_N, out=cost_N, where=num_N > 0)
  return cost_N


def _table(
  found: Sequence[tuple[str, Mapping[str, Any]]],
  path: epath.Path,
  prompt_ids: set[str],
  cost: float,
) -> pa.Table:
  rows: dict[tuple[str, int], dict[str, Any]] = {}
  num_of: dict[str, int] = {}
  for where, row in found:
    name = row.get('prompt_id')
    name = str(name) if isinstance(name, int) else name
    if name not in prompt_ids:
      raise errors.UserError(
        f'{where} has prompt_id {name!r}, which is no prompt of this run: the '
        'table must go by the ids of config.prompts.'
      )
    k = row.get('k')
    k = num_of.get(name, 0) if k is None else k
    if not isinstance(k, int) or not 0 <= k < 2**31:
      raise errors.UserError(f'{where} has k {k!r}: number responses from 0.')
    if (name, k) in rows:
      raise errors.UserError(
        f'{where} is a second response {k} to prompt {name!r}: keep one.'
      )
    num_of[name] = num_of.get(name, 0) + 1
    if not math.isnan(cost) and row.get('cost') is not None:
      raise errors.UserError(
        f'{where} has a cost, and --cost is given too: leave one out.'
      )
    rows[name, k] = {
      'prompt_id': name,
      'k': k,
      'reward': _number(row, 'reward', where),
      'cost': _number(row, 'cost', where) if math.isnan(cost) else cost,
    }
  columns = pa.Table.from_pylist(list(rows.values()), schema=SCHEMA)
  for name, fix in (('reward', 'score them'), ('cost', 'give --cost')):
    value = columns[name].to_numpy()
    if not np.isfinite(value).any():
      raise errors.UserError(f'{path} has no {name} in any row: {fix}.')
  cost_of = columns['cost'].to_numpy()
  if (cost_of < 0).any():
    raise errors.UserError(
      f'{path} has the cost {cost_of.min()}; costs are 0 or more.'
    )
  return columns


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
  """NaN where there is none, or none that is finite."""
  value = row.get(name)
  if value is None:
    return math.nan
  if not isinstance(value, int | float):
    raise errors.UserError(f'{where} has {name} {value!r}, which is no number.')
  if _MOST < abs(value) < math.inf:
    raise errors.UserError(
      f'{where} has a {name} beyond {_MOST:.3g} in size, the most kept: '
      'mend it, or leave that row out.'
    )
  return float(value) if math.isfinite(value) else math.nan
