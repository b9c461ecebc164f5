"""The table of candidates: training-only score beside test result."""

from collections.abc import Mapping, Sequence
from typing import Any

from erp_jax.report import cells, words
from erp_jax.route import evaluate


def table(
  name: str, title: str, rows: Sequence[Mapping[str, Any]]
) -> cells.Table:
  """The table of the rows of `route.candidates.compare`.

  Per budget two columns: `held out` is minus the gain on held-out training
  prompts with 1.96 standard errors, so that both read as regret.
  """
  at = {(row['candidate'], row['budget']): row for row in rows}
  head = ['Candidate']
  for budget in evaluate.BUDGETS:
    short = words.budget(budget)
    head += [f'{short}, held out', f'{short}, test']
  body = []
  for candidate in dict.fromkeys(row['candidate'] for row in rows):
    line = [cells.Cell(candidate)]
    for budget in evaluate.BUDGETS:
      row = at[candidate, budget]
      line += [_held_out(row), cells.leaf(row | {'mean': row['regret']})]
    body.append(line)
  return cells.Table(
    f'candidates-{name}',
    f'{title}: regret over the static mixture’s within the same budget (below '
    '0 is better). Held out: five-fold on training prompts, mean over splits, '
    '± 1.96 mean standard errors; all that a choice may go by. Test: mean over '
    'splits and split-corrected 95 % interval.',
    head,
    body,
  )


def _held_out(row: Mapping[str, Any]) -> cells.Cell:
  if row['held_out'] is None:
    return cells.Cell(words.DASH)
  value, half = -row['held_out'], 1.96 * row['held_out_se']
  return cells.number(value, value - half, value + half)
