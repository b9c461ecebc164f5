"""Progress of long work: a bar in a terminal, a line now and then in a log."""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress

from erp_jax.core import background, events

_log = logging.getLogger(__name__)

# A heartbeat so often; of what takes long, less often.
_BEAT_SECS = 15.0
_LONG_SECS, _LONG_BEAT_SECS = 600.0, 60.0


@dataclasses.dataclass
class _Work:
  """One piece of work, and how much of it is done."""

  what: str
  total: int  # 0 is not known.
  unit: str
  begun: float = dataclasses.field(default_factory=lambda: time.monotonic())
  changed: float = 0.0  # When some of it was done last.
  done: int = 0
  spared: int = 0
  busy: int = 0  # Of `slots`, since the last heartbeat.
  slots: int = 0

  def advance(self, n: int, skipped: int, busy: int, slots: int) -> None:
    is_first = n > 0 and not self.done
    self.done += n
    self.spared += skipped
    self.busy += busy
    self.slots += slots
    if n:
      self.changed = time.monotonic()
    if is_first:
      events.emit('progress', self.scalars())

  def scalars(self) -> dict[str, Any]:
    """What there is to tell; what is not known yet is left out."""
    secs = max(time.monotonic() - self.begun, 1e-9)
    told = {'what': self.what, 'done': self.done, 'unit': self.unit}
    told['secs'] = round(secs, 3)
    if self.total:
      told['total'] = self.total - self.spared
    if self.done:
      told['rate'] = self.done / secs
    if self.total and self.done:
      left = told['total'] - self.done
      told['secs_left'] = max(left, 0) * secs / (self.done + self.spared)
    if self.slots:
      told['slots_busy'] = self.busy / self.slots
    return told


@contextlib.contextmanager
def track(what: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
  """Shows share done, rate in `unit`/s and time left of one piece of work.

  A total of 0 is not known beforehand; then there is no share and time left.
  A log has a line every 15 s, and every minute after the first ten, whether
  something was done or not; events are told the same.

  Yields `advance(n, skipped=0, busy=0, slots=0)`: n more are done, and
  `skipped` of the total will never be needed (a response that stopped early);
  of `slots` places for the work, `busy` were in use.
  """
  console = rich_console.Console(stderr=True)
  work = _Work(what, total, unit)
  with contextlib.ExitStack() as stack:
    show = lambda: None
    if console.is_terminal:
      bar = stack.enter_context(_bar(console, unit))
      task = bar.add_task(what, total=total or None)
      show = lambda: bar.update(
        task,
        completed=work.done,
        total=total - work.spared if total else None,
      )
    says = not console.is_terminal
    beat = background.running(lambda ended: _beat(work, says, ended))
    stack.enter_context(beat)

    def advance(
      n: int, skipped: int = 0, busy: int = 0, slots: int = 0
    ) -> None:
      work.advance(n, skipped, busy, slots)
      show()

    yield advance
  events.emit('progress', work.scalars())
  if not console.is_terminal:
    secs = max(time.monotonic() - work.begun, 1e-9)
    _log.info(
      '%s: %d %s in %.1f s (%s)',
      *(what, work.done, unit, secs, rate_words(work.done / secs, unit)),
    )


def _beat(work: _Work, says: bool, ended: threading.Event) -> None:
  """Tells of the work now and then."""
  every = _BEAT_SECS
  while not ended.wait(every):
    told = work.scalars()
    work.busy = work.slots = 0
    events.emit('progress', told)
    if says:
      idle = time.monotonic() - (work.changed or work.begun)
      _log.info('%s', _line(told, idle if idle > every else 0.0))
    if told['secs'] > _LONG_SECS:
      every = max(every, _LONG_BEAT_SECS)


def _line(told: Mapping[str, Any], idle: float) -> str:
  """A heartbeat, of `_Work.scalars`; `idle` seconds nothing was done, or 0."""
  share = f' of {told["total"]}' if 'total' in told else ''
  parts = [f'{told["what"]}: {told["done"]}{share} {told["unit"]}']
  if 'rate' in told:
    parts.append(rate_words(told['rate'], told['unit']))
  if idle:
    parts.append(f'none for {duration(idle)}')
  if 'slots_busy' in told:
    parts.append(f'slots {100 * told["slots_busy"]:.0f} % busy')
  memory = events.usage()
  if 'host_gib' in memory:
    parts.append(f'{memory["host_gib"]:.1f} GiB')
  if 'device_gib' in memory:
    limit = memory.get('device_limit_gib', float('nan'))
    parts.append(f'device {memory["device_gib"]:.1f} of {limit:.1f} GiB')
  if 'secs_left' in told:
    parts.append(f'{duration(told["secs_left"])} left')
  return ', '.join(parts)


def duration(secs: float) -> str:
  """'42 s', '3 min 20 s', '5 h 12 min' or '2 d 3 h'."""
  secs = max(round(secs), 0)
  for size, unit, small, small_unit in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'min'),
    (60, 'min', 1, 's'),
  ):
    if secs >= size:
      return f'{secs // size} {unit} {secs % size // small} {small_unit}'
  return f'{secs} s'


def rate_words(rate: float, unit: str) -> str:
  """'120 tokens/s', or of slow things '3.4 per minute'."""
  return f'{rate:.0f} {unit}/s' if rate >= 2 else f'{60 * rate:.1f} per minute'


def _bar(console: rich_console.Console, unit: str) -> rich_progress.Progress:
  """A rich progress bar with the rate in `unit`/s."""

  class Rate(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> str:
      speed = task.finished_speed or task.speed
      return '' if speed is None else rate_words(speed, unit)

  return rich_progress.Progress(
    rich_progress.TextColumn('{task.description:<34}'),
    rich_progress.BarColumn(bar_width=30),
    rich_progress.TaskProgressColumn(),
    Rate(),
    rich_progress.TimeElapsedColumn(),
    rich_progress.TextColumn('left'),
    rich_progress.TimeRemainingColumn(),
    console=console,
  )
