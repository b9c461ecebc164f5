import json
import pathlib

import pytest

from erp_jax.core import errors
from erp_jax.data import prompts
from erp_jax.score import constraints, verify

# One full-marks response per quickstart prompt, written by hand with it.
_ANSWERS = json.loads(
  pathlib.Path(__file__).with_name('quickstart_answers.json').read_text()
)
_QUICKSTART = prompts.load(prompts.PromptConfig())


def _number(answer):
  return {'kind': 'number', 'answer': answer}


def _answer(*accepted, none=None):
  checks = {'kind': 'answer', 'any': list(accepted)}
  return checks | ({'none': none} if none else {})


def _one(kind, **fields):
  return {'kind': 'constraints', 'all': [{'kind': kind, **fields}]}


_NUMBERS = [
  ('42', '42', 1),
  ('42', '43', 0),
  ('42', '', 0),
  ('42', ' \n\t', 0),
  ('42', 'I do not know.', 0),
  ('42', 'The result is 42.', 1),
  ('42', '40 + 2 = 42', 1),
  ('42', '42 is what 40 and 2 make', 0),
  ('3', '3.0', 1),
  ('3', '3.01', 0),
  ('1000', 'about 1,000', 1),
  ('1,234,567', '1234567', 1),
  ('5', '1.000,5', 1),  # The decimal comma is not supported.
  ('1000.5', '1.000,5', 0),
  ('3', '1,2,3', 1),
  ('-6', 'It is −6 degrees', 1),
  ('-6', '-6', 1),
  ('-6', '6', 0),
  ('3', '5-3', 1),
  ('-3', '(-3)', 1),
  ('-5', '-$5', 1),
  ('30', '$30.00', 1),
  ('15', '15%', 1),
  ('0.15', '15%', 0),
  ('3/4', '0.75', 1),
  ('3/4', '6/8.', 1),
  ('0.75', r'\frac{3}{4}', 1),
  ('1/3', '0.33', 0),
  ('1/3', '1/0', 0),
  ('.5', '0.5', 1),
  ('1/2', 'We get ½', 0),
  ('200', '2e2', 1),
  ('15', 'The area is 15 cm^2.', 1),
  ('15', 'Its area is 15 m^{2}', 1),
  ('7', '7 (see x2)', 1),
  ('5', '#### 5\nas 2 and 3', 1),
  ('3', '#### 5\nas 2 and 3', 0),
  ('12', 'The answer is 12, not 13.', 1),
  ('12', 'The answer is 12. It was 13 before.', 1),
  ('8', 'The answer is 5 + 3 = 8.', 1),
  ('12', 'Answer: 12\nCheck: 13', 1),
  ('12', '**Answer:** 12 (of 30)', 1),
  ('12', 'The answer is 7. No, the answer is 12. Sorry, 1', 1),
  ('7', 'The answer is 7. No, the answer is 12. Sorry, 1', 0),
  ('9', r'So \boxed{9}, from 4 and 5', 1),
  ('3/4', r'The answer is \boxed{\frac{3}{4}} of 100', 1),
  ('3/4', r'The answer is \frac{3}{4} of 100', 1),
  ('12', 'So the answer is 12, and ' + 'answer is ' * 5_000, 1),
  ('12', 'The answer is as follows.\n6 + 6 = 12', 1),
  ('1000', r'\$1{,}000', 1),
  ('5', '```\n5\n```', 1),
  ('5', '9' * 5000, 0),
]

_ANSWER_ROWS = [
  (_answer('Paris'), 'It is PARIS.', 1),
  (_answer('Paris'), 'Comparison', 0),
  (_answer('Paris'), '', 0),
  (_answer('Paris', 'Lutetia'), 'lutetia', 1),
  (_answer('True', none=['False']), 'True', 1),
  (_answer('True', none=['False']), 'True or False', 0),
  (_answer('[0, 1]'), 'It prints [0,1].', 1),
  (_answer('[0, 1]'), '[[0, 1]]', 0),
  (_answer('[0, 1]'), '[[0, 1], 2]', 0),
  (_answer("['a', 'b']"), '["a", "b"]', 1),
  (_answer('5'), '5.5', 0),
  (_answer('1'), '1,000', 0),
  (_answer('7'), '7, 8', 1),
  (_answer('order by'), 'Use ORDER\n  BY x', 1),
  (_answer('order by'), 'orderby', 0),
  (_answer("don't"), 'Don’t!', 1),
]

_FENCED = '```python\ndef f(x):\n  return x\n```'
_CONSTRAINTS = [
  (_one('words', exact=3), 'one two - three!', 1),
  (_one('words', exact=3), '1. one\n2. two three', 1),
  (_one('words', max=2), 'one two three', 0),
  (_one('words', min=4), 'one two three', 0),
  (_one('words', min=0), '', 0),
  (_one('sentences', exact=2), 'It is 3.5 m. Really?!', 1),
  (_one('sentences', exact=2), '1. Wash\n2. Dry', 0),
  (_one('sentences', exact=2), 'No stop\n\nNo stop', 1),
  (_one('sentences', exact=1), 'She said "Go." then left', 0),
  (_one('lines', exact=2), 'a\n\n b \n', 1),
  (_one('lines', exact=1), '```\na\n```', 1),
  (_one('bullets', exact=3), '- a\n* b\n1) c\nd', 1),
  (_one('bullets', exact=1), '-a', 0),
  (_one('occurrences', of='very', exact=2), 'Very, very everyday', 1),
  (_one('occurrences', of=',', min=2), 'a, b, c', 1),
  (_one('includes', words=['a', 'b']), 'B a', 1),
  (_one('includes', words=['a', 'b']), 'a c', 0),
  (_one('mentions', any=['a', 'b']), 'b', 1),
  (_one('mentions', any=['a', 'b']), 'ab', 0),
  (_one('excludes', words=['cold']), 'colder', 1),
  (_one('excludes', words=['cold']), 'so Cold.', 0),
  (_one('excludes', words=['cold']), '', 0),
  (_one('case', **{'is': 'lower'}), 'all small 1', 1),
  (_one('case', **{'is': 'lower'}), 'Not small', 0),
  (_one('case', **{'is': 'lower'}), '123', 0),
  (_one('case', **{'is': 'upper'}), 'LOUD!', 1),
  (_one('case', **{'is': 'upper'}), 'LOUd', 0),
  (_one('case', **{'is': 'title'}), "The King's 3rd Day", 1),
  (_one('case', **{'is': 'title'}), 'The king', 0),
  (_one('starts', **{'with': 'Yes,'}), '"yes, sir"', 1),
  (_one('starts', **{'with': 'I'}), 'It is', 0),
  (_one('ends', **{'with': '?'}), 'Why??', 1),
  (_one('ends', **{'with': '?'}), 'Why? Because.', 0),
  (_one('ends', **{'with': 'mat'}), 'on the mat.', 1),
  (_one('ends', **{'with': 'mat'}), 'a format', 0),
  (_one('ends', **{'with': 'mat.'}), 'on the mat', 0),
  (_one('has_digit'), 'at 12', 1),
  (_one('has_digit'), 'at twelve', 0),
  (_one('json', keys=['a']), '{"a": 1, "b": 2}', 1),
  (_one('json', keys=['a']), 'Here:\n```json\n{"a": 1}\n```\nDone', 1),
  (_one('json', keys=['a']), 'Here: {"a": 1}', 0),
  (_one('json', keys=['a']), '{"b": 1}', 0),
  (_one('json', keys=['a']), '["a"]', 0),
  (_one('json', keys=['a']), '{"a": NaN}', 0),
  (_one('json', keys=['a']), "{'a': 1}", 0),
  (_one('json', keys=['a']), '[' * 100_000, 0),
  (_one('python', function='f', args=1), _FENCED, 1),
  (_one('python', function='f', args=2), _FENCED, 0),
  (_one('python', function='g', args=1), _FENCED, 0),
  (_one('python', function='f', args=1), _FENCED[:-4] + '\nf(', 1),
  (_one('python', function='f', args=1), 'Sure:\ndef f(x): return x\nOk?', 1),
  (_one('python', function='f', args=1), 'Use `f = lambda x: x`.', 1),
  (_one('python', function='f', args=1), 'def f(x) return x', 0),
  (_one('python', function='f', args=1), 'class A:\n  def g(f): pass', 0),
  (_one('python', function='f', args=1, uses=['y']), _FENCED, 0),
  (_one('python', function='f', args=1), r'def f(x): return "\d"', 1),
  (_one('python', function='f', args=1), 'def f(x): 0\0', 0),
  (_one('python', function='f', args=1), '(' * 100_000, 0),
  (_one('python', function='f', args=1), '-' * 3_000 + '1', 0),
  (_one('python', function='f', args=1), '-' * 100_000 + '1', 0),
  (_one('python', function='f', args=1), 'def f(x): "\ud800"', 0),
  (_one('expression', uses=['n', 'm']), '```\n[n,\nm]\n``` so', 1),
  (_one('expression', uses=['sum', 'n']), 'Try `sum(n)`', 1),
  (_one('expression', uses=['sum', 'n']), 'sum(m)', 0),
  (_one('expression', uses=['s', 'split']), 's.split()', 1),
  (_one('expression', uses=['n']), 'x = n', 0),
]


@pytest.mark.parametrize(('answer', 'response', 'expected'), _NUMBERS)
def test_number(answer, response, expected):
  checks = _number(answer)
  verify.validate_checks(checks, 'row')
  assert verify.verify(checks, response) == expected


@pytest.mark.parametrize(
  ('checks', 'response', 'expected'), _ANSWER_ROWS + _CONSTRAINTS
)
def test_answer_and_constraints(checks, response, expected):
  verify.validate_checks(checks, 'row')
  assert verify.verify(checks, response) == expected


def test_every_constraint_is_seen_to_hold_and_to_fail():
  for kind in constraints.RULES:
    expected = {e for c, _, e in _CONSTRAINTS if c['all'][0]['kind'] == kind}
    assert expected == {0, 1} or kind in ('lines', 'occurrences')
  for kind, fields, response in [
    ('lines', {'max': 1}, 'a\nb'),
    ('occurrences', {'of': 'a', 'exact': 1}, 'a a'),
  ]:
    assert verify.verify(_one(kind, **fields), response) == 0


def test_constraints_give_the_share_met():
  checks = {
    'kind': 'constraints',
    'all': [
      {'kind': 'words', 'exact': 1},
      {'kind': 'includes', 'words': ['red']},
      {'kind': 'has_digit'},
      {'kind': 'case', 'is': 'lower'},
    ],
  }
  for response, expected in [('red', 0.75), ('Red one', 0.25), ('red1', 0.75)]:
    assert verify.verify(checks, response) == expected


@pytest.mark.parametrize(
  ('checks', 'message'),
  [
    ({}, 'object with a kind; allowed: answer, choice, constraints, number'),
    ('42', "'42'"),
    ({'kind': 'numbr', 'answer': '1'}, "did you mean 'number'"),
    ({'kind': 7}, 'allowed: answer, choice, constraints, number'),
    ({'kind': 'number'}, "lacks the field 'answer'"),
    ({'kind': 'number', 'anwser': '1'}, "did you mean 'answer'"),
    ({'kind': 'number', 'answer': 1}, 'must be a string'),
    ({'kind': 'number', 'answer': 'one'}, 'must hold one number'),
    ({'kind': 'number', 'answer': '1 or 2'}, 'must hold one number'),
    ({'kind': 'answer', 'any': []}, 'one or more strings'),
    ({'kind': 'answer', 'any': 'Paris'}, 'one or more strings'),
    ({'kind': 'answer', 'any': ['']}, 'one or more strings'),
    ({'kind': 'constraints', 'all': []}, 'one or more objects'),
    (_one('wrds', exact=1), r"all\[0\].kind is 'wrds'; did you mean 'words'"),
    (_one('number', answer='1'), r'all\[0\].kind is .number.'),
    (_one('words'), 'give exact, or min, or max'),
    (_one('words', exact=1, min=1), 'give exact, or min, or max'),
    (_one('words', min=3, max=2), 'min 3 above max 2: swap them'),
    (_one('words', exact=True), 'an integer >= 0'),
    (_one('words', exact=-1), 'an integer >= 0'),
    (_one('case', **{'is': 'camel'}), "'lower', 'upper' or 'title'"),
    (_one('python', function='f g', args=1), 'a Python name'),
    (_one('has_digit', max=1), 'max is not a field of kind .has_digit.'),
  ],
)
def test_bad_checks_are_named(checks, message):
  with pytest.raises(errors.UserError, match=message) as e:
    verify.validate_checks(checks, 'a.jsonl line 3')
  assert str(e.value).startswith('a.jsonl line 3: checks')
  assert '\n' not in str(e.value)


def test_final_number_of_nothing_is_empty():
  assert verify.final_number('no number') == []


def test_quickstart_answers_cover_the_quickstart():
  assert sorted(_ANSWERS) == [p.id for p in _QUICKSTART]


@pytest.mark.parametrize('prompt', _QUICKSTART, ids=lambda p: p.id)
def test_quickstart_row_can_be_earned_and_missed(prompt):
  verify.validate_checks(prompt.checks, prompt.id)
  assert verify.verify(prompt.checks, _ANSWERS[prompt.id]) == 1
  assert verify.verify(prompt.checks, '') == 0
  # Neither echoing the prompt nor saying nothing in particular is enough.
  for lazy in (prompt.prompt, 'I do not know.', 'Sure! Here is the answer.'):
    assert verify.verify(prompt.checks, lazy) < 1
  if prompt.checks['kind'] == 'number':
    assert verify.verify(prompt.checks, prompt.checks['answer']) == 1
  if prompt.checks['kind'] == 'answer':
    for accepted in prompt.checks['any']:
      assert verify.verify(prompt.checks, accepted) == 1
