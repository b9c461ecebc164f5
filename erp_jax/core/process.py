"""Which process does what: records that outlive it, and whether it still runs.

A record says where a process runs and when it began, so that another process,
now or tomorrow, can tell one that works from one that is gone.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from erp_jax.core import background, errors, failures, preemption, store

RUNNING, DONE, FAILED, INTERRUPTED = 'running', 'done', 'failed', 'interrupted'
# A record from another host that nobody renewed for so long is of the past.
STALE_SECS = 300.0
_RENEW_SECS = 60.0
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """What is known of one process.

  Attributes:
    state: as it was written: RUNNING, DONE, FAILED or INTERRUPTED.
    command: its argument list.
    host, boot, pid, ticks: which process it is, wherever pids are used again.
    begin, seen: seconds since 1970, of its start and of the last renewal.
    code: exit code, -1 while it runs.
    error: the last thing that it said, where it failed.
  """

  state: str
  command: tuple[str, ...]
  host: str
  boot: str
  pid: int
  ticks: int
  begin: float
  seen: float
  code: int = -1
  error: str = ''

  @property
  def is_here(self) -> bool:
    """Whether it runs, or ran, on this host since it was last started."""
    return (self.host, self.boot) == (platform.node(), _boot())

  def state_now(self) -> str:
    """`state`, but INTERRUPTED if it says RUNNING and the process is gone.

    Of another host only the age of the record tells.
    """
    if self.state != RUNNING:
      return self.state
    if self.is_here:
      alive = self.ticks != 0 and start_ticks(self.pid) == self.ticks
    else:
      alive = time.time() - self.seen < STALE_SECS
    return RUNNING if alive else INTERRUPTED


def begun(command: tuple[str, ...], pid: int) -> Record:
  """The record of a process of this host that has just begun."""
  now = time.time()
  return Record(
    state=RUNNING,
    command=command,
    host=platform.node(),
    boot=_boot(),
    pid=pid,
    ticks=start_ticks(pid),
    begin=now,
    seen=now,
  )


def host_word() -> str:
  """The name of this host, as a part of a file's name."""
  return re.sub('[^A-Za-z0-9-]+', '-', platform.node())


def renewed(record: Record, **changes: Any) -> Record:
  """The record as of this moment."""
  return dataclasses.replace(record, seen=time.time(), **changes)


@contextlib.contextmanager
def recorded(folder: epath.Path, command: tuple[str, ...]) -> Iterator[None]:
  """Records this process in `folder` while it works, and how it ended.

  The same command on the same host replaces its record. A UserError, which is
  a mistake of the command or told of elsewhere, leaves what was there before.
  """
  digest = hashlib.sha256(json.dumps(command).encode()).hexdigest()[:8]
  binary = command[0].rpartition('.')[2]
  file = folder / f'{binary}-{digest}-{host_word()}.json'
  before = file.read_bytes() if file.exists() else b''
  record = begun(command, os.getpid())
  write(file, record)
  with (
    failures.noted(lambda e: _fail(file, record, before, e)),
    background.running(lambda ended: _renew(file, record, ended)),
  ):
    yield
  write(file, renewed(record, state=DONE, code=0))


def _fail(file, record, before: bytes, e: BaseException | None) -> None:
  if not isinstance(e, errors.UserError):
    state = INTERRUPTED if isinstance(e, KeyboardInterrupt) else FAILED
    code = preemption.EXIT_CODE if isinstance(e, preemption.Preempted) else 1
    write(file, renewed(record, state=state, code=code, error=errors.said(e)))
  elif before:
    store.write_bytes(file, before)
  else:
    file.unlink()


def _renew(file: epath.Path, record: Record, ended: threading.Event) -> None:
  while not ended.wait(_RENEW_SECS):
    with contextlib.suppress(OSError, errors.UserError):
      write(file, renewed(record))


def write(path: epath.PathLike, record: Record) -> None:
  """Replaces the record in one step."""
  store.write_json(path, dataclasses.asdict(record))


def read(path: epath.PathLike) -> Record:
  """The record of a file; UserError if it is damaged."""
  names = [field.name for field in dataclasses.fields(Record)]
  found: Mapping[str, Any] = store.read_json(path, names)
  fields = {name: found[name] for name in names}
  return Record(**fields | {'command': tuple(fields['command'])})


def start_ticks(pid: int) -> int:
  """When a process began, in ticks since this host did; 0 if it has ended."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except (FileNotFoundError, ProcessLookupError):
    return 0 if pathlib.Path('/proc/self/stat').exists() else _is_alive(pid)
  words = stat.rpartition(')')[2].split()  # Its name may hold spaces.
  return 0 if words[0] == 'Z' else int(words[19])


def _is_alive(pid: int) -> int:
  """1 while some process has this id, where there is no /proc."""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return 0
  except PermissionError:
    return 1
  return 1


def _boot() -> str:
  return _BOOT.read_text().strip() if _BOOT.exists() else ''
