"""Progress of long work: a bar in a terminal, a line now and then in a log."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from rich import console as rich_console
from rich import progress as rich_progress

_log = logging.getLogger(__name__)

_LOG_EVERY_SECS = 15.0


@contextlib.contextmanager
def track(what: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
  """Shows share done, rate in `unit`/s and time left of one piece of work.

  A total of 0 is not known beforehand; then there is no share and time left.
  Yields `advance(n, skipped=0)`: n more are done, and `skipped` of the total
  will never be needed (a response that stopped early).
  """
  console = rich_console.Console(stderr=True)
  if console.is_terminal:
    with _bar(console, unit) as bar:
      task = bar.add_task(what, total=total or None)

      def advance(n: int, skipped: int = 0) -> None:
        left = (bar.tasks[0].total or 0) - skipped
        bar.update(task, advance=n, total=left if total else None)

      yield advance
  else:
    with _lines(what, total, unit) as advance:
      yield advance


@contextlib.contextmanager
def _lines(what: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
  """As `track`, in lines of the log."""
  start = last = time.monotonic()
  done = 0
  known = total > 0

  def advance(n: int, skipped: int = 0) -> None:
    nonlocal done, last, total
    done += n
    total -= skipped
    now = time.monotonic()
    if done and now - last >= _LOG_EVERY_SECS:
      last = now
      rate = done / (now - start)
      if not known:
        _log.info('%s: %d %s, %s', what, done, unit, rate_words(rate, unit))
        return
      _log.info(
        '%s: %d of %d %s, %s, %.0f s left',
        *(
          what,
          done,
          total,
          unit,
          rate_words(rate, unit),
          (total - done) / rate,
        ),
      )

  yield advance
  secs = time.monotonic() - start
  _log.info(
    '%s: %d %s in %.1f s (%s)',
    *(what, done, unit, secs, rate_words(done / max(secs, 1e-9), unit)),
  )


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
