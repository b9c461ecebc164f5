r"""The reward `verify`: does a response pass the checks of its prompt?

Four kinds of check:

- {"kind": "number", "answer": "3/4"}: 1 if the response's final number is the
  answer, else 0. The final number is the last one in the response, unless it
  marks its answer with `####`, `\boxed{`, `answer is`, `answer:` or
  `answer =`: then it is the first number after the last such marker in the same
  sentence, or after the sentence's last equals sign (`answer is 2 + 3 = 5`).
  Numbers are compared as exact rationals, so 3.0 = 3 and 0.75 = 3/4, but 0.33
  is not 1/3. Understood: a sign (also the Unicode minus), 1,000 and 1{,}000,
  decimals with a point, 1e5, a/b, \frac{a}{b}; $, € and £ before and % after a
  number mean nothing. Not understood: a decimal comma (1.000,5 reads as 1 and
  then 5), mixed numbers (1 1/2 reads as 1 and then 1/2), number words,
  exponents (^2 is left out), numbers that are part of a word (x2).
- {"kind": "answer", "any": ["Paris"], "none": ["London"]}: 1 if one of `any`
  stands in the response as whole words, casing aside, and none of `none`
  (optional: the wrong choices, so that naming all of them earns nothing).
- {"kind": "choice", "answer": "C", "choices": 10}: 1 if C is the letter that
  the response gives as its answer, else 0; `erp_jax.score.choice` says which
  letter that is. The answer is one of the first `choices` letters.
- {"kind": "constraints", "all": [...]}: the share of the constraints that hold;
  `erp_jax.score.constraints` lists them.

An empty response is worth 0 under every kind. What a model thought before its
response is cut off before it comes here (score.stage).
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from erp_jax.core import errors
from erp_jax.score import choice, constraints

_INTEGER = r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)'
_NUMBER = re.compile(
  r'(?:(?<![\w)\]])(?P<sign>[-+]))?[$€£]?'  # In 5-3 the minus is no sign.
  r'(?<![A-Za-z_0-9])(?<![0-9]\.)'
  rf'(?P<top>(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{{1,2}}\b)?)'
  rf'(?:/(?P<bottom>{_INTEGER})(?!\.?[0-9]))?'
)
_MARKER = re.compile(
  r'####|\\boxed\s*\{|\banswer[\s*_]*(?:\bis\b|=|:)', re.IGNORECASE
)
_OPENING = re.compile(r'(?:[\s*_:$(\[]|\\[(\[])*')  # So '\(' but not '\frac'.
_SENTENCE_END = re.compile(r'[.!?](?=\s|\Z)|\n')
_FRAC = re.compile(r'\\[dt]?frac\{\s*(-?[0-9]+)\s*\}\{\s*([0-9]+)\s*\}')
_EXPONENT = re.compile(r'\^(?:\{[^{}]*\}|[-+]?[0-9]+)')
# Longer digit strings are runaway text; int() refuses those above 4300 digits.
_MAX_DIGITS = 100


def verify(checks: Mapping[str, Any], response: str) -> float:
  """The reward in [0, 1] of a response under checks that are valid."""
  if not response.strip():
    return 0.0
  return float(RULES[checks['kind']].check(checks, response))


def validate_checks(checks: Any, where: str) -> None:
  """Raises UserError, naming the row `where`, unless `verify` can use them."""
  where = f'{where}: checks'
  constraints.validate(checks, RULES, where)
  if checks['kind'] == 'number' and len(numbers(checks['answer'])) != 1:
    raise errors.UserError(
      f'{where}.answer is {checks["answer"]!r}, but must hold one number, '
      "such as '42', '-3.5', '1,000' or '3/4'."
    )
  if checks['kind'] == 'choice':
    allowed = choice.LETTERS[: checks['choices']]
    if not 2 <= checks['choices'] <= len(choice.LETTERS):
      raise errors.UserError(
        f'{where}.choices is {checks["choices"]}, but must be from 2 to '
        f'{len(choice.LETTERS)}.'
      )
    if checks['answer'] not in list(allowed):
      raise errors.UserError(
        f'{where}.answer is {checks["answer"]!r}, but must be one letter from '
        f'{allowed[0]} to {allowed[-1]}: there are {checks["choices"]} choices.'
      )
  if checks['kind'] == 'constraints':
    for i, constraint in enumerate(checks['all']):
      constraints.validate(constraint, constraints.RULES, f'{where}.all[{i}]')


def numbers(text: str) -> list[Fraction]:
  """All numbers in a text, in order, exactly; a/0 is none."""
  text = text.replace('−', '-').replace('–', '-').replace('⁄', '/')
  text = text.replace('{,}', ',').replace('\\$', '$')
  text = _EXPONENT.sub('', _FRAC.sub(r'\1/\2', text))
  found = []
  for match in _NUMBER.finditer(text):
    bottom = (match['bottom'] or '1').replace(',', '')
    if len(match[0]) <= _MAX_DIGITS and int(bottom):
      top = (match['sign'] or '') + match['top'].replace(',', '')
      found.append(Fraction(top) / int(bottom))
  return found


def final_number(text: str) -> list[Fraction]:
  """The number that a text gives as its answer; empty if it gives none."""
  end = len(text)
  for marker in reversed(list(_MARKER.finditer(text))):
    start = _OPENING.match(text, marker.end()).end()
    sentence = _SENTENCE_END.split(text[start:end], maxsplit=1)[0]
    end = marker.start()
    found = numbers(sentence.rpartition('=')[2]) or numbers(sentence)
    if found:
      return found[:1]
  return numbers(text)[-1:]


def _is_number(checks: Mapping[str, Any], response: str) -> bool:
  return final_number(response) == numbers(checks['answer'])


def _is_answer(checks: Mapping[str, Any], response: str) -> bool:
  return any(
    constraints.count_phrase(phrase, response) for phrase in checks['any']
  ) and not any(
    constraints.count_phrase(phrase, response)
    for phrase in checks.get('none', ())
  )


def _is_choice(checks: Mapping[str, Any], response: str) -> bool:
  return choice.extract(response) == checks['answer']


def _share_held(checks: Mapping[str, Any], response: str) -> float:
  held = [
    constraints.RULES[c['kind']].check(c, response) for c in checks['all']
  ]
  return sum(held) / len(held)


RULES = {
  'answer': constraints.Rule(_is_answer, {'any': 'texts'}, {'none': 'texts'}),
  'choice': constraints.Rule(
    _is_choice, {'answer': 'text', 'choices': 'count'}
  ),
  'constraints': constraints.Rule(_share_held, {'all': 'list'}),
  'number': constraints.Rule(_is_number, {'answer': 'text'}),
}
