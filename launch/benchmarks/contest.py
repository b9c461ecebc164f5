"""Ours and its peers on the same work, in turns, each in a process of its own.

So that no library's threads or memory are another's, and so that each one's
start, compilation and peak memory are its own.
"""

import dataclasses
import importlib
import importlib.util
import logging
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from erp_jax.core import errors, runtime

_log = logging.getLogger(__name__)

# What `device` is called by JAX.
PLATFORMS = {'cpu': 'cpu', 'gpu': 'cuda', 'tpu': 'tpu'}


class Work(NamedTuple):
  """What one run did: useful work only.

  Attributes:
    count: tokens, responses or prompts that a user wanted.
    flops, bytes: what had to be computed and moved for them, on the device.
    detail: other figures, by name.
  """

  count: float
  flops: float = 0.0
  bytes: float = 0.0
  detail: dict[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Contender:
  """Something that does the work.

  Attributes:
    entry: 'module:function' of what prepares it, imported in its own process:
      `function(argument)` loads all it needs and returns what is timed, a
      function without arguments that returns Work. '.module' is beside this.
    argument: picklable.
    packages: that it needs; without them it is named as missing.
  """

  name: str
  entry: str
  argument: Any
  packages: tuple[str, ...] = ()

  @property
  def missing(self) -> list[str]:
    """The packages that are not installed."""
    return [p for p in self.packages if importlib.util.find_spec(p) is None]


@dataclasses.dataclass(frozen=True)
class Contest:
  """One case: who does what.

  Attributes:
    unit: of Work.count.
    dtype: of the matmuls that the limit is computed from.
    peers: the first that is installed is the one of the ratio.
    alone: each does all its rounds before the next one starts, for what fits
      the device's memory once.
    device: said in place of the one asked for; 'none' where figures say
      nothing of any.
  """

  case: str
  unit: str
  dtype: str
  ours: Contender
  peers: tuple[Contender, ...]
  alone: bool = False
  device: str = ''


class Timing(NamedTuple):
  """One contender's part of a contest."""

  rates: list[float]  # Of each round, in units/s.
  work: Work  # Of the last round.
  flops: list[float]  # Of each round, and bytes: see Work.
  bytes: list[float]
  cold_secs: float  # From the start of its process to its first result.
  peak_gib: float  # Of its process; on an accelerator, of the device.
  compile_secs: float
  programs: int


class _Player:
  """A contender in its process, which waits for its turn."""

  def __init__(self, contender: Contender, device: str, folder: str):
    self.name = contender.name
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(
      target=_play, args=(theirs, contender, device, folder), daemon=True
    )
    start = time.monotonic()
    self._process.start()
    theirs.close()
    self._receive()
    self.cold_secs = time.monotonic() - start
    self.turns: list[tuple[float, Work]] = []

  def turn(self) -> None:
    """One round."""
    self._pipe.send('run')
    self.turns.append(self._receive())

  def end(self) -> Timing:
    """What it measured; its process ends."""
    self._pipe.send('end')
    peak_gib, compile_secs, programs = self._receive()
    self._process.join()
    return Timing(
      [work.count / secs for secs, work in self.turns],
      self.turns[-1][1],
      [work.flops for _, work in self.turns],
      [work.bytes for _, work in self.turns],
      self.cold_secs,
      peak_gib,
      compile_secs,
      programs,
    )

  def _receive(self) -> Any:
    try:
      return self._pipe.recv()
    except EOFError:
      self._process.join()
      raise errors.UserError(
        f'{self.name} ended with exit code {self._process.exitcode} before its '
        'result: what it printed above says why.'
      ) from None


def hold(
  contenders: Sequence[Contender],
  device: str,
  rounds: int,
  alone: bool = False,
) -> dict[str, Timing]:
  """Timings by name, of those whose packages are installed.

  Every second round goes through them backwards, so that none always follows
  the same other one. With `alone`, each has its rounds by itself.
  """
  if alone:
    return {
      name: timing
      for contender in contenders
      for name, timing in hold([contender], device, rounds).items()
    }
  players = []
  # Their processes end without cleaning up.
  with tempfile.TemporaryDirectory() as folder:
    for contender in contenders:
      if not contender.missing:
        players.append(_Player(contender, device, folder))
        _log.info('%s: first result', contender.name)
    for i in range(rounds):
      for player in players[:: -1 if i % 2 else 1]:
        player.turn()
        secs, work = player.turns[-1]
        _log.info(
          'round %d of %d, %s: %.4g/s',
          *(i + 1, rounds, player.name, work.count / secs),
        )
    return {player.name: player.end() for player in players}


def median_ratio(ours: Timing, peer: Timing) -> tuple[float, float, float]:
  """Median, least and largest of ours over the peer's, round by round."""
  ratios = [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]
  return statistics.median(ratios), min(ratios), max(ratios)


def _play(pipe, contender: Contender, device: str, folder: str) -> None:
  """What a contender's process does."""
  logging.getLogger('erp_jax').setLevel(logging.WARNING)
  # The device's memory is for whoever needs it.
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] = '.95'
  jax.config.update('jax_platforms', PLATFORMS[device])
  # Without the cache: compilation is a part of a cold start.
  counter = runtime.start(runtime.RuntimeConfig(compilation_cache=False))
  tempfile.tempdir = folder
  module, function = contender.entry.split(':')
  run = getattr(importlib.import_module(module, __package__), function)(
    contender.argument
  )
  run()
  pipe.send('ready')
  while pipe.recv() == 'run':
    pipe.send(_timed(run))
  pipe.send((_peak_gib(device), counter.secs, counter.programs))
  pipe.close()
  os._exit(0)  # Servers and thread pools of peers need not end by themselves.


def _timed(run: Callable[[], Work]) -> tuple[float, Work]:
  start = time.perf_counter()
  work = run()
  return time.perf_counter() - start, work


def _peak_gib(device: str) -> float:
  if device == 'cpu':
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  torch = sys.modules.get('torch')
  if torch and torch.cuda.is_initialized():
    return torch.cuda.max_memory_allocated() / 2**30
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use', 0) / 2**30
