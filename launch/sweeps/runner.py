"""Runs points of a sweep, each in a process and a folder of its own.

A point's state is a file in its folder, WORKDIR/POINT/state/BINARY.json, which
is replaced in one step: a point is done when its process ended with 0 and the
file says so. One that says that it runs while its process is gone was
interrupted, and is run again.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etils import epath

from erp_jax.core import buckets, errors, preemption, process
from launch.sweeps import points as points_lib

_log = logging.getLogger(__name__)

PENDING = 'pending'
_INPUTS = ('responses', 'rewards', 'embeddings')
_RENEW_SECS = 60.0
# Set on each host of a group by SLURM, SkyPilot, GKE, and by tpu_vm.sh.
_RANKS = (
  *('SLURM_PROCID', 'SKYPILOT_NODE_RANK'),
  *('JOB_COMPLETION_INDEX', 'TPU_WORKER_ID', 'ERP_RANK'),
)
# Flags that say where a run is made: it may be made elsewhere.
_PLACES = tuple(
  f'--{name}='
  for name in ('workdir', 'config.runtime.host', 'config.runtime.coordinator')
)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A binary over the points of a config.

  Attributes:
    extra: flags that every point gets.
    inputs: a run whose artefacts each point finds in its folder.
  """

  points: Sequence[points_lib.Point]
  binary: str
  config: str
  workdir: str
  extra: tuple[str, ...] = ()
  inputs: str = ''

  def command(self, point: points_lib.Point) -> tuple[str, ...]:
    """The point's command line."""
    return tuple(
      point.command(self.binary, self.config, self.workdir, self.extra)
    )

  def state_file(self, point: points_lib.Point) -> epath.Path:
    """Where the state of this binary on this point is."""
    name = f'{self.binary.rpartition(".")[2]}.json'
    return epath.Path(self.workdir) / point.name / 'state' / name

  def record(self, point: points_lib.Point) -> process.Record | None:
    """What is known of the point; None if it was never begun like this.

    With another config, or other flags, it is another run.
    """
    file = self.state_file(point)
    if not self.workdir or not file.exists():
      return None
    record = process.read(file)
    same = _asked(record.command) == _asked(self.command(point))
    return record if same else None

  def is_other(self, point: points_lib.Point) -> bool:
    """Whether it was begun, but as another run."""
    return (
      bool(self.workdir)
      and self.state_file(point).exists()
      and self.record(point) is None
    )

  def state(self, point: points_lib.Point) -> str:
    """PENDING, or as process.Record.state_now."""
    record = self.record(point)
    return record.state_now() if record else PENDING


def _asked(command: Sequence[str]) -> list[str]:
  """A command without its interpreter, and without where it runs."""
  return [w for w in command[1:] if not w.startswith(_PLACES)]


class Ended(NamedTuple):
  """How a point's process ended; `stopped` if a signal asked us to end too."""

  code: int
  stopped: bool


def run_all(sweep: Sweep) -> int:
  """Runs what is not done, one after another; 1 if some point failed, else 0.

  Those that run in another process are left to it. A signal ends it after the
  point that it stopped, with preemption.EXIT_CODE; so does a point that ended
  with that: this machine is taken away. Raises UserError on another host than
  the first, which would pass over what the first has begun.
  """
  if not is_first():
    raise errors.UserError(
      '--run goes through the points on one host: where several hosts are one '
      'group, give them one point after another by --index=N.'
    )
  failed = 0
  for point in sweep.points:
    _link(sweep, point)
    state = sweep.state(point)
    if state in (process.DONE, process.RUNNING):
      _log.info('%d %s: %s, skipped', point.index, point.name, state)
      continue
    ended = run(sweep, point)
    if ended.stopped or ended.code == preemption.EXIT_CODE:
      return preemption.EXIT_CODE  # Also if the point was done just then.
    failed = failed or int(ended.code != 0)
  return failed


def run_index(sweep: Sweep, index: int) -> int:
  """Runs one point unless it is done; its exit code, or that of a signal.

  A record of another host that says RUNNING is of this element's former life:
  a scheduler starts it once at a time. Raises UserError for an index that the
  sweep has not, and for a point that runs on this host.
  """
  if not 0 <= index < len(sweep.points):
    raise errors.UserError(
      f'--index={index}: the sweep has {len(sweep.points)} points, from 0 to '
      f'{len(sweep.points) - 1}.'
    )
  point = sweep.points[index]
  _link(sweep, point)
  record = sweep.record(point)
  state = record.state_now() if record else PENDING
  if state == process.DONE:
    _log.info('%d %s: done, skipped', point.index, point.name)
    return 0
  if state == process.RUNNING and record.is_here and is_first():
    raise errors.UserError(
      f'point {index}, {point.name}, is being run by process {record.pid}: '
      'wait for it, or stop it.'
    )
  ended = run(sweep, point)
  return preemption.EXIT_CODE if ended.stopped and ended.code else ended.code


def run(sweep: Sweep, point: points_lib.Point) -> Ended:
  """Runs a point to its end; 128 + N is the code where signal N ended it.

  SIGTERM goes on to the process, whose end is waited for. Of the hosts of a
  group the first writes the state.
  """
  command = sweep.command(point)
  _log.info('%d %s: %s', point.index, point.name, ' '.join(command[1:]))
  children: list[subprocess.Popen] = []
  with _signals_to(children) as noted:
    with subprocess.Popen(command) as child:
      children.append(child)
      if noted:  # Before there was a process to tell.
        child.terminate()
      record = process.begun(command, child.pid)
      _write(sweep, point, record)
      while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
          child.wait(_RENEW_SECS)
        if child.returncode is None:
          _write(sweep, point, process.renewed(record))
    code = child.returncode
    code = code if code >= 0 else 128 - code
    state = process.FAILED if code else process.DONE
    if child.returncode < 0 or code == preemption.EXIT_CODE or (code and noted):
      state = process.INTERRUPTED
    ended = process.renewed(record, state=state, code=code)
    if not _write(sweep, point, ended):  # Then it counts as interrupted.
      code = code or 1
  _log.info('%d %s: %s (%d)', point.index, point.name, state, code)
  return Ended(code, bool(noted))


def is_first() -> bool:
  """Whether this is the first host of its group, or there is no group."""
  ranks = [os.environ[name] for name in _RANKS if name in os.environ]
  return not ranks or ranks[0] == '0'


def _link(sweep: Sweep, point: points_lib.Point) -> None:
  """Links what every point reads into its folder.

  Raises UserError if something else is there.
  """
  if not sweep.inputs:
    return
  if any(map(buckets.is_bucket, (sweep.inputs, sweep.workdir))):
    raise errors.UserError(
      f'--inputs={sweep.inputs} and --workdir={sweep.workdir}: a bucket has no '
      'links; copy the run to a folder.'
    )
  source = pathlib.Path(sweep.inputs).resolve()
  found = [name for name in _INPUTS if (source / name).is_dir()]
  if not found:
    raise errors.UserError(
      f'--inputs={sweep.inputs} has none of {", ".join(_INPUTS)}: name the '
      'folder of a run.'
    )
  folder = pathlib.Path(sweep.workdir) / point.name
  folder.mkdir(parents=True, exist_ok=True)
  for name in found:
    link = folder / name
    with contextlib.suppress(FileExistsError):
      link.symlink_to(source / name)
    if link.resolve() != (source / name).resolve():
      raise errors.UserError(
        f'{link} is {link.resolve()}, not of --inputs={sweep.inputs}: name the '
        'run that this sweep began with, or use another --workdir.'
      )


def _write(sweep, point, record) -> bool:
  """Whether the state is written; why not is told, and the sweep goes on."""
  if is_first():
    try:
      process.write(sweep.state_file(point), record)
    except (OSError, errors.UserError) as e:
      _log.error('%d %s: %s', point.index, point.name, e)
      return False
  return True


@contextlib.contextmanager
def _signals_to(children: list[subprocess.Popen]) -> Iterator[list[int]]:
  """SIGTERM goes on to the children; what came is in the list that it yields.

  A terminal sends SIGINT to the children itself.
  """
  noted: list[int] = []

  def note(number, _frame) -> None:
    noted.append(number)
    if number == signal.SIGTERM:
      for child in children:
        child.send_signal(number)

  numbers = (signal.SIGTERM, signal.SIGINT)
  before = [signal.signal(number, note) for number in numbers]
  try:
    yield noted
  finally:
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)
