r"""Constraints on a response that a short program can check.

A constraint is an object with `kind` and the fields of that kind:

| kind | fields | holds if |
|---|---|---|
| words, sentences, lines, bullets | min, max or exact | the count fits |
| occurrences | of; min, max or exact | that many whole-word `of` |
| includes | words | every one is there as whole words |
| mentions | any | at least one is there |
| excludes | words | none is there |
| case | is: lower, upper, title | all letters (first letters) are so |
| starts, ends | with | the response starts, ends with it |
| has_digit | | a digit is there |
| json | keys | it is a JSON object with these keys |
| python | function, args; uses | it defines this function |
| expression | uses | it is a Python expression with these names |

Casing matters to `case`, `json` and the Python kinds only. A word is a run
without blanks that holds a letter or digit. A sentence ends at . ! or ? before
a blank, or at a blank line; abbreviations are not known. A list marker (-, *,
+, •, 1., 1)) is neither word nor sentence; lines of a code fence (```) are no
lines. Python is parsed, never run.
"""

import ast
import dataclasses
import itertools
import json
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from erp_jax.core import config, errors
from erp_jax.data import tables

_PLAIN = str.maketrans('−‐‑–"“”‘’⁄', "----'''''/")
_MARKER = re.compile(r'^[ \t]*(?:[-*+•]|\d+[.)])[ \t]+', re.MULTILINE)
_FENCE = re.compile(r'```[^\n`]*\n(.*?)(?:```|\Z)', re.DOTALL)
_SENTENCE_END = re.compile(r'[.!?]+["\')\]*]*(?:\s|\Z)|\n[ \t]*\n')
_WRAPPING = ' "\'*_`'
_BOUNDS = {'min': 'count', 'max': 'count', 'exact': 'count'}


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one kind is checked, and the fields that it has: name -> type."""

  check: Callable[[Mapping[str, Any], str], float]  # In [0, 1], or a bool.
  required: Mapping[str, str]
  optional: Mapping[str, str] = dataclasses.field(default_factory=dict)


def plain(text: str) -> str:
  """Text for comparison: NFC, one quote and minus sign, single blanks."""
  text = unicodedata.normalize('NFC', text).translate(_PLAIN)
  return ' '.join(text.split()).casefold()


def count_phrase(phrase: str, text: str) -> int:
  """How often `phrase` stands in `text` as whole words, casing aside.

  Blanks around punctuation do not matter: '[1, 2]' is in 'x=[1,2].'. A number
  is not found inside a decimal or a number with thousands separators, nor
  a phrase that begins or ends in punctuation where that is doubled: '[1]' is
  not in '[[1]]'.
  """
  parts = re.findall(r'\w+|[^\w\s]', plain(phrase))
  pattern = re.escape(parts[0])
  for left, right in itertools.pairwise(parts):
    both_words = _is_word(left) and _is_word(right)
    pattern += (r'\s+' if both_words else r'\s*') + re.escape(right)
  before = r'(?<!\w)(?<!\d\.)'
  after = r'(?!\w)(?!\.\d)(?!,\d{3}(?!\d))'
  if not _is_word(parts[0]):
    before = f'(?<!{re.escape(parts[0])})'
  if not _is_word(parts[-1]):
    after = f'(?!{re.escape(parts[-1])})'
  return len(re.findall(before + pattern + after, plain(text)))


def _is_word(part: str) -> bool:
  return re.match(r'\w', part) is not None


def validate(value: Any, rules: Mapping[str, Rule], where: str) -> None:
  """Raises UserError unless `value` is an object that one of `rules` reads.

  `where` names the row and the field in it.
  """
  if not isinstance(value, Mapping) or 'kind' not in value:
    raise errors.UserError(
      f'{where} is {value!r}, but must be an object with a kind; '
      f'allowed: {", ".join(sorted(rules))}.'
    )
  kind = value['kind']
  if not isinstance(kind, str) or kind not in rules:
    raise errors.UserError(
      f'{where}.kind is {kind!r}; {config.did_you_mean(str(kind), rules)}'
    )
  rule = rules[kind]
  fields = {**rule.required, **rule.optional}
  for name in value:
    if name != 'kind' and name not in fields:
      raise errors.UserError(
        f'{where}.{name} is not a field of kind {kind!r}; '
        f'{config.did_you_mean(str(name), ["kind", *fields])}'
      )
  for name in rule.required:
    if name not in value:
      raise errors.UserError(
        f'{where} of kind {kind!r} lacks the field {name!r}: '
        f'add {_TYPES[fields[name]][0]}.'
      )
  for name in value:
    if name != 'kind':
      wanted, fits = _TYPES[fields[name]]
      if not fits(value[name]):
        raise errors.UserError(
          f'{where}.{name} is {value[name]!r}, but must be {wanted}.'
        )
  if rule.optional is _BOUNDS:
    _validate_bounds(value, where)


def _validate_bounds(value: Mapping[str, Any], where: str) -> None:
  given = sorted(set(value) & set(_BOUNDS))
  if not given or ('exact' in given and len(given) > 1):
    raise errors.UserError(
      f'{where} has the bounds {given}: give exact, or min, or max, or both '
      'of min and max.'
    )
  if value.get('min', 0) > value.get('max', value.get('min', 0)):
    raise errors.UserError(
      f'{where} has min {value["min"]} above max {value["max"]}: swap them.'
    )


def _fits(count: int, c: Mapping[str, Any]) -> bool:
  if 'exact' in c:
    return count == c['exact']
  return c.get('min', 0) <= count <= c.get('max', count)


def _lines(text: str) -> list[str]:
  lines = [line.strip() for line in text.splitlines()]
  return [line for line in lines if line and not line.startswith('```')]


def _num_words(c: Mapping[str, Any], text: str) -> bool:
  words = _MARKER.sub('', '\n'.join(_lines(text))).split()
  return _fits(sum(any(map(str.isalnum, word)) for word in words), c)


def _num_sentences(c: Mapping[str, Any], text: str) -> bool:
  pieces = _SENTENCE_END.split(_MARKER.sub('', text))
  return _fits(sum(any(map(str.isalnum, piece)) for piece in pieces), c)


def _num_lines(c: Mapping[str, Any], text: str) -> bool:
  return _fits(len(_lines(text)), c)


def _num_bullets(c: Mapping[str, Any], text: str) -> bool:
  return _fits(sum(map(bool, map(_MARKER.match, _lines(text)))), c)


def _num_occurrences(c: Mapping[str, Any], text: str) -> bool:
  return _fits(count_phrase(c['of'], text), c)


def _includes(c: Mapping[str, Any], text: str) -> bool:
  return all(count_phrase(phrase, text) for phrase in c['words'])


def _mentions(c: Mapping[str, Any], text: str) -> bool:
  return any(count_phrase(phrase, text) for phrase in c['any'])


def _excludes(c: Mapping[str, Any], text: str) -> bool:
  return not any(count_phrase(phrase, text) for phrase in c['words'])


def _case(c: Mapping[str, Any], text: str) -> bool:
  """At least one letter is asked for, so that '123' has no casing."""
  if c['is'] == 'title':
    firsts = re.findall(r'(?<![^\W_])(?<!\w[\'’])[^\W\d_]', text)
    return bool(firsts) and all(first == first.upper() for first in firsts)
  same = text.lower() if c['is'] == 'lower' else text.upper()
  return text == same and text.lower() != text.upper()


def _starts(c: Mapping[str, Any], text: str) -> bool:
  """Quotes and emphasis around the response aside, whole words."""
  text, start = plain(text).strip(_WRAPPING), plain(c['with']).strip(_WRAPPING)
  rest = text[len(start) :]
  split_word = start[-1:].isalnum() and rest[:1].isalnum()
  return text.startswith(start) and not split_word


def _ends(c: Mapping[str, Any], text: str) -> bool:
  """As `_starts`; after a word, . ! and ? that end the text do not count."""
  text, end = plain(text).strip(_WRAPPING), plain(c['with']).strip(_WRAPPING)
  if end[-1:].isalnum():
    text = text.rstrip(_WRAPPING + '.!?')
  rest = text[: len(text) - len(end)]
  split_word = end[:1].isalnum() and rest[-1:].isalnum()
  return text.endswith(end) and not split_word


def _has_digit(c: Mapping[str, Any], text: str) -> bool:
  del c
  return re.search(r'[0-9]', text) is not None


def _json(c: Mapping[str, Any], text: str) -> bool:
  """The first code fence, or else the whole response, is the JSON object."""
  fenced = _FENCE.search(text)
  try:
    value = json.loads(
      fenced[1] if fenced else text, parse_constant=tables.reject_constant
    )
  except (ValueError, RecursionError):  # RecursionError: '[' * 100_000.
    return False
  return isinstance(value, dict) and set(c['keys']) <= set(value)


def _snippets(text: str) -> Iterator[str]:
  """What may be code: fences, `spans`, defs, lines, the whole response."""
  yield from _FENCE.findall(text)
  yield from re.findall(r'`([^`\n]+)`', text)
  lines = text.splitlines()
  for i, line in enumerate(lines):
    yield line.strip()
    if line.lstrip().startswith('def '):
      indent = len(line) - len(line.lstrip())
      body = itertools.takewhile(
        lambda s, n=indent: not s.strip() or s[: n + 1].isspace(),
        lines[i + 1 :],
      )
      yield textwrap.dedent('\n'.join([line, *body]))
  yield text


def _parse(source: str, mode: str) -> list[ast.AST]:
  """The syntax tree in a list, or an empty list where it is not Python."""
  with warnings.catch_warnings():
    # '\d' and '1is' warn; what the caller does with warnings is no matter here.
    warnings.simplefilter('ignore')
    try:
      return [ast.parse(source.strip(), mode=mode)]
    # ValueError: half a surrogate pair; the last two: too deep for the parser.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      return []


def _names(tree: ast.AST) -> set[str]:
  nodes = list(ast.walk(tree))
  return {node.id for node in nodes if isinstance(node, ast.Name)} | {
    node.attr for node in nodes if isinstance(node, ast.Attribute)
  }


def _functions(module: ast.AST) -> Iterator[tuple[str, ast.arguments, ast.AST]]:
  """Name, arguments and node of each `def f` and `f = lambda` at the top."""
  for node in module.body:
    if isinstance(node, ast.FunctionDef):
      yield node.name, node.args, node
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
      for target in node.targets:
        if isinstance(target, ast.Name):
          yield target.id, node.value.args, node


def _python(c: Mapping[str, Any], text: str) -> bool:
  """Some snippet defines the function, with `args` positional parameters."""
  return any(
    name == c['function']
    and len(args.posonlyargs) + len(args.args) == c['args']
    and set(c.get('uses', ())) <= _names(node)
    for source in _snippets(text)
    for tree in _parse(source, 'exec')
    for name, args, node in _functions(tree)
  )


def _expression(c: Mapping[str, Any], text: str) -> bool:
  return any(
    set(c['uses']) <= _names(tree)
    for source in _snippets(text)
    for tree in _parse(source, 'eval')
  )


def is_text(value: Any) -> bool:
  """Whether it is a string with something in it to compare."""
  return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_texts(value: Any) -> bool:
  """Whether it is a list of one or more such strings."""
  return isinstance(value, list) and bool(value) and all(map(is_text, value))


def _is_name(value: Any) -> bool:
  return isinstance(value, str) and value.isidentifier()


_TYPES = {
  'case': (
    "'lower', 'upper' or 'title'",
    lambda value: value in ('lower', 'upper', 'title'),
  ),
  'count': ('an integer >= 0', _is_count),
  'list': (
    'a list of one or more objects',
    lambda value: isinstance(value, list) and bool(value),
  ),
  'name': ('a Python name', _is_name),
  'text': ('a string that is not empty', is_text),
  'texts': ('a list of one or more strings, none empty', is_texts),
}

RULES = {
  'bullets': Rule(_num_bullets, {}, _BOUNDS),
  'case': Rule(_case, {'is': 'case'}),
  'ends': Rule(_ends, {'with': 'text'}),
  'excludes': Rule(_excludes, {'words': 'texts'}),
  'expression': Rule(_expression, {'uses': 'texts'}),
  'has_digit': Rule(_has_digit, {}),
  'includes': Rule(_includes, {'words': 'texts'}),
  'json': Rule(_json, {'keys': 'texts'}),
  'lines': Rule(_num_lines, {}, _BOUNDS),
  'mentions': Rule(_mentions, {'any': 'texts'}),
  'occurrences': Rule(_num_occurrences, {'of': 'text'}, _BOUNDS),
  'python': Rule(
    _python, {'function': 'name', 'args': 'count'}, {'uses': 'texts'}
  ),
  'sentences': Rule(_num_sentences, {}, _BOUNDS),
  'starts': Rule(_starts, {'with': 'text'}),
  'words': Rule(_num_words, {}, _BOUNDS),
}
