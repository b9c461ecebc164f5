"""Recorded outcomes: what real models scored, and cost, on real prompts.

One long Parquet format, a row a (prompt, model): `prompt_id`, `prompt`,
`category`, `model`, `reward`, `reward_kind`, and where known `subset` (a finer
category) and `cost_usd` (what that answer cost).
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from erp_jax.core import config, errors

_MOST = 1e100  # Squares of rewards are summed.
_COLUMNS = ('prompt_id', 'prompt', 'model', 'reward', 'reward_kind')
_NUMBERS = ('reward', 'cost_usd')
_TEXT = ('prompt', 'model', 'reward_kind')  # Other words may be whole numbers.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
  """Rewards and costs of M models on N prompts, in order of prompt id.

  Attributes:
    prompt_ids: unique.
    prompts: what was asked.
    category_N: category of each prompt.
    models: the chosen models, in the order of the request.
    reward_NM: float64; NaN where the table has no finite reward.
    cost_NM: cost of each answer: the model's own cost where costs were given,
      else the recorded one, NaN where none is recorded.
    cost_source: 'given' (per model) or 'recorded' (the `cost_usd` column).
    reward_kind: the one kind of all rewards.
    counts: rows and prompts read, complete, and left out, by reason.
  """

  prompt_ids: tuple[str, ...]
  prompts: tuple[str, ...]
  category_N: np.ndarray
  models: tuple[str, ...]
  reward_NM: np.ndarray
  cost_NM: np.ndarray
  cost_source: str
  reward_kind: str
  counts: dict[str, int]

  def mean_cost_M(self, rows_N: np.ndarray) -> np.ndarray:
    """What a router counts on: given costs, or mean recorded costs of `rows_N`.

    Raises UserError if a model has no recorded cost on these rows.
    """
    if self.cost_source == 'given':
      return self.cost_NM[0].copy()
    cost_NM = self.cost_NM[rows_N]
    known_NM = np.isfinite(cost_NM)
    for m, name in enumerate(self.models):
      if not known_NM[:, m].any():
        raise errors.UserError(
          f'{name} has no recorded cost_usd on the training prompts; give '
          '--costs, one per model.'
        )
    return np.array(
      [cost_NM[known_NM[:, m], m].mean() for m in range(len(self.models))]
    )


def load(
  path: epath.PathLike,
  models: Sequence[str],
  category_column: str = 'category',
  costs: Sequence[float] = (),
  categories: Sequence[str] = (),
) -> Outcomes:
  """The chosen models' outcomes from a Parquet file in the long format.

  Args:
    path: the file.
    models: names in the `model` column.
    category_column: which column splits and per-category results go by.
    costs: one per model; without them `cost_usd` must be in the table.
    categories: keep only prompts with one of these in `category_column` or in
      `category`; empty keeps all.

  Raises UserError for a missing model, column, category or file; two rows of
  one (prompt, model); rewards of several kinds; a cost missing, negative or
  not finite; an empty prompt or category; a wrong type; a damaged file.
  """
  models = tuple(models)
  _check_models(models, costs)
  with _open(path) as f:
    try:
      table = _read(path, f, models, category_column, bool(costs))
    except (pa.ArrowException, OSError) as e:
      raise errors.UserError(
        f'{path} is damaged ({" ".join(str(e).split())}); copy it here again, '
        'or write it anew.'
      ) from e
  counts = {'rows': table.num_rows}
  if categories:
    table = _keep_categories(path, table, category_column, categories)
  counts['rows_other_category'] = counts['rows'] - table.num_rows
  for name in ('prompt_id', 'prompt', category_column, 'reward_kind'):
    if table[name].null_count:
      raise errors.UserError(
        f'{path}: {table[name].null_count} rows have no {name}; fill them in.'
      )
    empty = table.filter(pc.equal(table[name], ''))
    if empty.num_rows:
      raise errors.UserError(
        f'{path}: the {name} of prompt id {empty["prompt_id"][0].as_py()!r} is '
        'empty; fill it in, or leave that prompt out.'
      )
  kind = _single_kind(path, table)
  id_N, first_N, row_n = np.unique(
    table['prompt_id'].to_numpy(), return_index=True, return_inverse=True
  )
  row_prompts = table['prompt'].to_numpy()
  row_categories = table[category_column].to_numpy()
  _check_same(path, 'prompt', id_N, row_prompts, first_N, row_n)
  _check_same(path, category_column, id_N, row_categories, first_N, row_n)
  row_m = pc.index_in(table['model'], pa.array(models)).to_numpy()
  row_cells = row_n * len(models) + row_m
  _check_unique(path, row_cells, id_N, models)

  reward_NM = np.full((len(id_N), len(models)), np.nan)
  row_rewards = table['reward'].to_numpy().copy()
  row_rewards[~np.isfinite(row_rewards)] = np.nan
  check_size(str(path), row_rewards)
  reward_NM.flat[row_cells] = row_rewards
  if costs:
    cost_NM = np.tile(np.asarray(costs, float), (len(id_N), 1))
  else:
    cost_NM = np.full_like(reward_NM, np.nan)
    cost_NM.flat[row_cells] = table['cost_usd'].to_numpy()
    _check_recorded(path, cost_NM, models)
  complete_N = np.isfinite(reward_NM).all(axis=1)
  counts |= {
    'rewards_not_finite': int(np.isnan(row_rewards).sum()),
    'prompts': len(id_N),
    'prompts_complete': int(complete_N.sum()),
    'prompts_incomplete': int((~complete_N).sum()),
  }
  if not complete_N.any():
    raise errors.UserError(
      f'{path}: no prompt has rewards of all of {", ".join(models)}; choose '
      'models that answered the same prompts.'
    )
  return Outcomes(
    prompt_ids=tuple(id_N.tolist()),
    prompts=tuple(row_prompts[first_N].tolist()),
    category_N=row_categories[first_N].astype(str),
    models=models,
    reward_NM=reward_NM,
    cost_NM=cost_NM,
    cost_source='given' if costs else 'recorded',
    reward_kind=kind,
    counts=counts,
  )


def check_size(where: str, rewards: np.ndarray) -> None:
  """UserError for a finite reward too large to be squared and summed."""
  size = np.abs(rewards[np.isfinite(rewards)]).max(initial=0.0)
  if size > _MOST:
    raise errors.UserError(
      f'{where} has a reward of size {size:.3g}, but squares of rewards are '
      f'summed, and they go up to {_MOST:g}: mend it, or leave it out.'
    )


def _check_models(models: Sequence[str], costs: Sequence[float]) -> None:
  if not models:
    raise errors.UserError('no models chosen; give --models=a,b,c.')
  twice = [name for name, n in collections.Counter(models).items() if n > 1]
  if twice:
    raise errors.UserError(f'model {twice[0]!r} is chosen twice; name it once.')
  if barred := [name for name in models if '|' in name]:
    raise errors.UserError(
      f"model {barred[0]!r} holds '|', which separates pairs in metrics.json; "
      'rename it in the table and in --models.'
    )
  if not costs:
    return
  if len(costs) != len(models):
    missing = ''.join(f'no cost for {m}: ' for m in models[len(costs) :][:1])
    raise errors.UserError(
      f'{missing}{len(costs)} costs for {len(models)} models '
      f'({", ".join(models)}); give --costs one number per model, in order.'
    )
  for name, cost in zip(models, costs, strict=True):
    if not (np.isfinite(cost) and cost >= 0):
      raise errors.UserError(
        f'the cost of {name} is {cost}; give a finite number of 0 or more.'
      )


def _open(path: epath.PathLike):
  path = epath.Path(path)
  if not path.is_file():
    raise errors.UserError(
      f'{path} is not a file; give --outcomes a Parquet file.'
    )
  with path.open('rb') as f:
    if f.read(4) != b'PAR1':
      raise errors.UserError(
        f'{path} is not a Parquet file; see the format of --outcomes.'
      )
  return path.open('rb')


def _read(
  path: epath.PathLike,
  f: BinaryIO,
  models: Sequence[str],
  category_column: str,
  costs_given: bool,
) -> pa.Table:
  """The rows of `models`: strings, and float64 for numbers."""
  parquet = pq.ParquetFile(f, page_checksum_verification=True)
  schema = parquet.schema_arrow
  wanted = _wanted_columns(path, schema.names, category_column, costs_given)
  types = pa.schema(
    [_typed(path, schema.field(schema.names.index(name))) for name in wanted]
  )
  if not parquet.metadata.num_rows:
    raise errors.UserError(f'{path} has no rows; give a table of outcomes.')
  names = parquet.read(columns=['model'])['model'].cast(pa.string())
  names.validate(full=True)
  there = pc.unique(names.drop_null()).to_pylist()
  _check_present(path, 'model', models, there)
  groups = []
  for i in range(parquet.num_row_groups):
    group = parquet.read_row_group(i, columns=wanted).select(wanted).cast(types)
    group.validate(full=True)
    groups.append(group.filter(pc.is_in(group['model'], pa.array(models))))
  return pa.concat_tables(groups)


def _typed(path: epath.PathLike, field: pa.Field) -> pa.Field:
  """The type to read a column as; UserError where that would be a guess."""
  kind, is_a = field.type, pa.types
  if is_a.is_dictionary(kind):
    kind = kind.value_type
  if field.name in _NUMBERS:
    to, fits = pa.float64(), is_a.is_floating(kind) or is_a.is_decimal(kind)
    fits |= is_a.is_integer(kind) or is_a.is_boolean(kind)
  else:
    to, fits = pa.string(), is_a.is_string(kind) or is_a.is_large_string(kind)
    fits |= field.name not in _TEXT and is_a.is_integer(kind)
  if not (fits or is_a.is_null(kind)):
    raise errors.UserError(
      f'{path}: column {field.name} is of type {field.type}; write it as {to}.'
    )
  return pa.field(field.name, to)


def _wanted_columns(
  path: epath.PathLike,
  there: Sequence[str],
  category_column: str,
  costs_given: bool,
) -> list[str]:
  wanted = [*_COLUMNS, 'category']
  if category_column not in wanted:
    wanted.append(category_column)
  for name in wanted:
    if name not in there:
      raise errors.UserError(
        f'{path} has no column {name!r}; {config.did_you_mean(name, there)}'
      )
  if not costs_given:
    if 'cost_usd' not in there:
      raise errors.UserError(
        f'{path} has no cost_usd column, so costs are missing; give --costs, '
        'one number per model.'
      )
    wanted.append('cost_usd')
  return wanted


def _check_present(
  path: epath.PathLike, what: str, names: Sequence[str], there: list[str]
) -> None:
  for name in names:
    if name not in there:
      raise errors.UserError(
        f'{path} has no {what} {name!r}; {config.did_you_mean(name, there)}'
      )


def _keep_categories(
  path: epath.PathLike, table: pa.Table, column: str, names: Sequence[str]
) -> pa.Table:
  there = {*pc.unique(table[column]).to_pylist()}
  there |= {*pc.unique(table['category']).to_pylist()}
  _check_present(path, 'category', names, sorted(there - {None}))
  keep = pa.array(names)
  return table.filter(
    pc.or_(pc.is_in(table[column], keep), pc.is_in(table['category'], keep))
  )


def _single_kind(path: epath.PathLike, table: pa.Table) -> str:
  kinds = pc.unique(table['reward_kind']).to_pylist()
  if len(kinds) == 1:
    return kinds[0]
  where = []
  for kind in kinds:
    rows = table.filter(pc.equal(table['reward_kind'], kind))
    names = sorted(pc.unique(rows['category'].drop_null()).to_pylist())
    where.append(f'{kind} in {", ".join(names)}')
  raise errors.UserError(
    f'{path} mixes reward kinds, which are not comparable: '
    f'{"; ".join(where)}; keep categories of one kind (--categories=a,b).'
  )


def _check_same(
  path: epath.PathLike,
  what: str,
  id_N: np.ndarray,
  row_values: np.ndarray,
  first_N: np.ndarray,
  row_n: np.ndarray,
) -> None:
  row_differs = row_values != row_values[first_N][row_n]
  if row_differs.any():
    raise errors.UserError(
      f'{path}: prompt id {id_N[row_n[row_differs][0]]!r} has two different '
      f'values of {what}; give every prompt its own id.'
    )


def _check_unique(
  path: epath.PathLike,
  row_cells: np.ndarray,
  id_N: np.ndarray,
  models: Sequence[str],
) -> None:
  cells, count = np.unique(row_cells, return_counts=True)
  if (count > 1).any():
    n, m = divmod(int(cells[count > 1][0]), len(models))
    raise errors.UserError(
      f'{path}: prompt {id_N[n]!r} has {count.max()} rows for {models[m]}, '
      f'and {(count > 1).sum()} (prompt, model) in all are there more than '
      'once; keep one row each.'
    )


def _check_recorded(
  path: epath.PathLike, cost_NM: np.ndarray, models: Sequence[str]
) -> None:
  for m, name in enumerate(models):
    cost_N = cost_NM[:, m]
    cost_N = cost_N[~np.isnan(cost_N)]
    if not cost_N.size:
      raise errors.UserError(
        f'{path} records no cost_usd for {name}; give --costs, one per model.'
      )
    bad_N = ~(np.isfinite(cost_N) & (cost_N >= 0))
    if bad_N.any():
      raise errors.UserError(
        f'{path} has cost_usd {cost_N[bad_N][0]} for {name}; costs are finite '
        'and 0 or more: mend the table, or give --costs.'
      )
