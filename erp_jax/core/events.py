"""What happens in a process, a line of JSON each: for plots, and for status.

`emit` tells that something happened, from any thread; whoever handles events
writes them down. Without a handler nothing is done.

  start     command, host, pid, versions, devices
  begin     an artefact is being written; `end` says how long that took
  shard     of an artefact is written: its rows, bytes and counts
  progress  of a piece of work: done, total, rate, secs_left, slots_busy
  usage     memory of host and device, programs compiled and the seconds of it
  failure   what ended the process, or an artefact's writer, early
  exit      the process has done its work

Each has `time`, seconds since 1970.
"""

import contextlib
import json
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from erp_jax.core import errors, failures

_log = logging.getLogger(__name__)
# Events go as records of a logger, which has the handlers and the lock.
_events = logging.getLogger('erp_events')
_STATM = pathlib.Path('/proc/self/statm')
_GIB = 2**30
_CLOSED = -1


def emit(event: str, fields: Mapping[str, Any]) -> None:
  """Tells the handlers; fields are JSON-able and finite."""
  if _events.isEnabledFor(logging.DEBUG):
    _events.debug(event, extra={'fields': fields})


@contextlib.contextmanager
def told(about: Mapping[str, Any]) -> Iterator[None]:
  """Emits `begin` and `end` of something, or `failure` with the reason."""
  begun = time.monotonic()
  emit('begin', about)
  with failures.noted(
    lambda e: emit('failure', {**about, 'error': errors.said(e)})
  ):
    yield
  emit('end', {**about, 'secs': round(time.monotonic() - begun, 3)})


def as_dict(record: logging.LogRecord) -> dict[str, Any]:
  """The event that a handler gets."""
  when = round(record.created, 3)
  return {'time': when, 'event': record.msg, **record.fields}


class Lines(logging.Handler):
  """Appends events to a file; what is appended survives the process.

  Args:
    gauges: what `usage` is.
  """

  def __init__(
    self, file: pathlib.Path, gauges: Callable[[], Mapping[str, float]]
  ):
    super().__init__()
    self.gauges = gauges
    self._path = file
    with failures.writing(file, 0):
      self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

  def emit(self, record: logging.LogRecord) -> None:
    """Writes a line; what cannot be written is told once and left out."""
    line = json.dumps(as_dict(record), allow_nan=False, ensure_ascii=False)
    if self._file == _CLOSED:
      return
    try:
      os.write(self._file, f'{line}\n'.encode())
    except OSError as e:
      _log.warning('no more events in %s: %s', self._path, e)
      self.close()

  def close(self) -> None:
    if self._file != _CLOSED:
      os.close(self._file)
      self._file = _CLOSED
    super().close()


@contextlib.contextmanager
def handled(handlers: Sequence[logging.Handler]) -> Iterator[None]:
  """Events go to these handlers, which are closed at the end."""
  before = _events.level, _events.propagate
  _events.setLevel(logging.DEBUG)
  _events.propagate = False
  for handler in handlers:
    _events.addHandler(handler)
  try:
    yield
  finally:
    _events.setLevel(before[0])
    _events.propagate = before[1]
    for handler in handlers:
      _events.removeHandler(handler)
      try:
        handler.close()
      except OSError as e:  # The work is done all the same.
        _log.warning('not all events are written: %s', e)


def usage() -> dict[str, float]:
  """The gauges of whoever writes events down, else the host's memory."""
  for handler in _events.handlers:
    if isinstance(handler, Lines):
      return dict(handler.gauges())
  return host_memory()


def host_memory() -> dict[str, float]:
  """`host_gib` of this process; nothing where the system does not tell."""
  if not _STATM.exists():
    return {}
  pages = int(_STATM.read_text().split()[1])
  return {'host_gib': round(pages * os.sysconf('SC_PAGE_SIZE') / _GIB, 3)}


def read(file: epath.PathLike) -> list[dict[str, Any]]:
  """Events of a file; a last line that is not whole yet is left out."""
  whole, _, _ = epath.Path(file).read_bytes().rpartition(b'\n')
  return [json.loads(line) for line in whole.splitlines()]
