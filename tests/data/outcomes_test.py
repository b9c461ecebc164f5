import collections

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import errors
from erp_jax.data import outcomes

_ROWS = [
  # prompt_id, category, subset, model, reward, reward_kind, cost_usd
  ('p2', 'math', 'gsm', 'big', 1.0, 'correct01', 0.3),
  ('p2', 'math', 'gsm', 'small', 0.0, 'correct01', 0.1),
  ('p1', 'math', 'aime', 'big', 0.5, 'correct01', 0.5),
  ('p1', 'math', 'aime', 'small', 0.25, 'correct01', None),
  ('p3', 'code', 'crux', 'big', 1.0, 'correct01', 0.1),
  ('p4', 'chat', 'mt', 'big', 9.0, 'judge_1_10', 0.1),
  ('p4', 'chat', 'mt', 'small', 8.0, 'judge_1_10', 0.1),
  ('p3', 'code', 'crux', 'other', 1.0, 'correct01', 0.1),
]
_KEEP = ('math', 'code')


@pytest.fixture
def write(tmp_path):
  def write_rows(rows, without=()):
    table = pa.Table.from_pylist(
      [
        {
          'prompt_id': prompt_id,
          'prompt': f'ask {prompt_id}',
          'category': category,
          'subset': subset,
          'model': model,
          'reward': reward,
          'reward_kind': kind,
          'cost_usd': cost,
        }
        for prompt_id, category, subset, model, reward, kind, cost in rows
      ]
    )
    path = tmp_path / 'table.parquet'
    pq.write_table(table.drop_columns(list(without)), path, row_group_size=3)
    return path

  return write_rows


def test_cells_land_where_the_table_says(write):
  table = outcomes.load(
    write(_ROWS), ['small', 'big'], 'subset', categories=_KEEP
  )
  assert table.prompt_ids == ('p1', 'p2', 'p3')
  assert table.prompts == ('ask p1', 'ask p2', 'ask p3')
  assert table.category_N.tolist() == ['aime', 'gsm', 'crux']
  np.testing.assert_array_equal(
    table.reward_NM, [[0.25, 0.5], [0.0, 1.0], [np.nan, 1.0]]
  )
  np.testing.assert_array_equal(
    table.cost_NM, [[np.nan, 0.5], [0.1, 0.3], [np.nan, 0.1]]
  )
  assert table.reward_kind == 'correct01'
  assert table.counts == {
    'rows': 7,
    'rows_other_category': 2,
    'rewards_not_finite': 0,
    'prompts': 3,
    'prompts_complete': 2,
    'prompts_incomplete': 1,
  }


def test_mean_costs_are_recorded_ones_of_the_training_rows(write):
  table = outcomes.load(write(_ROWS), ['small', 'big'], categories=_KEEP)
  assert table.cost_source == 'recorded'
  np.testing.assert_allclose(
    table.mean_cost_M(np.array([True, True, False])), [0.1, 0.4]
  )
  with pytest.raises(errors.UserError, match='small has no recorded cost'):
    table.mean_cost_M(np.array([True, False, False]))


def test_given_costs_win_over_recorded_ones(write):
  table = outcomes.load(
    write(_ROWS), ['small', 'big'], costs=(8, 0.1), categories=_KEEP
  )
  assert table.cost_source == 'given'
  # To the last bit: a mean of three times .1 is not .1.
  assert table.mean_cost_M(np.array([True, True, True])).tolist() == [8, 0.1]


def test_categories_are_found_in_either_column(write):
  path = write(_ROWS)
  by_coarse = outcomes.load(path, ['big'], 'subset', categories=('math',))
  assert by_coarse.prompt_ids == ('p1', 'p2')
  by_fine = outcomes.load(path, ['big'], 'subset', categories=('gsm',))
  assert by_fine.prompt_ids == ('p2',)


def test_a_reward_that_is_not_finite_is_missing_and_counted(write):
  rows = [list(row) for row in _ROWS[:4]]
  rows[0][4] = float('inf')
  rows[1][4] = None
  table = outcomes.load(write(rows), ['small', 'big'])
  np.testing.assert_array_equal(table.reward_NM[1], [np.nan, np.nan])
  assert table.counts['rewards_not_finite'] == 2
  assert table.counts['prompts_complete'] == 1


def test_a_reward_that_cannot_be_squared_is_refused(write):
  rows = [*_ROWS[:3], (*_ROWS[3][:4], -1e200, *_ROWS[3][5:]), *_ROWS[4:]]
  with pytest.raises(errors.UserError, match='a reward of size 1e.200, but'):
    outcomes.load(write(rows), ['small', 'big'], categories=_KEEP)


def _changed(row, **changes):
  names = ('prompt_id', 'category', 'subset', 'model')
  names += ('reward', 'reward_kind', 'cost_usd')
  return tuple(changes.get(n, v) for n, v in zip(names, row, strict=True))


@pytest.mark.parametrize(
  ('rows', 'kwargs', 'message'),
  [
    (_ROWS, {}, 'correct01 in code, math; judge_1_10 in chat'),
    (_ROWS, {'models': ['bigg']}, "no model 'bigg'; did you mean 'big'"),
    (_ROWS, {'models': []}, 'no models chosen'),
    (_ROWS, {'models': ['big', 'big']}, "'big' is chosen twice"),
    (_ROWS, {'categories': ['maths']}, "no category 'maths'; did you mean"),
    (_ROWS, {'category_column': 'subsets'}, "did you mean 'subset'"),
    (_ROWS, {'models': ['a|b']}, r"'a\|b' holds '\|', which separates pairs"),
    (_ROWS, {'costs': [8]}, 'no cost for big'),
    (_ROWS, {'costs': [8, 9, 10]}, '3 costs for 2 models'),
    (_ROWS, {'costs': [8, -1]}, 'the cost of big is -1'),
    (_ROWS, {'costs': [float('nan'), 1]}, 'the cost of small is nan'),
    ([*_ROWS[:4], _ROWS[0]], {}, "prompt 'p2' has 2 rows for big"),
    (
      [*_ROWS[:3], _changed(_ROWS[3], cost_usd=-2.0)],
      {},
      'cost_usd -2.0 for small',
    ),
    (
      [_ROWS[0], _changed(_ROWS[1], cost_usd=None)],
      {},
      'no cost_usd for small',
    ),
    (
      [_ROWS[0], _changed(_ROWS[1], category='code')],
      {},
      "prompt id 'p2' has two different values of category",
    ),
    ([_ROWS[0], _changed(_ROWS[1], category=None)], {}, '1 rows have no cat'),
    (
      [_changed(row, category='') for row in _ROWS[:2]] + _ROWS[2:4],
      {},
      "the category of prompt id 'p2' is empty",
    ),
    (
      [_ROWS[0], _changed(_ROWS[3], cost_usd=0.1)],
      {},
      'no prompt has rewards of all of small, big',
    ),
  ],
)
def test_bad_input_is_named(write, rows, kwargs, message):
  with pytest.raises(errors.UserError, match=message):
    outcomes.load(write(rows), **({'models': ['small', 'big']} | kwargs))


def _put(path, name, column):
  table = pq.read_table(path)
  at = table.column_names.index(name)
  pq.write_table(table.set_column(at, name, column), path)


def test_an_empty_prompt_is_refused_by_its_id(write):
  path = write(_ROWS[:4])
  _put(path, 'prompt', pa.array(['ask', 'ask', '', '']))
  with pytest.raises(errors.UserError, match="prompt of prompt id 'p1' is emp"):
    outcomes.load(path, ['big'])


def test_whole_numbers_and_dictionaries_name_prompts_and_categories(write):
  path = write(_ROWS[:4])
  _put(path, 'prompt_id', pa.array([10, 10, 9, 9]))
  _put(path, 'category', pa.array([1, 1, 2, 2], pa.int8()))
  _put(path, 'model', pq.read_table(path)['model'].dictionary_encode())
  table = outcomes.load(path, ['small', 'big'])
  assert table.prompt_ids == ('10', '9')
  assert table.category_N.tolist() == ['1', '2']
  np.testing.assert_array_equal(table.reward_NM, [[0, 1], [0.25, 0.5]])


@pytest.mark.parametrize(
  ('name', 'values', 'message'),
  [
    ('prompt_id', [0.5, 0.5, 1.5, 1.5], 'column prompt_id is of type double'),
    ('prompt', [['a']] * 4, 'column prompt is of type list<.*; write it as st'),
    ('model', [1, 1, 2, 2], 'column model is of type int64; write it as str'),
    ('reward', ['good'] * 4, 'column reward is of type string; write it as d'),
    ('cost_usd', ['1 $'] * 4, 'column cost_usd is of type string'),
  ],
)
def test_a_column_of_a_wrong_type_is_named(write, name, values, message):
  path = write(_ROWS[:4])
  _put(path, name, pa.array(values))
  with pytest.raises(errors.UserError, match=message):
    outcomes.load(path, ['small', 'big'])


def test_a_table_without_rows_is_called_empty(write):
  path = write(_ROWS)
  pq.write_table(pq.read_table(path).slice(0, 0), path)
  with pytest.raises(errors.UserError, match='table.parquet has no rows'):
    outcomes.load(path, ['small', 'big'])


def test_a_damaged_file_is_named_wherever_the_damage_is(write):
  path = write(_ROWS[:4])
  whole = path.read_bytes()
  damaged = [whole[: len(whole) // 2], whole[:6]]
  # From the first page to the footer.
  for at in range(4, len(whole) - 20, 97):
    damaged.append(whole[:at] + b'\xff' * 16 + whole[at + 16 :])
  said = 0
  for content in damaged:
    path.write_bytes(content)
    try:
      outcomes.load(path, ['small', 'big'])
    except errors.UserError as e:
      assert 'table.parquet' in str(e)
      assert '\n' not in str(e)
      said += 'is damaged' in str(e)
  # Some bytes are statistics that nobody reads, or values that stay legal.
  assert said > len(damaged) // 3


def test_a_table_without_costs_asks_for_them(write):
  path = write(_ROWS[:4], without=['cost_usd'])
  with pytest.raises(errors.UserError, match='give --costs'):
    outcomes.load(path, ['big'])
  assert outcomes.load(path, ['big'], costs=(1,)).cost_NM.tolist() == [[1], [1]]


def test_a_file_that_is_missing_or_no_parquet_is_named(tmp_path):
  with pytest.raises(errors.UserError, match='nothing.parquet is not a file'):
    outcomes.load(tmp_path / 'nothing.parquet', ['big'])
  (tmp_path / 'text').write_text('hello')
  with pytest.raises(errors.UserError, match='text is not a Parquet file'):
    outcomes.load(tmp_path / 'text', ['big'])


def test_mmlu_pro_agrees_with_a_plain_reading(shared_data):
  path = shared_data / 'mmlu_pro.parquet'
  models = ['llama-3.1-8b-instruct', 'deepseek-coder-v2']
  table = outcomes.load(path, models, costs=(8, 236))
  rewards = collections.defaultdict(dict)
  columns = ['prompt_id', 'model', 'reward']
  for row in pq.read_table(path, columns=columns).to_pylist():
    rewards[row['model']][row['prompt_id']] = row['reward']
  assert table.prompt_ids == tuple(sorted(rewards[models[0]]))
  for m, name in enumerate(models):
    expected = [rewards[name].get(i, np.nan) for i in table.prompt_ids]
    np.testing.assert_array_equal(table.reward_NM[:, m], expected)
  assert table.counts['prompts'] == 12032
  assert table.counts['prompts_complete'] == 10351


def test_routellm_without_its_mt_bench_rows(shared_data):
  models = ['Mixtral-8x7B-Instruct-v0.1', 'gpt-4-1106-preview']
  path = shared_data / 'routellm.parquet'
  with pytest.raises(errors.UserError, match='judge_1_10 in mt_bench'):
    outcomes.load(path, models, costs=(1, 10))
  table = outcomes.load(
    path, models, costs=(1, 10), categories=('mmlu', 'gsm8k')
  )
  assert table.counts['prompts_complete'] == 15441 - 80
  assert table.counts['rows_other_category'] == 160
