"""A sweep's points and how each is, as a table."""

import collections
import time

from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from erp_jax.core import process, progress
from launch.sweeps import runner

_STYLES = {
  process.DONE: 'green',
  process.RUNNING: 'cyan',
  process.FAILED: 'bold red',
  process.INTERRUPTED: 'yellow',
  runner.PENDING: 'dim',
}


def table(sweep: runner.Sweep) -> rich_console.Group:
  """A row a point: its state, for how long, where, what it is; and a count."""
  made = rich_table.Table()
  for column in ('point', 'state', 'time', 'on', 'overrides', 'folder'):
    justify = 'right' if column in ('point', 'time') else 'left'
    made.add_column(column, justify=justify, overflow='fold')
  counts: collections.Counter[str] = collections.Counter()
  for point in sweep.points:
    record = sweep.record(point)
    state = record.state_now() if record else runner.PENDING
    counts[state] += 1
    failed = f' ({record.code})' if state == process.FAILED else ''
    made.add_row(
      str(point.index),
      rich_text.Text(f'{state}{failed}', style=_STYLES[state]),
      *_where(record, state),
      rich_text.Text('\n'.join(point.overrides)),
      rich_text.Text(point.name),
    )
  told = ', '.join(f'{counts[s]} {s}' for s in _STYLES if counts[s])
  total = f'{len(sweep.points)} points of {sweep.config}: {told}'
  if others := sum(map(sweep.is_other, sweep.points)):
    total += (
      f'; {others} of them were begun with another config or other flags: give '
      'the same, those of each point after `--`'
    )
  return rich_console.Group(made, rich_text.Text(total))


def _where(record: process.Record | None, state: str) -> tuple[str, str]:
  if record is None:
    return '', ''
  until = time.time() if state == process.RUNNING else record.seen
  took = progress.duration(until - record.begin)
  return took, f'{record.host}:{record.pid}'
