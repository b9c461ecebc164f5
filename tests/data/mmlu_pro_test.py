"""MMLU-Pro from its own file and from the shared table of outcomes."""

import collections
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import errors
from erp_jax.data import mmlu_pro, prompts
from erp_jax.score import verify

_END = (
  '\n\nThink step by step, and then finish your answer with "the answer is '
  '(X)", where X is the letter of the correct choice.'
)


def _row(question_id, **changes):
  """A row with all of the benchmark's columns."""
  return {
    'question_id': question_id,
    'question': f' Which is {question_id}? ',
    'options': ['one', ' two\nlines', 'three'],
    'answer': 'B',
    'answer_index': 1,
    'cot_content': '',
    'category': 'math',
    'src': 'ours',
  } | changes


def _load(path, rows):
  if path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(rows), path)
  else:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return prompts.load(prompts.PromptConfig(path=str(path), format='mmlu_pro'))


def _fails(tmp_path, match, rows):
  with pytest.raises(errors.UserError, match=match) as e:
    _load(tmp_path / 'a.jsonl', rows)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('name', ['a.parquet', 'a.jsonl'])
def test_the_published_file(tmp_path, name):
  rows = [
    _row(1),
    # Letters are given after N/A is dropped; the answer's letter decides.
    _row(2, options=['N/A', 'x', 'N/A', 'y'], answer='A', answer_index=3),
    _row(3, options=list('0123456789'), answer='J', category='other'),
    _row(4, category='other'),
  ]
  first, second, third, _ = _load(tmp_path / name, rows)
  assert first == prompts.Prompt(
    'mmlupro/1',
    'Which is 1?\n(A) one\n(B) two\nlines\n(C) three' + _END,
    'math',
    {'kind': 'choice', 'answer': 'B', 'choices': 3},
  )
  assert second.prompt == 'Which is 2?\n(A) x\n(B) y' + _END
  assert second.checks == {'kind': 'choice', 'answer': 'A', 'choices': 2}
  assert third.prompt.endswith('\n(I) 8\n(J) 9' + _END)
  assert third.category == 'other'
  for prompt in (first, second, third):
    verify.validate_checks(prompt.checks, prompt.id)
    # The prompt itself is no answer.
    assert verify.verify(prompt.checks, _END) == 0


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'category': 'maths'}, "category 'maths', .*; did you mean 'math'"),
    ({'category': None}, 'category None, .*; allowed: biology, business, ch'),
    ({'answer': 'D'}, "answer 'D', but must have one letter from A to C"),
    ({'answer': 'AB'}, "answer 'AB', but must have one letter"),
    ({'answer': ''}, "answer '', but must have one letter"),
    ({'answer': 1}, 'answer 1, but must have one letter'),
    ({'options': ['a', 'N/A']}, 'has 1 options that are not N/A, but must'),
    ({'options': []}, 'has 0 options'),
    ({'options': list('abcdefghijk')}, 'has 11 options .* from 2 to 10'),
    ({'options': 'abc'}, "options 'abc', but must have a list of texts"),
    ({'options': ['a', None]}, '.*but must have a list of texts'),
    ({'options': ['a', ' ']}, '.*but must have a list of texts'),
    ({'question': ' '}, "question ' ', but must have a text"),
    ({'question_id': None}, 'question_id None, but'),
    ({'question_id': True}, 'question_id True, but'),
  ],
)
def test_a_bad_question_is_named(tmp_path, changes, message):
  message = 'a.jsonl line 2 has ' + message.removeprefix('has ')
  _fails(tmp_path, message, [_row(1), _row(2) | changes])


@pytest.mark.parametrize('column', ['question_id', 'options', 'answer'])
def test_a_missing_column_is_named(tmp_path, column):
  row = _row(1)
  del row[column]
  _fails(tmp_path, f"line 1 has no column '{column}'", [row])


def test_other_rows_are_no_questions(tmp_path):
  _fails(tmp_path, "no column 'prompt_id'", [{'prompt': 'a', 'category': 'b'}])
  _fails(tmp_path, "repeats the prompt id 'mmlupro/1'", [_row(1), _row(1)])


def test_rows_of_outcomes_become_one_prompt(tmp_path):
  def row(i, model, **changes):
    return {
      'prompt_id': f'mmlupro/{i}',
      'prompt': f'{i}?\n(A) is in a list\n(B) too\nThen?\n(A) one\n(B) two\n3',
      'answer': 'B',
      'category': 'law',
      'model': model,
      'reward': 1.0,
    } | changes

  rows = [row(i, model) for i in (1, 2) for model in ('small', 'large')]
  first, second = _load(tmp_path / 'a.parquet', rows)
  assert first.prompt == rows[0]['prompt'] + _END
  assert first.checks == {'kind': 'choice', 'answer': 'B', 'choices': 2}
  assert second.id == 'mmlupro/2'
  _fails(
    tmp_path,
    "line 5 has the prompt id 'mmlupro/1' of .*line 1, but another",
    [*rows, row(1, 'third', answer='A')],
  )
  _fails(
    tmp_path,
    'options A, C, but they must be',
    [row(1, 'small', prompt='?\n(A) one\n(C) two')],
  )
  _fails(tmp_path, 'has 0 options', [row(1, 'small', prompt='Why?')])


@pytest.fixture(scope='module')
def real(shared_data):
  path = str(shared_data / 'mmlu_pro.parquet')
  return prompts.load(prompts.PromptConfig(path=path, format='mmlu_pro'))


def test_all_real_questions(real, shared_data):
  assert len(real) == 12032
  # As the benchmark's paper and its published results count them.
  assert collections.Counter(p.category for p in real) == {
    'math': 1351, 'physics': 1299, 'chemistry': 1132, 'law': 1101,
    'engineering': 969, 'other': 924, 'economics': 844, 'health': 818,
    'psychology': 798, 'business': 789, 'biology': 717, 'philosophy': 499,
    'computer science': 410, 'history': 381,
  }  # fmt: skip
  assert {p.category for p in real} == set(mmlu_pro.SUBJECTS)
  # Counted in the options of the published file.
  assert collections.Counter(p.checks['choices'] for p in real) == {
    10: 9982, 9: 801, 4: 607, 8: 320, 7: 158, 6: 92, 5: 52, 3: 20,
  }  # fmt: skip
  table = pq.read_table(
    shared_data / 'mmlu_pro.parquet',
    columns=['prompt_id', 'answer'],
    filters=[('model', '=', 'llama-3.1-8b-instruct')],
  ).to_pydict()
  answers = dict(zip(table['prompt_id'], table['answer'], strict=True))
  for prompt in real:
    verify.validate_checks(prompt.checks, prompt.id)
    assert prompt.checks['answer'] == answers[prompt.id]
    letter = prompt.checks['answer']
    assert verify.verify(prompt.checks, f'So the answer is ({letter}).') == 1


def test_a_real_question_in_full(real):
  (prompt,) = [p for p in real if p.id == 'mmlupro/100']
  assert prompt.prompt == (
    'Steven Moore purchased a new car for $3,462.20, including taxes and all '
    'other charges. He wishes to pay for it in 35 months. Find his monthly '
    'payments.\n(A) $100.20\n(B) $102.55\n(C) $110.35\n(D) $95.46\n(E) $98.92'
    '\n(F) $96.06\n(G) $107.49\n(H) $105.23\n(I) $89.78\n(J) $93.20' + _END
  )


def test_the_same_question_from_both_files_has_one_text(real, tmp_path):
  """Real questions, their options cut out of the shared table's text."""
  short = [
    p for p in real if p.prompt.count('\n') == 12 and ')  ' not in p.prompt
  ][:50]
  assert len(short) == 50
  rows = []
  for p in short:
    question, *options = p.prompt.removesuffix(_END).split('\n')
    rows.append(
      _row(
        int(p.id.removeprefix('mmlupro/')),
        question=question,
        options=[option[4:] for option in options],
        answer=p.checks['answer'],
        category=p.category,
      )
    )
  counts = collections.Counter(p.category for p in short)
  rows = [row for row in rows if counts[row['category']] > 1]
  kept = {f'mmlupro/{row["question_id"]}' for row in rows}
  loaded = _load(tmp_path / 'published.parquet', rows)
  assert loaded == tuple(p for p in short if p.id in kept) and len(kept) > 30


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    (
      {'format': 'mmlu-pro'},
      "format is 'mmlu-pro', but must be one of rows, mmlu",
    ),
    ({'format': 'mmlu_pro', 'id_column': 'a'}, 'mmlu_pro has its own columns'),
  ],
)
def test_bad_config(fields, match):
  with pytest.raises(errors.UserError, match=match):
    prompts.PromptConfig(**fields)
