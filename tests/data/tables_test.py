"""Tables in one file or many, here or on a hub, become the same prompts."""

import csv
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from erp_jax.core import errors
from erp_jax.data import prompts, tables

_TEXTS = ('', 'plain', 'a, "b"', 'two\nlines', 'u\u2028é', ' x ', 'NULL', '7')


def _rows(num=8):
  return [
    {'id': f'p{i}', 'prompt': f'{_TEXTS[i % 8]}?{i}', 'category': 'ab'[i % 2]}
    for i in range(num)
  ]


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  elif path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(rows), path)
  else:
    with path.open('w', newline='', encoding='utf-8') as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
  return path


def _load(path, **fields):
  return prompts.load(prompts.PromptConfig(path=str(path), **fields))


def _fails(match, path, **fields):
  with pytest.raises(errors.UserError, match=match) as e:
    _load(path, **fields)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('kind', tables.KINDS)
def test_every_kind_of_file_holds_the_same_prompts(tmp_path, kind):
  checks = {'kind': 'answer', 'any': ['é,"', '\u2028']}
  rows = [row | {'checks': ''} for row in _rows()]
  rows[2]['checks'] = json.dumps(checks)
  loaded = _load(_write(tmp_path / f'a{kind}', rows))
  assert [(p.id, p.prompt, p.category) for p in loaded] == [
    tuple(row.values()) for row in _rows()
  ]
  assert [p.checks for p in loaded] == [{}, {}, checks, *[{}] * 5]


def test_columns_of_a_csv_file_can_be_named(tmp_path):
  rows = [
    {'n': f'0{row["id"][1:]}', 'text': row['prompt'], 'topic': row['category']}
    for row in _rows()
  ]
  loaded = _load(
    _write(tmp_path / 'a.csv', rows),
    prompt_column='text', category_column='topic', id_column='n',
  )  # fmt: skip
  # Texts, not numbers.
  assert loaded[-1] == prompts.Prompt('07', '7?7', 'b')
  _fails(
    r"a.csv row 1 has no column 'prompt'; allowed: n, text.*prompt_column",
    tmp_path / 'a.csv', category_column='topic',
  )  # fmt: skip


@pytest.mark.parametrize(
  ('data', 'match'),
  [
    (b'', r'a.csv is not a CSV file \(Empty CSV file\): write it in UTF-8'),
    (b'id,prompt,category\n1,x\n', 'Row #2: Expected 3 columns, got 2: 1,x'),
    (b'id,prompt,category\n1,"x,a\n', 'Expected 3 columns, got 2'),
    (b'id,prompt,category\n1,\xff,a\n', 'invalid UTF8'),
    (b'id,prompt,id\n1,x,a\n', r'two columns of one name \(id, prompt, id\)'),
    (b'id,prompt,category\n', 'a.csv holds no prompts: add rows'),
    (b'id,prompt,category\n1,x,a\n2,,a\n', "row 2 has 'prompt' '', but must"),
  ],
)
def test_a_bad_csv_file_is_named(tmp_path, data, match):
  (tmp_path / 'a.csv').write_bytes(data)
  _fails(match, tmp_path / 'a.csv')


def test_windows_and_a_long_row(tmp_path):
  long = 'x' * 3_000_000  # More than a block of the reader's.
  text = f'\ufeffprompt,category\r\n"{long}\r\n",a\r\n\r\ny,a\r\n'
  (tmp_path / 'a.csv').write_bytes(text.encode())
  assert {p.prompt for p in _load(tmp_path / 'a.csv')} == {long + '\r\n', 'y'}


@pytest.mark.parametrize('place', ['head', 'page', 'end'])
def test_a_damaged_parquet_file_is_named(tmp_path, place):
  path = _write(tmp_path / 'a.parquet', _rows(5000))
  data = bytearray(path.read_bytes())
  start = {'head': 0, 'page': 100, 'end': len(data) - 40}[place]
  data[start : start + 30] = b'\xff' * 30
  path.write_bytes(data)
  _fails('a.parquet is not a Parquet file', path)


def test_the_files_of_a_folder_are_one_table(tmp_path):
  rows = _rows()
  _write(tmp_path / 'data/train-1.parquet', rows[:3])
  _write(tmp_path / 'data/train-0.jsonl', rows[3:])
  _write(tmp_path / 'data/test.csv', _rows(20)[10:])
  both = _load(tmp_path, files='data/train-*')
  assert both == _load(_write(tmp_path / 'all.jsonl', rows))
  assert len(_load(tmp_path, files='*/*')) == 18
  # The first of a repeated text is that of the first file by name.
  _write(tmp_path / 'data/train-1.parquet', rows[:4])
  places = [
    place
    for path in tables.find(str(tmp_path), 'data/train-*', 'x', 'y')
    for place, _ in tables.rows(path, 'x')
  ]
  assert re.search('train-0.jsonl line 1$', places[0])
  _fails(
    "train-1.parquet row 4 repeats the prompt id 'p3' of .*-0.jsonl line 1",
    tmp_path, files='data/train-*',
  )  # fmt: skip


def test_which_files_must_be_said_and_must_be_there(tmp_path):
  _fails("path is '.*', which may hold many .*: set prompts.files", tmp_path)
  _fails("path is 'hub:a/b', which may hold many .*prompts.files", 'hub:a/b')
  _fails(r"'\*.csv', but no .* \(it holds nothing\)", tmp_path, files='*.csv')
  for i in (0, 2):
    _write(
      tmp_path / f'train-0000{i}-of-00003.csv', _rows()[4 * (i // 2) :][:4]
    )
  _fails(
    r"files is '\*.parquet', but no .*it holds train-00000-of-00003.csv, train",
    tmp_path, files='*.parquet',
  )  # fmt: skip
  _fails(
    'has no file train-00001-of-00003.csv, but others of these 3',
    tmp_path, files='train-*',
  )  # fmt: skip
  assert len(_load(tmp_path, files='train-00002-of-00003.csv')) == 4
  (tmp_path / 'notes.txt').write_text('')
  _fails(r"notes.txt', but must be 'quickstart' or", tmp_path, files='*s.txt')


def test_a_file_is_what_it_is_whatever_the_pattern(tmp_path):
  path = _write(tmp_path / 'a.csv', _rows())
  assert tables.find(str(path), 'data/*.parquet', 'x', 'y') == [
    epath.Path(path)
  ]
  assert len(_load(path, files='data/*.parquet')) == 8


_SHOW = """
import sys
from erp_jax.core import errors
from erp_jax.data import prompts
try:
  print(prompts.digest(prompts.load(prompts.PromptConfig(
    path=sys.argv[1], files=sys.argv[2]))))
except errors.UserError as error:
  print(error)
"""


def test_a_data_set_of_the_hub(data_hub, tmp_path):
  rows = _rows()
  _write(data_hub.folder / 'data/train-00000-of-00002.parquet', rows[:3])
  _write(data_hub.folder / 'data/train-00001-of-00002.parquet', rows[3:])
  _write(data_hub.folder / 'data/test.parquet', rows)
  expected = prompts.digest(_load(_write(tmp_path / 'all.jsonl', rows)))
  for _ in range(2):  # The second time it is in the cache.
    ran = data_hub('-c', _SHOW, 'hub:org/blend@main', 'data/train-*.parquet')
    assert ran.stdout == expected + '\n', ran.stderr
    assert sorted(data_hub.sent) == [
      f'data/train-0000{i}-of-00002.parquet' for i in range(2)
    ]
  ran = data_hub('-c', _SHOW, 'hub:org/blend', 'train*.csv')
  assert ran.stdout == (
    "prompts.files is 'train*.csv', but no file of hub:org/blend is called so: "
    'correct it.\n'
  )
  ran = data_hub('-c', _SHOW, 'hub:org/none', '*')
  assert re.match(
    "data set 'org/none' is not .* could not be downloaded from .* or give a "
    'local file or folder.\n$',
    ran.stdout,
  ), ran.stdout


def test_without_the_hub_a_part_is_not_the_whole(data_hub, tmp_path):
  """Files of no numbered set: their names do not tell that one is missing."""
  _write(data_hub.folder / 'a.jsonl', _rows()[:4])
  _write(data_hub.folder / 'b.jsonl', _rows()[4:])
  show = lambda files, offline: (
    data_hub('-c', _SHOW, 'hub:org/blend', files, HF_HUB_OFFLINE=offline).stdout
  )
  part = show('a.jsonl', '0')
  assert show('a.jsonl', '1') == part
  refused = show('*.jsonl', '1')
  assert 'not whole in the hub cache' in refused and 'b.jsonl' in refused
  (trees,) = (tmp_path / 'cache').glob('hub/datasets--*/trees')
  trees.rename(trees.with_name('old'))  # As an older library leaves it.
  for files in ('a.jsonl', '*.jsonl'):
    refused = show(files, '1')
    assert 'in the hub cache without a list of its files' in refused
    assert f'there may be more that match {files}; run once' in refused
  whole = show('*.jsonl', '0')
  assert whole == show('*.jsonl', '1') != part
  assert data_hub.sent == ['a.jsonl', 'b.jsonl']
