"""Lines of prompts to lines of decisions, some at a time, in order."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from erp_jax.core import errors
from erp_jax.route import policy as policy_lib


class Row(NamedTuple):
  """A prompt to route. Without an id of its own, `id` is ''."""

  id: str | int
  prompt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """What is written about a prompt, as one line of JSON.

  Attributes:
    id: as it was given; left out of the line if there was none.
    arm: where the prompt goes.
    cost: that arm's mean cost.
    reward, std, p_win: predicted expected reward, its standard deviation, and
      the chance of having the highest, by arm.
    out_of_distribution: whether the prompt is unlike the training prompts.
  """

  id: str | int
  arm: str
  cost: float
  reward: dict[str, float]
  std: dict[str, float]
  p_win: dict[str, float]
  out_of_distribution: bool

  def json(self) -> str:
    """With a final newline."""
    values = dataclasses.asdict(self)
    if self.id == '':
      del values['id']
    return json.dumps(values, ensure_ascii=False) + '\n'


def read(
  lines: Iterable[bytes], source: str, is_text: bool = False
) -> Iterator[Row]:
  """Rows of JSONL with `prompt` and maybe `id`, or of plain lines of text.

  `lines` as a binary file has them: only \\n ends one, in UTF-8. Empty ones are
  skipped. Raises UserError with the line's number for one that can't be routed.
  """
  for number, line in enumerate(lines, 1):
    where = f'{source} line {number}'
    try:
      text = line.decode('utf-8-sig')
    except UnicodeDecodeError as e:
      raise errors.UserError(f'{where} is not UTF-8 ({e}): mend it.') from e
    if text.strip():
      yield Row('', text.strip('\r\n')) if is_text else _parse(text, where)


def route(
  decide: Callable[[list[str], list[str]], policy_lib.Decision],
  rows: Iterable[Row],
  batch: int,
) -> Iterator[Line]:
  """Lines in the order of the rows, decided `batch` at a time.

  `decide(prompts, ids)` is a router's; the id of a prompt without one is the
  prompt itself.
  """
  rows = iter(rows)
  while part := list(itertools.islice(rows, batch)):
    prompts = [row.prompt for row in part]
    ids = [row.prompt if row.id == '' else str(row.id) for row in part]
    decision = decide(prompts, ids)
    for n, row in enumerate(part):
      yield _line(row, decision, n)


def _line(row: Row, decision: policy_lib.Decision, n: int) -> Line:
  by_arm = lambda value_NM: dict(
    zip(decision.arms, value_NM[n].tolist(), strict=True)
  )
  return Line(
    id=row.id,
    arm=decision.arms[decision.choice_N[n]],
    cost=float(decision.cost_N[n]),
    reward=by_arm(decision.reward_NM),
    std=by_arm(decision.std_NM),
    p_win=by_arm(decision.win_NM),
    out_of_distribution=bool(decision.ood_N[n]),
  )


def _parse(line: str, where: str) -> Row:
  try:
    row = json.loads(line)
  except (json.JSONDecodeError, RecursionError) as e:
    raise errors.UserError(
      f'{where} is not JSON ({e}): mend it, or pass --text for plain lines.'
    ) from e
  if not isinstance(row, dict) or not isinstance(row.get('prompt'), str):
    raise errors.UserError(
      f'{where} must be an object with a text `prompt`: {line.strip()[:80]!r}.'
    )
  if not row['prompt'].strip():
    raise errors.UserError(f'{where} has an empty `prompt`: leave it out.')
  try:
    row['prompt'].encode()
  except UnicodeEncodeError as e:
    raise errors.UserError(
      f'{where} has half a surrogate pair in its `prompt` ({e}): mend it.'
    ) from e
  name = row.get('id', '')
  if not isinstance(name, str | int) or isinstance(name, bool):
    raise errors.UserError(f'{where} has an `id` that is no text: {name!r}.')
  return Row(name, row['prompt'])
