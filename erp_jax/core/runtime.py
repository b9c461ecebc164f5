"""What a process needs once, at its start: caches, counters, provenance."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator

import jax

from erp_jax.core import errors, group, sharding

_log = logging.getLogger(__name__)

_RECORDED = (
  *('flax', 'jax', 'jaxlib', 'numpy', 'optax', 'pyarrow'),
  *('safetensors', 'tokenizers'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
  """The process, apart from what it computes."""

  compilation_cache: bool = True  # Keep compiled programs in $ERP_CACHE/xla.
  # The mesh: a batch is spread over `data` devices, each copy of the weights
  # over `model` of them.
  data: int = 1
  model: int = 1
  # A process group is one model over so many hosts, a process on each, and the
  # mesh is of all their devices. The coordinator is HOST:PORT of the first one,
  # `host` which one this is; without, JAX asks the cluster.
  hosts: int = 1
  host: int = -1
  coordinator: str = ''
  join_secs: float = 300.0  # For all hosts to come.
  heartbeat_secs: float = 100.0  # Until one that is not heard of is lost.
  # Groups that share the shards of each artefact, and which of them this is.
  replicas: int = 1
  replica: int = 0
  # After SIGTERM, for the shard that is being made; 0 to stop at once.
  grace_secs: float = 100.0
  tensorboard: bool = False  # Scalars in WORKDIR/tensorboard too.
  # Seconds that JAX's profiler traces, from the first progress; 0 for none.
  profile: float = 0.0

  def __post_init__(self):
    for name in ('hosts', 'join_secs', 'heartbeat_secs', 'replicas'):
      errors.check_least(f'runtime.{name}', getattr(self, name), 1)
    for name in ('grace_secs', 'profile'):
      errors.check_least(f'runtime.{name}', getattr(self, name), 0)
    if self.coordinator and not 0 <= self.host < self.hosts:
      raise errors.UserError(
        f'runtime.host is {self.host}, but with runtime.coordinator it must be '
        f'0 to runtime.hosts - 1 = {self.hosts - 1}, another on each host.'
      )
    if not 0 <= self.replica < self.replicas:
      raise errors.UserError(
        f'runtime.replica is {self.replica}, but must be 0 to '
        f'runtime.replicas - 1 = {self.replicas - 1}.'
      )


class CompileCounter:
  """Programs since it was made: compiled, or found in the persistent cache.

  `secs` is the time for both.
  """

  def __init__(self):
    self.programs = 0
    self.cached = 0
    self.secs = 0.0
    jax.monitoring.register_event_duration_secs_listener(self._add_program)
    jax.monitoring.register_event_listener(self._add_hit)

  def __str__(self) -> str:
    return (
      f'{self.programs} programs, {self.cached} of them from the cache, in '
      f'{self.secs:.1f} s'
    )

  def _add_program(self, event: str, secs: float, **_) -> None:
    if event == '/jax/core/compile/backend_compile_duration':
      self.programs += 1
      self.secs += secs

  def _add_hit(self, event: str, **_) -> None:
    if event == '/jax/compilation_cache/cache_hits':
      self.cached += 1


def cache_root() -> pathlib.Path:
  """$ERP_CACHE, else erp_jax in the user's cache directory."""
  if root := os.environ.get('ERP_CACHE'):
    return pathlib.Path(root).expanduser()
  base = os.environ.get('XDG_CACHE_HOME', '~/.cache')
  return pathlib.Path(base).expanduser() / 'erp_jax'


def start(cfg: RuntimeConfig) -> CompileCounter:
  """Prepares this process; call once, before the first computation."""
  # A seed is the same noise on every backend and sharding only with this.
  jax.config.update('jax_threefry_partitionable', True)
  # float32 means float32: TPUs would multiply in bfloat16, GPUs in TF32. What
  # is bfloat16 is not touched by it.
  jax.config.update('jax_default_matmul_precision', 'highest')
  if cfg.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', str(cache_root() / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return CompileCounter()


@contextlib.contextmanager
def started(
  cfg: RuntimeConfig, joined: Callable[[], None] = lambda: None
) -> Iterator[CompileCounter]:
  """`start`, with the config's mesh in force; one device needs none.

  With hosts > 1 this process joins its group first, and calls `joined`. Raises
  UserError if there are too few devices, or another number of hosts.
  """
  counter = start(cfg)
  if cfg.hosts > 1:
    group.join(
      *(cfg.hosts, cfg.coordinator, cfg.host),
      *(cfg.join_secs, cfg.heartbeat_secs),
    )
    joined()
  if jax.process_count() != cfg.hosts:
    raise errors.UserError(
      f'runtime.hosts is {cfg.hosts}, but this is one of {jax.process_count()} '
      f'processes: set --config.runtime.hosts={jax.process_count()}, or start '
      f'it on {cfg.hosts}.'
    )
  unused = jax.device_count() - cfg.data * cfg.model
  if unused and cfg.hosts > 1:
    raise errors.UserError(
      f'runtime.data x runtime.model is {cfg.data} x {cfg.model}, but the '
      f'{cfg.hosts} hosts of this group have {jax.device_count()} devices: the '
      'mesh of a group must have all of them.'
    )
  if unused > 0:
    _log.warning(
      '%d of %d devices have nothing to do: raise runtime.data or .model.',
      *(unused, jax.device_count()),
    )
  if cfg.data == cfg.model == 1:
    yield counter
  else:
    with jax.set_mesh(sharding.make_mesh(cfg.data, cfg.model)):
      yield counter


def provenance() -> dict:
  """Package versions, code revision and machine, for manifests."""
  versions = {name: importlib.metadata.version(name) for name in _RECORDED} | {
    'python': platform.python_version()
  }
  return {
    'versions': versions,
    'revision': _code_revision(),
    'machine': {
      'platform': platform.platform(),
      'cpus': os.cpu_count(),
      'cpu': _cpu_model(),
      'devices': [d.device_kind for d in jax.devices()],
    },
  }


def _cpu_model() -> str:
  """Its name, where the system tells it."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  names = [x.split(':')[1].strip() for x in lines if x.startswith('model name')]
  return names[0] if names else platform.processor()


def _code_revision() -> str:
  """The checkout's commit ('+' if changed), or the installed version."""
  root = pathlib.Path(__file__).parents[2]
  version = lambda: importlib.metadata.version('erp_jax')
  if not (root / '.git').exists() or shutil.which('git') is None:
    return version()
  head, changes = (
    subprocess.run(
      ('git', '-C', str(root), *args), capture_output=True, text=True
    )
    for args in (
      ('rev-parse', 'HEAD'),
      ('status', '--porcelain', '--untracked-files=no'),
    )
  )
  if head.returncode or changes.returncode:
    return version()
  return head.stdout.strip() + ('+' if changes.stdout else '')
