"""A run's status as tables for the terminal."""

import collections
import math
import time
from collections.abc import Sequence

from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from erp_jax.core import process, progress
from erp_jax.report import status as status_lib

_STYLES = {
  status_lib.DONE: 'green',
  status_lib.RUNNING: 'cyan',
  status_lib.FAILED: 'bold red',
  status_lib.UNREADABLE: 'bold red',
  status_lib.INTERRUPTED: 'yellow',
  status_lib.WAITING: 'dim',
}


def tables(status: status_lib.Status) -> rich_console.Group:
  """Points of a sweep, what each stage has, and who works or has failed."""
  made = []
  if status.points:
    made += _points(status.points)
  if status.parts:
    made += _parts(status.parts)
  if status.processes:
    made.append(_processes(status.processes))
  return rich_console.Group(*(made or ['nothing has begun yet']))


def ranges(numbers: Sequence[int]) -> str:
  """'0-3, 7' of ascending numbers."""
  runs: list[list[int]] = []
  for number in numbers:
    if runs and number == runs[-1][1] + 1:
      runs[-1][1] = number
    else:
      runs.append([number, number])
  return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in runs)


def _parts(parts: Sequence[status_lib.Part]) -> list:
  with_points = any(part.point for part in parts)
  made = _table(
    *(['point'] if with_points else []),
    *('stage', 'of', 'state', 'shards', 'missing', 'rate', 'left', 'changed'),
  )
  counts = collections.Counter(part.state for part in parts)
  for part in parts:
    shards = f'{part.shards} of {part.num_shards or "?"}'
    cells = [part.point] if with_points else []
    cells += [
      *(part.stage, part.name, _state(part.state, part.error)),
      shards if part.num_shards or part.shards else '',
      ranges(part.missing) if part.shards else '',
      _rate(part),
      '' if math.isnan(part.secs_left) else progress.duration(part.secs_left),
      _ago(part.changed) if part.changed else '',
    ]
    made.add_row(*cells)
  left = [p.secs_left for p in parts if not math.isnan(p.secs_left)]
  told = [f'{counts[state]} {state}' for state in _STYLES if counts[state]]
  if left:
    told.append(
      f'at these rates {progress.duration(sum(left))} left of what has begun, '
      'if one after another'
    )
  return [made, rich_text.Text('; '.join(told))]


def _points(points) -> list:
  made = _table('point', 'binary', 'state', 'time', 'on')
  counts: collections.Counter[str] = collections.Counter()
  for point, binary, record in points:
    state = record.state_now()
    counts[state] += 1
    until = time.time() if state == status_lib.RUNNING else record.seen
    made.add_row(
      *(point, binary, _state(state, f'exit code {record.code}')),
      progress.duration(until - record.begin),
      f'{record.host}:{record.pid}',
    )
  told = ', '.join(f'{n} {state}' for state, n in counts.items())
  return [made, rich_text.Text(told)]


def _processes(records: Sequence[process.Record]) -> rich_table.Table:
  made = _table('process', 'state', 'since', 'command')
  for record in records:
    made.add_row(
      f'{record.host}:{record.pid}',
      _state(record.state_now(), record.error),
      _ago(record.begin),
      rich_text.Text(' '.join(record.command)),
    )
  return made


def _table(*columns: str) -> rich_table.Table:
  made = rich_table.Table()
  for column in columns:
    right = column in ('shards', 'rate', 'left', 'changed', 'time', 'since')
    justify = 'right' if right else 'left'
    made.add_column(column, justify=justify, overflow='fold')
  return made


def _state(state: str, error: str) -> rich_text.Text:
  is_told = error and state in (status_lib.FAILED, status_lib.UNREADABLE)
  told = f'{state}: {error}' if is_told else state
  return rich_text.Text(told, style=_STYLES[state])


def _rate(part: status_lib.Part) -> str:
  if math.isnan(part.rate):
    return ''
  return progress.rate_words(part.rate, part.unit)


def _ago(when: float) -> str:
  return f'{progress.duration(time.time() - when)} ago'
