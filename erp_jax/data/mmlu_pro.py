"""MMLU-Pro: rows of its files become rows of a prompt file.

Two kinds of file are read, told apart by their columns:

- the benchmark's own, hub data set TIGER-Lab/MMLU-Pro: question_id, question,
  options, answer, category; the others are not used. As the benchmark does,
  options 'N/A' are dropped before the rest get their letters, and `answer`
  decides: `answer_index` contradicts it in a published question (3983).
- recorded outcomes of models on it, a row a (prompt, model): prompt_id, prompt,
  answer, category. The prompt ends in its options, each a line '(A) …'.

A question has the same id in both, mmlupro/QUESTION_ID; its text may differ in
blanks and by the revisions that the benchmark has had.

The prompt is the question, its options, and zero-shot instructions in the
spirit of the benchmark's (it gives five worked examples before them). Neither
subject nor examples are in it: an embedding of it is of the question. The
instructions come last, where an encoder that cuts long prompts cuts them first.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from erp_jax.core import config, errors

SUBJECTS = (
  *('biology', 'business', 'chemistry', 'computer science', 'economics'),
  *('engineering', 'health', 'history', 'law', 'math', 'other', 'philosophy'),
  *('physics', 'psychology'),
)

_LETTERS = 'ABCDEFGHIJ'
_MISSING = 'N/A'
_INSTRUCTIONS = (
  'Think step by step, and then finish your answer with "the answer is (X)", '
  'where X is the letter of the correct choice.'
)
_LABEL = re.compile(r'^\(([A-J])\)', re.MULTILINE)


def prompt_rows(
  rows: Iterable[tuple[str, Mapping[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
  """(place, row) with id, prompt, category, checks, from those of a file.

  The rows of one prompt in a table of outcomes become one.
  Raises UserError, naming the place, for a row without one of its columns, for
  a subject that MMLU-Pro lacks, for a question without 2 to 10 options, and for
  an answer that is none of their letters.
  """
  seen = {}
  for where, row in rows:
    if 'options' in row or 'question' in row:
      yield where, _published(row, where)
      continue
    prompt_id = _text(row, 'prompt_id', where)
    question = [row.get(name) for name in ('prompt', 'answer', 'category')]
    if prompt_id not in seen:
      seen[prompt_id] = where, question
      yield where, _recorded(prompt_id, row, where)
    elif seen[prompt_id][1] != question:
      raise errors.UserError(
        f'{where} has the prompt id {prompt_id!r} of {seen[prompt_id][0]}, but '
        'another prompt, answer or category: give each question its own id.'
      )


def _published(row: Mapping[str, Any], where: str) -> dict[str, Any]:
  question_id = _column(row, 'question_id', where)
  if isinstance(question_id, bool) or not isinstance(question_id, int | str):
    raise errors.UserError(
      f'{where} has question_id {question_id!r}, but must have a number there.'
    )
  options = _column(row, 'options', where)
  if not isinstance(options, list) or not all(
    isinstance(option, str) and option.strip() for option in options
  ):
    raise errors.UserError(
      f'{where} has options {options!r:.60}, but must have a list of texts.'
    )
  options = [option for option in options if option.strip() != _MISSING]
  # More options than letters are refused with the letters.
  lines = [
    f'({letter}) {option.strip()}'
    for letter, option in zip(_LETTERS, options, strict=False)
  ]
  question = '\n'.join([_text(row, 'question', where), *lines])
  return _made(f'mmlupro/{question_id}', question, len(options), row, where)


def _recorded(
  prompt_id: str, row: Mapping[str, Any], where: str
) -> dict[str, Any]:
  question = _text(row, 'prompt', where)
  labels = ''.join(_LABEL.findall(question))
  # A question may have a list with such labels itself.
  labels = labels[max(labels.rfind('A'), 0) :]
  if not _LETTERS.startswith(labels):
    raise errors.UserError(
      f'{where} has a prompt with the options {", ".join(labels)}, but they '
      'must be (A), (B) and so on, a line each: correct them.'
    )
  return _made(prompt_id, question, len(labels), row, where)


def _made(
  prompt_id: str,
  question: str,
  num_options: int,
  row: Mapping[str, Any],
  where: str,
) -> dict[str, Any]:
  if not 2 <= num_options <= len(_LETTERS):
    raise errors.UserError(
      f'{where} has {num_options} options that are not {_MISSING}, but must '
      f'have from 2 to {len(_LETTERS)}: correct or delete it.'
    )
  letters = _LETTERS[:num_options]
  answer = _column(row, 'answer', where)
  if answer not in list(letters):
    raise errors.UserError(
      f'{where} has answer {answer!r}, but must have one letter from '
      f'{letters[0]} to {letters[-1]}: it has {num_options} options.'
    )
  category = _column(row, 'category', where)
  if category not in SUBJECTS:
    raise errors.UserError(
      f'{where} has category {category!r}, which is no subject of MMLU-Pro; '
      f'{config.did_you_mean(str(category), SUBJECTS)}'
    )
  return {
    'id': prompt_id,
    'prompt': f'{question}\n\n{_INSTRUCTIONS}',
    'category': category,
    'checks': {'kind': 'choice', 'answer': answer, 'choices': num_options},
  }


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
  value = _column(row, column, where)
  if not isinstance(value, str) or not value.strip():
    raise errors.UserError(
      f'{where} has {column} {value!r}, but must have a text there that is not '
      'empty: write one, or delete the row.'
    )
  return value.strip()


def _column(row: Mapping[str, Any], column: str, where: str) -> Any:
  if column not in row:
    raise errors.UserError(
      f'{where} has no column {column!r}: prompts.format mmlu_pro reads the '
      "benchmark's question_id, question, options, answer and category, or a "
      "table of outcomes' prompt_id, prompt, answer and category."
    )
  return row[column]
