"""Tables as rows of cells, and their two plain-text forms."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence

from erp_jax.core import resample
from erp_jax.report import words


@dataclasses.dataclass(frozen=True)
class Cell:
  """What stands in one place; `note` is set smaller below it.

  `value`, `lo` and `hi` are the numbers in full, for CSV; NaN where there is
  none.
  """

  text: str
  note: str = ''
  strong: bool = False
  value: float = math.nan
  lo: float = math.nan
  hi: float = math.nan


@dataclasses.dataclass(frozen=True)
class Table:
  """A titled table.

  Attributes:
    kind: names it for readers, files and style sheets.
    head: titles of the columns.
    rows: equally long; the first `labels` cells of each are words, not numbers.
  """

  kind: str
  title: str
  head: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  labels: int = 1


def number(
  value: float,
  lo: float = math.nan,
  hi: float = math.nan,
  write: Callable[[float], str] = words.number,
  note: str = '',
  strong: bool = False,
) -> Cell:
  """A number with its interval below it, in full for CSV."""
  notes = [part for part in (words.interval(lo, hi, write), note) if part]
  return Cell(write(value), '\n'.join(notes), strong, value, lo, hi)


def leaf(
  value: Mapping[str, float | None],
  write: Callable[[float], str] = words.number,
  note: str = '',
) -> Cell:
  """The cell of a {mean, lo, hi}, each None where unknown; a dash for none."""
  mean, lo, hi = (
    resample.number(value.get(key)) for key in ('mean', 'lo', 'hi')
  )
  return (
    Cell(words.DASH) if math.isnan(mean) else number(mean, lo, hi, write, note)
  )


def markdown(table: Table) -> str:
  """The table in GitHub's Markdown, its title above it."""
  line = lambda cells: f'| {" | ".join(cells)} |'
  rule = ['---'] * table.labels
  rule += ['---:'] * (len(table.head) - table.labels)
  rows = [line(_plain(cell) for cell in row) for row in table.rows]
  parts = [_escape(table.title), '', line(map(_escape, table.head)), line(rule)]
  return '\n'.join([*parts, *rows]) + '\n'


def csv_text(table: Table) -> str:
  """The table as CSV: numbers in full, intervals in columns of their own."""
  sink = io.StringIO()
  writer = csv.writer(sink, lineterminator='\n')
  with_interval = [
    any(not math.isnan(row[i].lo) for row in table.rows)
    for i in range(len(table.head))
  ]
  head = []
  for title, has in zip(table.head, with_interval, strict=True):
    head += [title, f'{title}, low', f'{title}, high'] if has else [title]
  writer.writerow(head)
  for row in table.rows:
    fields = []
    for i, cell in enumerate(row):
      is_number = i >= table.labels and not math.isnan(cell.value)
      fields.append(_full(cell.value) if is_number else _undashed(cell.text))
      if with_interval[i]:
        fields += [_full(cell.lo), _full(cell.hi)]
    writer.writerow(fields)
  return sink.getvalue()


def _plain(cell: Cell) -> str:
  text = _escape(cell.text)
  if cell.strong:
    text = f'**{text}**'
  note = _escape(cell.note.replace('\n', '; '))
  return f'{text} {note}'.rstrip()


def _escape(text: str) -> str:
  return text.replace('|', '\\|').replace('\n', ' ')


def _full(value: float) -> str:
  return '' if math.isnan(value) else repr(float(value))


def _undashed(text: str) -> str:
  return '' if text == words.DASH else text
