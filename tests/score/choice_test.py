import random
import re
import time

import pytest

from erp_jax.core import errors
from erp_jax.data import thinking
from erp_jax.score import choice, verify

# By hand, from the three rules; '' is no answer.
_GOLDEN = [
  ('The answer is (C).', 'C'),
  ('The answer is C', 'C'),
  ('the answer is (C', 'C'),
  ('So, the answer is (J) indeed.', 'J'),
  # 1: the first wins, whatever comes later.
  ('The answer is (B). Wait, no: the answer is (D).', 'B'),
  ('Answer: D\nSo the answer is (B).', 'B'),
  ('The answer is (B).\n\nAnswer: D', 'B'),
  ('The correct answer is F because A, B and C fail.', 'F'),
  # 1 does not ask for the end of a word, nor for choices beyond J.
  ('The answer is Because of friction, so (C).', 'B'),
  ('The answer is (X), where X is C', 'C'),
  ('The answer is (K).', ''),
  # What 1 does not read.
  ('The answer is **C**.', 'C'),
  ('The answer is **C**, as in A', 'A'),
  ('The answer is: C', 'C'),
  ('the answer is:\n\n(C). Not the D', 'D'),
  (r'The answer is $\boxed{C}$', 'C'),
  (r'The final result is \boxed{E}, not \boxed{F}.', 'F'),
  ('The answer is c.', ''),
  ('The answer  is C; B is not', 'B'),
  ('The Answer is C; B is not', 'B'),
  ('The answer\nis C', 'C'),
  # 2: of the first line that has one, the last.
  ('Answer: C', 'C'),
  ('**Answer: C**, not D', 'C'),
  ('Answer:\n\nC, not D', 'C'),
  ('Answer:C or answer: D; not E', 'D'),
  ('Answer: C\nAnswer: D', 'C'),
  ('Answer: Answer: B', 'B'),
  ('Answer:\nAnswer: B', 'A'),  # The A of the second line.
  ('**Answer:** C. D', 'D'),  # Left to 3.
  ('Answer: (C) or D', 'D'),
  ('ANSWER: C or D', 'D'),
  ('Answer: It depends. E', 'I'),
  # 3: the last one that stands alone.
  ('C', 'C'),
  ('(C).', 'C'),
  ('Either A or B, but not AB', 'B'),
  ('First C\nthen D\n\nand ABC', 'D'),
  ('I do not know.', 'I'),
  ('A guess', 'A'),
  ('Option_C', ''),
  ('C3 and C-3', 'C'),
  ('', ''),
  ('none of these', ''),
  ('K or L', ''),
]

_THINKING = [
  ('<think>\nThe answer is (A).\n</think>\n\nThe answer is (B).', 'B'),
  ('<think>\n\n</think>\n\nThe answer is (B).', 'B'),
  ('<think>the answer is (B)', ''),
  (' \n<think>\nthe answer is (B)\n', ''),
  ('The answer is (A)?\n</think>\n\nThe answer is (B).', 'B'),
  ('<think>B</think>A <think>C</think>D', 'D'),
  ('<think>B</think>\n\n<think>the answer is (C)', ''),
  ('<think>the answer is (B)</think>', ''),
  ('The answer is (C), says <think>.', 'C'),
]


def _independent(text):
  """The rules again, letter by letter: no regular expression is shared."""
  letters = set('ABCDEFGHIJ')
  for start in range(len(text)):
    rest = text[start:]
    if rest.startswith('answer is '):
      rest = rest.removeprefix('answer is ').removeprefix('(')
      if rest[:1] in letters:
        return rest[0]
  position = 0
  for line in text.split('\n'):
    found = ''
    for start in range(len(line)):
      rest = text[position + start :]
      if rest[:7] in ('answer:', 'Answer:'):
        rest = rest[7:].lstrip()
        found = rest[0] if rest[:1] in letters else found
    if found:
      return found
    position += len(line) + 1
  words = ''.join(c if c.isalnum() or c == '_' else ' ' for c in text).split()
  return next((word for word in words[::-1] if word in letters), '')


@pytest.mark.parametrize(('text', 'expected'), _GOLDEN)
def test_golden(text, expected):
  assert choice.extract(text) == expected
  assert _independent(text) == expected


def test_same_as_the_rule_written_another_way():
  rng = random.Random(0)
  pieces = [
    *('answer is ', 'the answer is (', 'Answer:', 'answer: ', 'Answer is '),
    *('answer:', 'A', 'B', 'J', 'K', 'I', 'c', '(C)', '**D**', ')', '. ', ' '),
    *('\n', '\n\n', '\t', '_', 'word', 'Because', r'\boxed{E}', '3', 'é', '-'),
  ]
  seen = set()
  for _ in range(4000):
    text = ''.join(rng.choices(pieces, k=rng.randint(1, 12)))
    assert choice.extract(text) == _independent(text), text
    seen.add(_independent(text))
  assert seen == {'', *'ABCDEIJ'}


def test_long_runaway_texts_take_no_time():
  texts = ['A ' * 100_000, 'answer ' * 30_000, 'Answer:' + '\n' * 100_000]
  start = time.monotonic()
  assert [choice.extract(text) for text in texts] == ['A', '', '']
  assert time.monotonic() - start < 2


@pytest.mark.parametrize(('text', 'expected'), _THINKING)
def test_only_what_follows_the_thinking_counts(text, expected):
  assert choice.extract(thinking.visible_text(text)) == expected


def test_a_choice_is_right_or_wrong():
  checks = {'kind': 'choice', 'answer': 'C', 'choices': 4}
  verify.validate_checks(checks, 'row')
  for text, expected in [
    ('The answer is (C).', 1),
    ('The answer is (D).', 0),
    ('The answer is (J).', 0),  # There is no J, yet J is what was answered.
    ('C, I think', 0),
    ('', 0),
    ('no idea', 0),
  ]:
    assert verify.verify(checks, text) == expected


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'answer': 'E'}, "answer is 'E', but must be one letter from A to D"),
    ({'answer': 'c'}, "answer is 'c', but must be one letter"),
    ({'answer': 'AB'}, "answer is 'AB', but must be one letter"),
    ({'answer': ''}, 'must be a string that is not empty'),
    ({'choices': 1}, 'choices is 1, but must be from 2 to 10'),
    ({'choices': 11}, 'choices is 11, but must be from 2 to 10'),
    ({'choices': '4'}, 'an integer >= 0'),
    ({'choice': 4}, re.escape("did you mean 'choices'")),
  ],
)
def test_bad_checks_are_named(fields, message):
  checks = {'kind': 'choice', 'answer': 'C', 'choices': 4} | fields
  with pytest.raises(errors.UserError, match=message) as e:
    verify.validate_checks(checks, 'row 3')
  assert str(e.value).startswith('row 3: checks') and '\n' not in str(e.value)
