"""SIGTERM, by which a scheduler says that it takes the machine away.

The work stops where it is. That loses no more than kill -9 would, since what is
written is written whole; but a shard that is being made is finished first, if
that takes no longer than the time of grace.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

EXIT_CODE = os.EX_TEMPFAIL  # 75: the same command goes on where this one was.
# Launchers signal whole groups, in which parents pass it on to their children.
_ECHO_SECS = 2.0
# What is raised in a destructor is lost; then it is raised again.
_AGAIN_SECS = 10.0


class Preempted(KeyboardInterrupt):
  """SIGTERM came, and what was to be finished first is finished."""


class _Handler:
  """Of SIGTERM, and of SIGALRM at the end of the time of grace.

  Attributes:
    being_made: says how many shards of what are made; '' where there are none.
  """

  def __init__(self, grace_secs: float):
    self._grace_secs = grace_secs
    self._since = 0.0  # When SIGTERM came first; 0 before.
    self.being_made: Callable[[], str] = str

  @property
  def is_asked(self) -> bool:
    """Whether SIGTERM came."""
    return self._since > 0

  def __call__(self, number: int, _frame) -> None:
    if number == signal.SIGALRM:
      self.stop()
    elif not self.is_asked:
      self._since = time.monotonic()
      if not (self._grace_secs and self.being_made()):
        self.stop()
      signal.setitimer(signal.ITIMER_REAL, self._grace_secs)
      _say(
        f'SIGTERM: after {self.being_made()}, the next one is finished if that '
        f'takes at most {self._grace_secs:g} s; a second SIGTERM stops at once.'
      )
    elif time.monotonic() - self._since >= _ECHO_SECS:
      _say('stopped at once by a second SIGTERM; the same command goes on.')
      os._exit(EXIT_CODE)

  def stop(self) -> None:
    """Raises Preempted, and again until it gets through."""
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECS)
    made = self.being_made()
    raise Preempted(
      f'stopped by SIGTERM{f" after {made}" if made else ""}; the same command '
      'goes on where this one was.'
    )


def _say(line: str) -> None:
  """Writes to stderr without a lock, which the main thread may hold."""
  with contextlib.suppress(OSError):  # Nobody reads any more.
    os.write(2, f'{line}\n'.encode())


def _handler() -> _Handler | None:
  found = signal.getsignal(signal.SIGTERM)
  return found if isinstance(found, _Handler) else None


@contextlib.contextmanager
def handled(grace_secs: float) -> Iterator[None]:
  """SIGTERM raises Preempted in the main thread, which this must be.

  Whoever catches it ends the process before this ends. Afterwards SIGTERM is
  ignored: what is left is to leave.
  """
  handler = _Handler(grace_secs)
  for number in (signal.SIGTERM, signal.SIGALRM):
    signal.signal(number, handler)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def finished_first(being_made: Callable[[], str]) -> Iterator[None]:
  """SIGTERM waits for the end of this, or for `stop_if_asked` in it.

  `being_made` says how far it is, as in '2 of 3 shards of …'; while it says
  nothing, SIGTERM does not wait.
  """
  handler = _handler()
  if handler is None:
    yield
    return
  before, handler.being_made = handler.being_made, being_made
  try:
    yield
    stop_if_asked()
  finally:
    handler.being_made = before


def is_asked() -> bool:
  """Whether SIGTERM came."""
  handler = _handler()
  return handler is not None and handler.is_asked


def stop_if_asked() -> None:
  """Raises Preempted if SIGTERM came."""
  if is_asked():
    _handler().stop()
