"""What a user asks first, in every shape a conversation has."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import errors
from erp_jax.data import conversations, prompts


def _turns(*pairs):
  return [{'from': role, 'value': text} for role, text in pairs]


def _chat(*pairs):
  return [{'role': role, 'content': text} for role, text in pairs]


@pytest.mark.parametrize('make', [_turns, _chat])
@pytest.mark.parametrize('user', ['human', 'user'])
def test_the_first_user_turn_is_the_prompt(make, user):
  turns = make(
    *(('system', 'Be brief.'), (user, ' Why? \n'), ('assistant', 'So.')),
    *((user, 'Really?'), ('system', 'Stop.')),
  )
  assert conversations.opening(turns, False, 'x').text == ' Why? \n'
  kept = conversations.opening(turns, True, 'x')
  assert kept == ('Be brief.\n\n Why? \n', '')
  # It may be a reply, where the conversation's beginning is missing.
  assert conversations.opening(turns[2:], True, 'x').text == 'Really?'


def test_several_or_empty_system_turns():
  turns = _turns(('system', 'A'), ('system', ' '), ('system', None))
  turns += _turns(('system', 'B'), ('human', 'C'))
  assert conversations.opening(turns, True, 'x').text == 'A\n\nB\n\nC'
  assert conversations.opening(turns[1:3] + turns[4:], True, 'x').text == 'C'


@pytest.mark.parametrize(
  ('turns', 'missing'),
  [
    ([], 'no_user_turn'),
    (None, 'no_user_turn'),
    (_turns(('system', 'A'), ('gpt', 'B')), 'no_user_turn'),
    (_turns(('human', '')), 'empty_user_turn'),
    (_turns(('human', None), ('human', 'B')), 'empty_user_turn'),
    (_chat(('system', 'A'), ('user', ' \n')), 'empty_user_turn'),
  ],
)
@pytest.mark.parametrize('keep', [False, True])
def test_without_a_usable_user_turn_it_is_missing(turns, missing, keep):
  assert conversations.opening(turns, keep, 'x') == ('', missing)


@pytest.mark.parametrize(
  ('turns', 'match'),
  [
    ('Hello', "line 3 has a conversation 'Hello', but must have a list"),
    ({'from': 'human'}, 'line 3 has a conversation {'),
    (['Hello'], "line 3 has a turn 'Hello', but must have from and value"),
    ([{'from': 'human', 'content': 'x'}], 'must have from and value there, or'),
    (
      _turns(('humon', 'x')),
      "a turn of 'humon', but only .* system, human, us",
    ),
    (_turns(('human', 'x'), ('GPT', 'y')), "line 3 has a turn of 'GPT'"),
    (_turns((None, 'x')), 'line 3 has a turn of None'),
    (
      _turns(('human', 7)),
      "line 3 has a turn of 'human' with 7, but must have",
    ),
  ],
)
def test_what_is_no_conversation_is_named(turns, match):
  with pytest.raises(errors.UserError, match=match):
    conversations.opening(turns, False, 'line 3')


def _rows():
  rows = [
    {
      'turns': _turns(
        ('system', f's{i % 2}'), ('human', f'q{i}'), ('gpt', 'a')
      ),
      'source': f'org/{"ab"[i % 2]}-2.5',
    }
    for i in range(8)
  ]
  rows[5]['turns'] = _turns(('gpt', 'Hello'))
  rows[6]['turns'] = _turns(('human', ' '), ('gpt', 'Hello'))
  return rows


def _config(path, **fields):
  return prompts.PromptConfig(
    path=str(path),
    format='conversations',
    prompt_column='turns',
    category_column='source',
    **fields,
  )


@pytest.mark.parametrize('kind', ['jsonl', 'parquet'])
def test_a_file_of_conversations(tmp_path, kind):
  path = tmp_path / f'a.{kind}'
  if kind == 'jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in _rows()))
  else:
    pq.write_table(pa.Table.from_pylist(_rows()), path)
  found = prompts.select(_config(path))
  assert sorted(p.prompt for p in found.prompts) == [
    *('q0', 'q1', 'q2', 'q3', 'q4', 'q7')
  ]
  assert found.counts == {
    'org/a-2.5': {
      'category': 'org/a-2.5', 'rows': 4, 'kept': 3, 'empty_user_turn': 1,
    },
    'org/b-2.5': {
      'category': 'org/b-2.5', 'rows': 4, 'kept': 3, 'no_user_turn': 1,
    },
  }  # fmt: skip
  kept = prompts.load(_config(path, system='keep'))
  # The row of an empty user turn has no system turn either.
  assert sorted(p.prompt for p in kept) == [
    *('s0\n\nq0', 's0\n\nq2', 's0\n\nq4', 's1\n\nq1', 's1\n\nq3', 's1\n\nq7')
  ]


def test_a_file_without_any_user_turn_says_so(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(
    ''.join(json.dumps(row) + '\n' for row in (_rows()[5], _rows()[6]))
  )
  match = r'holds no prompts \(empty_user_turn 1, no_user_turn 1\): add rows'
  with pytest.raises(errors.UserError, match=match):
    prompts.load(_config(path))


def test_a_missing_column_is_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(json.dumps({'conversation': [], 'source': 'a'}) + '\n')
  with pytest.raises(
    errors.UserError, match="no column 'turns'.*prompt_column"
  ):
    prompts.load(_config(path))
