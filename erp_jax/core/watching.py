"""What a process leaves for those who watch it, beside its results.

  WORKDIR/events/PROCESS.jsonl  events, always
  WORKDIR/tensorboard/PROCESS/  their scalars, with runtime.tensorboard
  WORKDIR/profile/PROCESS/      a trace, with runtime.profile

None of them is promised to be the same twice.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence

import jax

from erp_jax.core import (
  background,
  errors,
  events,
  failures,
  process,
  runtime,
  staging,
  tensorboard,
  trace,
)
from erp_jax.core import workdir as workdir_lib

_log = logging.getLogger(__name__)

_EVERY_SECS = 60.0
_GIB = 2**30


@contextlib.contextmanager
def watched(
  workdir: workdir_lib.Workdir,
  command: Sequence[str],
  cfg: runtime.RuntimeConfig,
  compiles: runtime.CompileCounter,
) -> Iterator[None]:
  """Records what happens in this process while it works.

  Into a bucket it is brought every minute, and at the end.
  Raises UserError if the folder can't be written, or a package is missing.
  """
  host = process.host_word()
  begun = time.strftime('%Y%m%d-%H%M%S')
  start = time.monotonic()
  name = f'{command[0].rpartition(".")[2]}-{host}-{begun}-{os.getpid()}'
  gauges = lambda: _gauges(compiles)
  with contextlib.ExitStack() as stack:
    places: list[staging.Staged] = []

    def place(kind: str):
      with failures.writing(workdir.path / kind, 0):
        staged = stack.enter_context(staging.staged(workdir.path / kind))
      places.append(staged)
      return staged.local

    handlers: list[logging.Handler] = [
      events.Lines(place('events') / f'{name}.jsonl', gauges)
    ]
    if cfg.tensorboard:
      handlers.append(tensorboard.Scalars(place('tensorboard') / name))
    if cfg.profile:
      handlers.append(trace.Trace(place('profile') / name, cfg.profile))
    stack.callback(_put, places)
    stack.enter_context(events.handled(handlers))
    events.emit('start', _start(workdir, command, host))
    tell = background.running(lambda ended: _tell_now_and_then(places, ended))
    stack.enter_context(tell)
    with failures.noted(_tell_failure):
      yield
    events.emit('usage', gauges())
    events.emit('exit', {'secs': round(time.monotonic() - start, 3)})


def _start(workdir, command, host) -> dict:
  return {
    'workdir': os.fspath(workdir.path),
    'command': list(command),
    'host': host,
    'pid': os.getpid(),
    **workdir.provenance,
  }


def _tell_failure(e: BaseException | None) -> None:
  events.emit('failure', {'error': errors.said(e), 'kind': type(e).__name__})


def _gauges(compiles: runtime.CompileCounter) -> dict[str, float]:
  """Memory in GiB, and what was compiled; of devices the fullest one's."""
  found = events.host_memory() | {
    'programs': compiles.programs,
    'cached_programs': compiles.cached,
    'compile_secs': round(compiles.secs, 3),
  }
  stats = [s for d in jax.local_devices() if (s := d.memory_stats())]
  if stats:
    most = max(stats, key=lambda s: s['bytes_in_use'])
    for name, key in (
      ('device_gib', 'bytes_in_use'),
      ('device_peak_gib', 'peak_bytes_in_use'),
      ('device_limit_gib', 'bytes_limit'),
    ):
      if key in most:
        found[name] = round(most[key] / _GIB, 3)
  return found


def _tell_now_and_then(
  places: Sequence[staging.Staged], ended: threading.Event
) -> None:
  """Tells of memory every minute, and brings to a bucket what there is."""
  _put(places)  # So that it is seen to have begun.
  while not ended.wait(_EVERY_SECS):
    events.emit('usage', events.usage())
    _put(places)


def _put(places: Sequence[staging.Staged]) -> None:
  """Brings files to a bucket; the run goes on if that fails."""
  try:
    for staged in places:
      staged.put()
  except errors.UserError as e:
    _log.warning('%s', e)
