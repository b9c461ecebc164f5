import collections
import contextlib
import hashlib
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import errors
from erp_jax.data import prompts

_CHECKS = {'kind': 'answer', 'any': ['é', '\u2028']}


def _rows(n=6):
  return [
    {'id': f'p{i}', 'prompt': f'Question {i}?', 'category': 'ab'[i % 2]}
    for i in range(n)
  ]


def _write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def _load(path, rows, **fields):
  return prompts.load(prompts.PromptConfig(path=_write(path, rows), **fields))


def _fails(match, path, **fields):
  with pytest.raises(errors.UserError, match=match) as e:
    prompts.load(prompts.PromptConfig(path=str(path), **fields))
  assert '\n' not in str(e.value)


def test_quickstart_is_balanced_and_varied():
  loaded = prompts.load(prompts.PromptConfig())
  counts = collections.Counter(p.category for p in loaded)
  assert counts == {
    'chat': 40, 'code': 40, 'instruction_following': 40, 'math': 40,
  }  # fmt: skip
  assert len({p.id for p in loaded}) == 160
  assert len({p.prompt.casefold() for p in loaded}) == 160
  assert all(5 <= len(p.prompt.split()) <= 60 for p in loaded)
  assert all(p.checks for p in loaded)


def test_quickstart_code_prints_what_its_answer_says():
  """Runs the code in our own prompts; a response is never run."""
  ran = 0
  for p in prompts.load(prompts.PromptConfig()):
    code = re.search(r'`(.*print\(.*)`', p.prompt)
    if p.category != 'code' or not code:
      continue
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(code[1], {})
    answer = p.checks.get('answer') or p.checks['any'][0]
    assert printed.getvalue().strip() == answer, p.id
    ran += 1
  assert ran >= 15


def test_jsonl_is_sorted_by_id_and_keeps_everything(tmp_path):
  rows = _rows()
  rows[2] |= {'checks': _CHECKS, 'prompt': 'A\u2028B', 'other': [1]}
  rows[3] |= {'checks': None}
  loaded = _load(tmp_path / 'a.jsonl', rows[::-1])
  assert [p.id for p in loaded] == [f'p{i}' for i in range(6)]
  assert loaded[2] == prompts.Prompt('p2', 'A\u2028B', 'a', _CHECKS)
  assert loaded[3] == prompts.Prompt('p3', 'Question 3?', 'b', {})
  assert len(set(loaded)) == 6


def test_blank_lines_windows_ends_and_byte_order_mark(tmp_path):
  text = '\r\n\r\n'.join(json.dumps(row) for row in _rows())
  path = tmp_path / 'a.jsonl'
  path.write_bytes(b'\xef\xbb\xbf' + text.encode())
  assert len(prompts.load(prompts.PromptConfig(path=str(path)))) == 6


def test_raw_line_separator_stays_in_its_row(tmp_path):
  path = tmp_path / 'a.jsonl'
  rows = [row | {'prompt': f'x\u2028{row["id"]}'} for row in _rows()]
  path.write_text(
    '\n'.join(json.dumps(row, ensure_ascii=False) for row in rows),
    encoding='utf-8',
  )
  loaded = prompts.load(prompts.PromptConfig(path=str(path)))
  assert [p.prompt for p in loaded] == [row['prompt'] for row in rows]


def test_parquet_equals_jsonl(tmp_path):
  rows = _rows()
  rows[2]['checks'] = _CHECKS
  pq.write_table(
    pa.Table.from_pylist(
      [
        row | {'checks': json.dumps(row['checks']) if 'checks' in row else None}
        for row in rows
      ]
    ),
    tmp_path / 'a.parquet',
  )
  from_parquet = prompts.load(
    prompts.PromptConfig(path=str(tmp_path / 'a.parquet'))
  )
  from_jsonl = _load(tmp_path / 'a.jsonl', rows)
  assert from_parquet == from_jsonl
  assert prompts.digest(from_parquet) == prompts.digest(from_jsonl)


def test_columns_can_be_named(tmp_path):
  rows = [
    {'n': i, 'text': row['prompt'], 'topic': row['category']}
    for i, row in enumerate(_rows())
  ]
  loaded = _load(
    tmp_path / 'a.jsonl', rows,
    prompt_column='text', category_column='topic', id_column='n',
  )  # fmt: skip
  assert loaded[1] == prompts.Prompt('1', 'Question 1?', 'b')


def test_without_ids_they_are_hashes_of_the_prompt(tmp_path):
  rows = [{k: v for k, v in row.items() if k != 'id'} for row in _rows()]
  loaded = _load(tmp_path / 'a.jsonl', rows)
  assert [p.id for p in loaded] == sorted(
    hashlib.sha256(f'Question {i}?'.encode()).hexdigest()[:16] for i in range(6)
  )
  path = _write(tmp_path / 'b.jsonl', [*rows, rows[1]])
  _fails(
    r"b.jsonl line 7 repeats the prompt 'Question 1\?' of .*b.jsonl line 2",
    path,
  )


def test_limit_is_a_hash_order_within_each_category(tmp_path):
  path = tmp_path / 'a.jsonl'
  expected = []
  for remainder in (0, 1):
    ids = [f'p{i}' for i in range(40) if i % 2 == remainder]
    ids.sort(key=lambda i: hashlib.sha256(f'7:{i}'.encode()).digest())
    expected += ids[:5]
  picked = _load(path, _rows(40), limit_per_category=5, seed=7)
  assert [p.id for p in picked] == sorted(expected)
  other = _load(path, _rows(40), limit_per_category=5, seed=8)
  assert picked != other
  more = _load(path, _rows(40), limit_per_category=6, seed=7)
  assert set(picked) < set(more) and len(more) == 12
  reverse = _load(path, _rows(40)[::-1], limit_per_category=5, seed=7)
  assert reverse == picked
  assert len(_load(path, _rows(40), limit_per_category=99)) == 40


def test_digest_sees_every_field_and_no_order():
  base = prompts.Prompt('a', 'b', 'c', {'kind': 'number', 'answer': '1'})
  other = prompts.Prompt('z', 'b', 'c')
  changed = [
    prompts.Prompt('A', 'b', 'c', base.checks),
    prompts.Prompt('a', 'B', 'c', base.checks),
    prompts.Prompt('a', 'b', 'C', base.checks),
    prompts.Prompt('a', 'b', 'c', {'kind': 'number', 'answer': '2'}),
  ]
  digests = {prompts.digest([p, other]) for p in [base, *changed]}
  assert len(digests) == 5
  assert prompts.digest([other, base]) == prompts.digest([base, other])
  canonical = '[["a","b","c",{"answer":"1","kind":"number"}]]'
  expected = hashlib.sha256(canonical.encode()).hexdigest()
  assert prompts.digest([base]) == expected


def test_text_digest_sees_ids_and_texts_alone():
  base = prompts.Prompt('a', 'b', 'c', {'kind': 'number', 'answer': '1'})
  other = prompts.Prompt('z', 'b', 'c')
  for same in (
    prompts.Prompt('a', 'b', 'C', base.checks),
    prompts.Prompt('a', 'b', 'c', {'kind': 'number', 'answer': '2'}),
  ):
    assert prompts.text_digest([other, same]) == (
      prompts.text_digest([base, other])
    )
    assert prompts.digest([same, other]) != prompts.digest([base, other])
  for changed in (prompts.Prompt('A', 'b', 'c'), prompts.Prompt('a', 'B', 'c')):
    assert prompts.text_digest([changed]) != prompts.text_digest([base])
  expected = hashlib.sha256(b'[["a","b"]]').hexdigest()
  assert prompts.text_digest([base]) == expected


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'prompt': ''}, r"a.jsonl line 3 has 'prompt' '', but must have a text"),
    ({'prompt': ' \n'}, 'line 3 .* not empty'),
    ({'prompt': 7}, "line 3 has 'prompt' 7"),
    ({'prompt': None}, "line 3 has 'prompt' None"),
    ({'category': ''}, "line 3 has 'category' ''"),
    ({'category': 1}, "line 3 has 'category' 1"),
    ({'category': 'solo'}, "line 3 is the only prompt of category 'solo'"),
    ({'id': 'p1'}, "line 3 repeats the prompt id 'p1' of .*a.jsonl line 2"),
    ({'id': None}, "line 3 has 'id' None"),
    ({'id': True}, "line 3 has 'id' True"),
    ({'checks': 'x'}, "line 3 has 'checks' that are not JSON"),
    ({'checks': '{"a": NaN}'}, 'NaN is not JSON'),
    ({'checks': [1]}, r"line 3 has 'checks' \[1\], but must have an object"),
    ({'prompt': 'a \ud800'}, 'line 3 holds half of a surrogate pair'),
  ],
)
def test_bad_row_is_named(tmp_path, change, match):
  rows = _rows(8)
  rows[2] |= change
  _fails(match, _write(tmp_path / 'a.jsonl', rows))


@pytest.mark.parametrize(
  ('line', 'match'),
  [
    (b'{"prompt": ', r'a.jsonl line 2 is not JSON \(.*; write one object'),
    (b'{"prompt": NaN}', 'line 2 is not JSON .NaN'),
    (b'[1, 2]', r'line 2 is \[1, 2\], but must be a JSON object'),
    (b'{"prompt": "\xff"}', 'line 2 is not JSON .*utf-8'),
    (b'[' * 100_000, 'line 2 is not JSON'),
  ],
)
def test_bad_json_is_named_by_line(tmp_path, line, match):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(json.dumps(_rows()[0]).encode() + b'\n' + line + b'\n')
  _fails(match, path)


def test_missing_columns_give_the_nearest_name(tmp_path):
  rows = [
    {'promt': 'x', 'category': 'a', 'id': 'u'},
    {'promt': 'y', 'category': 'a', 'id': 'v'},
  ]
  path = _write(tmp_path / 'a.jsonl', rows)
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / 'a.parquet')
  for name, place in [('a.jsonl', 'line 1'), ('a.parquet', 'row 1')]:
    _fails(
      f"{name} {place} has no column 'prompt'; did you mean 'promt'.*"
      'set prompts.prompt_column',
      tmp_path / name,
    )
  _fails(
    "no column 'categry'; did you mean 'category'.*prompts.category_column",
    path, prompt_column='promt', category_column='categry',
  )  # fmt: skip
  _fails(
    "no column 'ident'.*set prompts.id_column",
    path, prompt_column='promt', id_column='ident',
  )  # fmt: skip


def test_bad_files(tmp_path):
  empty = tmp_path / 'empty.jsonl'
  empty.write_text('\n\n')
  _fails('empty.jsonl holds no prompts: add rows', empty)
  bare = tmp_path / 'bare.parquet'
  pq.write_table(pa.Table.from_pylist(_rows()).slice(0, 0), bare)
  _fails('bare.parquet holds no prompts', bare)
  text = tmp_path / 'a.parquet'
  text.write_text('{"prompt": "no Parquet"}')
  _fails('a.parquet is not a Parquet file', text)
  _fails("'.*a.txt', but must be 'quickstart' or end in", tmp_path / 'a.txt')
  _fails("'quickstrat', but must be 'quickstart'", 'quickstrat')
  _fails('there is no such file', tmp_path / 'missing.jsonl')


def test_parquet_struct_checks_are_refused(tmp_path):
  path = tmp_path / 'a.parquet'
  rows = [row | {'checks': _CHECKS} for row in _rows()]
  pq.write_table(pa.Table.from_pylist(rows), path)
  _fails("column 'checks' of type .*must hold strings", path)


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    ({'limit_per_category': -1}, 'limit_per_category is -1'),
    ({'limit_per_category': 1}, 'one prompt cannot be split'),
    ({'prompt_column': ''}, 'three different names'),
    ({'prompt_column': 'category'}, 'three different names'),
    ({'id_column': 'checks'}, 'three different names'),
  ],
)
def test_bad_config(fields, match):
  with pytest.raises(errors.UserError, match=match):
    prompts.PromptConfig(**fields)
