"""Runs of the tiny pipeline, and the moments at which they are disturbed."""

import dataclasses
import hashlib
import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from etils import epath

from erp_jax.core import audit
from erp_jax.route import artifact
from tests import tiny as tiny_lib

ROOT = pathlib.Path(__file__).parents[2]
# What a run does, in turn: 'start' are imports and the config.
PIPELINE = ('sample', 'score', 'embed', 'fit', 'route', 'replay', 'report')
STAGES = ('start', *PIPELINE, 'export_router')
ENDED = 'ended'
_LAST = (PIPELINE[-1], STAGES[-1])  # Of each binary.


@dataclasses.dataclass(frozen=True)
class Finished:
  """A run to its end.

  Attributes:
    promised: digests of what is the same after any interruption, by name.
    secs: how long each stage took.
  """

  workdir: pathlib.Path
  promised: Mapping[str, str]
  secs: Mapping[str, float]


class Running:
  """A binary at work on a folder; its log tells what it is doing."""

  def __init__(self, binary: str, flags: Sequence[str], workdir: pathlib.Path):
    self._binary, self._workdir = binary, workdir
    self._log = workdir.with_name(f'{workdir.name}.log')
    with self._log.open('wb') as log:
      self.process = subprocess.Popen(
        tiny_lib.command(binary, *flags),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=log,
      )

  def __enter__(self) -> 'Running':
    return self

  def __exit__(self, *_) -> None:
    self.process.kill()
    self.process.wait()

  def stage(self) -> str:
    """The stage that it is in, or ENDED."""
    if self.process.poll() is not None:
      return ENDED
    if not self._is_recorded():
      return 'start'
    if self._binary != 'pipeline':
      return self._binary
    return stage_of(self.said())

  def wait_for(self, stage: str) -> None:
    """Returns once it is in this stage, or beyond."""
    order = [*STAGES, ENDED]
    while order.index(self.stage()) < order.index(stage):
      time.sleep(0.005)

  def end(self, number: int = 0) -> int:
    """Its exit code, after a signal if one is given; it ends within minutes."""
    if number:
      self.process.send_signal(number)
    return self.process.wait(timeout=300)

  def hold(self) -> None:
    """SIGSTOP; returns once it stands still."""
    self.process.send_signal(signal.SIGSTOP)
    stat = pathlib.Path(f'/proc/{self.process.pid}/stat')
    while stat.read_text().rpartition(')')[2].split()[0] != 'T':
      time.sleep(0.001)

  def said(self) -> str:
    """Its stderr."""
    return self._log.read_text()

  def _is_recorded(self) -> bool:
    """Whether it has begun to work: then it says so in a file."""
    records = (self._workdir / 'processes').glob(f'{self._binary}-*.json')
    return any(
      json.loads(record.read_text())['pid'] == self.process.pid
      for record in records
    )


def stage_of(log: str) -> str:
  """The pipeline's stage that its log has come to."""
  left = [name for name in PIPELINE if f'] {name}: done in' not in log]
  return left[0] if left else ENDED


def finish(tiny: tiny_lib.Tiny, workdir: pathlib.Path) -> Finished:
  """Runs all stages to their end, or what is left of them."""
  secs = {}
  for binary in ('pipeline', 'export_router'):
    stages = STAGES[:-1] if binary == 'pipeline' else STAGES[-1:]
    moments = []
    with Running(binary, tiny.flags(workdir), workdir) as running:
      for stage in (*stages, ENDED):
        running.wait_for(stage)
        moments.append(time.monotonic())
      assert running.end() == 0, running.said()
    both = zip(moments, moments[1:], strict=False)
    secs |= {s: b - a for s, (a, b) in zip(stages, both, strict=True)}
  return Finished(workdir, tiny_lib.promised(workdir), secs)


def shards(workdir: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Finished shards: when each was written, and its digest."""
  found = {}
  for record in workdir.rglob('part-*.json'):
    shard = record.with_suffix('.parquet')
    if shard.exists():
      digest = hashlib.sha256(shard.read_bytes()).hexdigest()
      name = str(shard.relative_to(workdir))
      found[name] = (shard.stat().st_mtime_ns, digest)
  return found


def wrong(workdir: pathlib.Path) -> dict[str, str]:
  """State by path of what launch.verify finds wrong."""
  checks = dict.fromkeys(artifact.FILES, artifact.load)
  found = audit.audit(epath.Path(workdir), checks)
  return {x.path: x.state for x in found if x.state in audit.WRONG}


def num_lost(before: Mapping, after: Mapping) -> int:
  """Shards of `before` that are not there as they were, made anew included."""
  return sum(after.get(name) != value for name, value in before.items())


def num_different(found: Mapping, wanted: Mapping) -> int:
  """Names that only one has, or with another value."""
  names = found.keys() | wanted.keys()
  return sum(found.get(name) != wanted.get(name) for name in names)


def num_altered(workdir: pathlib.Path, finished: Finished) -> int:
  """What an unfinished run has that is other than undisturbed."""
  found = tiny_lib.promised(workdir)
  return sum(finished.promised.get(name) != x for name, x in found.items())


def stop_at(
  tiny: tiny_lib.Tiny,
  finished: Finished,
  workdir: pathlib.Path,
  stage: str,
  share: float,
  number: signal.Signals,
) -> tuple[str, int, str]:
  """Runs on, and sends a signal when a share of the stage's time is over.

  Returns (the stage that it was in, its exit code, what it said); the stage is
  ENDED as well where the signal came to the last one too late.
  """
  binary = 'export_router' if stage == 'export_router' else 'pipeline'
  with Running(binary, tiny.flags(workdir), workdir) as running:
    running.wait_for(stage)
    time.sleep(share * finished.secs[stage])
    found = running.stage()
    code = running.end(number)
    if code == 0 and found in _LAST:
      found = ENDED
    return found, code, running.said()
