import pyarrow as pa
import pytest

from erp_jax.probe import response_flags


@pytest.mark.parametrize(
  'response',
  [
    "I can't help with that.",
    'I can\u2019t assist with this request.',
    'I cannot provide instructions for that, but here is a safer idea.',
    "I'm sorry, but I can't create that image for you.",
    'Sorry, I am not able to answer questions about it.',
    'Unfortunately, I am unable to fulfill your request.',
    'I apologize. I will not write this.',
    'As an AI language model, I cannot engage in that.',
    "I'm sorry, but as an AI, I can't safely describe it.",
    '**I must decline** to take part in this.',
    '"I won\'t generate such text."',
    '\n\n  I WILL NOT ASSIST you.',
    '<think>\nIs this allowed?\n</think>\n\nI refuse to do it.',
    "I'm not comfortable with this.",
  ],
)
def test_refusals_are_told(response):
  assert response_flags.is_refusal(response)


@pytest.mark.parametrize(
  'response',
  [
    '',
    'Sure, here is the poem.',
    "I can't help but admire this.",
    'I cannot recommend this book enough.',
    "I can't stress this enough: test first.",
    "I'm sorry to hear that you are ill. Here is what may help.",
    'I am not a doctor, but rest is good.',
    'Unfortunately, the sum diverges.',
    'The hero said: I cannot help you.',
    'As an AI, I find this lovely.',
    "<think>\nI can't help with that.\n</think>\n\nOf course, here it is.",
    "<think>\nI can't help with that.",
    'I cannotprovide',
    'def f():\n  return "I cannot help with that"',
  ],
)
def test_answers_are_not(response):
  assert not response_flags.is_refusal(response)


def test_a_table_has_each_flag_by_row():
  rows = [
    ("I can't help with that.", 'stop'),
    (' \n', 'stop'),
    ('One, two, three, fo', 'length'),
    ('<think>\nhm', 'length'),
    ('<think>\nhm\n</think>\n\n', 'stop'),
    ('Four.', 'stop'),
    ('Sorry, I cannot provide th', 'length'),
  ]
  text, finish_reason = zip(*rows, strict=True)
  flags = response_flags.of_table(
    pa.table({'text': text, 'finish_reason': finish_reason})
  )
  assert set(flags) == set(response_flags.FLAGS)
  assert flags['refusal'].tolist() == [1, 0, 0, 0, 0, 0, 1]
  assert flags['empty'].tolist() == [0, 1, 0, 1, 1, 0, 0]
  assert flags['cut'].tolist() == [0, 0, 1, 1, 0, 0, 1]
