"""Tables of E1 and E2: R² as the paper prints it, and what stands beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from erp_jax.probe import decomposition, explained, predictability
from erp_jax.report import cells, paper, words
from erp_jax.report.cells import Cell, Table

_MEAN = 'mean of the models'
UNDEFINED = 'undefined'


def r2(
  kind: str, arms: Sequence[str], found: predictability.Found, title: str
) -> Table:
  """The paper's layout: rows are models, columns all prompts and categories."""
  return _paper_layout(
    f'{kind}-r2',
    title,
    found,
    [
      ([arm], {c: _score(row[m]) for c, row in found.scores.items()})
      for m, arm in enumerate(arms)
    ]
    + [
      (
        [_MEAN],
        {c: _leaf(explained.mean_of(row)) for c, row in found.scores.items()},
      )
    ],
  )


def over_splits(
  kind: str, arms: Sequence[str], found: predictability.Found, title: str
) -> Table:
  """The same over split seeds: mean ± standard deviation, and interval."""
  return _paper_layout(
    f'{kind}-r2-splits',
    title,
    found,
    [
      ([name], {c: _spread(row[m]) for c, row in found.over_splits.items()})
      for m, name in enumerate([*arms, _MEAN])
    ],
  )


def ceilings(
  kind: str, arms: Sequence[str], found: predictability.Found, title: str
) -> Table:
  """Noise ceilings in the same layout, and R² as a part of them."""
  rows = []
  for m, arm in enumerate(arms):
    parts = {c: row[m] for c, row in found.scores.items()}
    rows += [
      ([arm, 'ceiling'], {c: _ceiling(s) for c, s in parts.items()}),
      ([arm, 'R² / ceiling'], {c: _share(s) for c, s in parts.items()}),
    ]
  return _paper_layout(f'{kind}-ceiling', title, found, rows)


def beside_paper(
  kind: str,
  reward: str,
  arms: Sequence[str],
  found: predictability.Found,
  title: str,
) -> Table:
  """R² here and in the paper, of the models that are in both."""
  categories = list(found.over_splits)
  shared = [
    m
    for m, arm in enumerate(arms)
    if not math.isnan(paper.r2(reward, arm, None))
  ]
  rows = []
  for m in shared:
    printed = {c: paper.r2(reward, arms[m], c) for c in categories}
    here = {c: _spread(found.over_splits[c][m]) for c in categories}
    rows.append(([arms[m], 'here'], here))
    rows.append(
      ([arms[m], 'paper'], {c: _printed(x) for c, x in printed.items()})
    )
  if len(shared) == len(arms):
    here = {c: _spread(found.over_splits[c][-1]) for c in categories}
    printed = {
      c: sum(paper.r2(reward, arm, c) for arm in arms) / len(arms)
      for c in categories
    }
    rows.append(([_MEAN, 'here'], here))
    rows.append(
      (
        [_MEAN, 'paper'],
        {c: _printed(x, 3) for c, x in printed.items()},
      )
    )
  return _paper_layout(f'{kind}-paper', title, found, rows)


def contrasts(
  kind: str, arms: Sequence[str], found: predictability.Found, title: str
) -> Table:
  """R² of what an arm is better than the prompt's mean over arms."""
  scores, together = found.contrasts
  ceilings = not all(one.ceiling.reason for one in [*scores, together])
  rows = [
    [
      Cell(name),
      _score(score),
      *([_ceiling(score), _share(score)] if ceilings else []),
      _spread(leaf),
    ]
    for name, score, leaf in zip(
      [*arms, 'all contrasts together'],
      [*scores, together],
      found.contrasts_over_splits,
      strict=True,
    )
  ]
  head = ['Model', 'R², first split']
  head += ['Ceiling', 'R² / ceiling'] if ceilings else []
  head.append('Over splits')
  return Table(f'{kind}-contrasts', title, head, rows)


def without(
  kind: str, arms: Sequence[str], found: predictability.Found, title: str
) -> Table:
  """R² of all prompts, without refusals, empty and cut responses."""
  whole = found.scores[None]
  rows = [
    [
      Cell('none'),
      *(_score(score) for score in whole),
      _leaf(explained.mean_of(whole)),
    ]
  ]
  for one in found.without:
    label = Cell(words.join(list(one.flags)))
    if one.reason:
      cell = Cell(words.DASH, one.reason)
      rows.append([label, *[cell] * (len(arms) + 1)])
      continue
    row = one.scores[None]
    rows.append(
      [
        label,
        *(
          _score(score, f'{words.share(share)} of responses left out')
          for score, share in zip(row, one.share_M, strict=True)
        ),
        _leaf(explained.mean_of(row)),
      ]
    )
  return Table(f'{kind}-without', title, ['Left out', *arms, _MEAN], rows)


def fits(kind: str, found: predictability.Found, title: str) -> Table:
  """The 2 × 2 of loss and embedding, and two more: means over models."""
  return _paper_layout(
    f'{kind}-fits',
    title,
    found,
    [
      (
        [name],
        {c: _leaf(explained.mean_of(row)) for c, row in table.items()},
      )
      for name, table in found.fits.items()
    ],
    first=['Loss, embedding'],
  )


def variance(
  name: str, found: Mapping[str, predictability.Found], title: str
) -> Table:
  """Where each reward model's rewards vary, and the truth where it is known."""
  rows = []
  for reward, one in found.items():
    rows.append([Cell(reward), Cell('rewards'), *_parts(one.decomposition)])
    if one.true_decomposition is not None:
      parts = _parts(one.true_decomposition)
      rows.append(
        [Cell(reward), Cell('known ER'), *parts[:3], Cell(words.DASH)]
      )
  head = ['Reward model', 'Of', 'Prompt', 'Model', 'Interaction', 'Noise']
  return Table(f'{name}-variance', title, head, rows, labels=2)


def _paper_layout(
  kind: str,
  title: str,
  found: predictability.Found,
  rows: Sequence[tuple[Sequence[str], Mapping[str | None, Cell]]],
  first: Sequence[str] = ('Model',),
) -> Table:
  """Rows of (labels, cell of each category) in the paper's columns."""
  columns = [None, *paper.ordered([c for c in found.scores if c is not None])]
  labels = len(rows[0][0])
  return Table(
    kind,
    title,
    [*first, *[''] * (labels - len(first)), *map(paper.title, columns)],
    [
      [*map(Cell, names), *(by_category[c] for c in columns)]
      for names, by_category in rows
    ],
    labels=labels,
  )


def _score(score: explained.Score, note: str = '') -> Cell:
  """R² with its interval, and its ceiling below where there is one."""
  if score.reason:
    return Cell(UNDEFINED, score.reason)
  value = score.ceiling.value
  parts = [] if math.isnan(value) else [f'ceiling {words.number(value)}']
  return cells.leaf(
    score.r2, note='\n'.join([*parts, *([note] if note else [])])
  )


def _leaf(leaf: Mapping[str, float | None]) -> Cell:
  return Cell(UNDEFINED) if leaf['mean'] is None else cells.leaf(leaf)


def _ceiling(score: explained.Score) -> Cell:
  found = score.ceiling
  if found.reason:
    return Cell(words.DASH, found.reason)
  pooled = ''
  if found.num_pooled:
    pooled = f'{words.count(found.num_pooled)} cells of one sample'
  return cells.number(found.value, found.lo, found.hi, note=pooled)


def _share(score: explained.Score) -> Cell:
  if score.share['mean'] is None:
    why = score.reason or score.ceiling.reason
    return Cell(words.DASH, why or 'the ceiling is not clear of 0')
  return cells.leaf(score.share)


def _spread(leaf: Mapping[str, Any]) -> Cell:
  """Mean ± standard deviation over splits, and the corrected interval."""
  if leaf['mean'] is None:
    return Cell(UNDEFINED)
  if leaf['sd'] is None:
    return cells.leaf(leaf)
  return cells.leaf(leaf, note=f'± {words.number(leaf["sd"])}')


def _printed(value: float, digits: int = 2) -> Cell:
  return Cell(words.number(value, digits), value=value)


def _parts(found: decomposition.Decomposition) -> list[Cell]:
  """Prompt, model, interaction and noise, and their shares of one reward."""
  names = ('prompt', 'arm', 'interaction', 'noise')
  total = sum(getattr(found, name) for name in names)
  result = []
  for name in names:
    part = getattr(found, name)
    upper = getattr(found, f'{name}_upper', math.nan)
    if not math.isnan(part):
      lo, hi = found.intervals.get(name, (math.nan, math.nan))
      share = '' if math.isnan(total) else words.share(part / total)
      result.append(cells.number(part, lo, hi, note=share))
    elif not math.isnan(upper):
      note = f'at most {words.number(upper)}, noise and all; {found.reason}'
      result.append(Cell(words.DASH, note))
    else:
      result.append(Cell(words.DASH, found.reason))
  return result
