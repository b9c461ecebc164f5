"""What a process needs once, at its start: caches, counters, provenance."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import subprocess

import jax

_RECORDED = ('jax', 'jaxlib', 'numpy', 'tokenizers', 'pyarrow')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
  """The process, apart from what it computes."""

  compilation_cache: bool = True  # Keep compiled programs in $ERP_CACHE/xla.


class CompileCounter:
  """Programs compiled since it was made, and the seconds they took.

  A program that comes out of the persistent cache is not counted.
  """

  def __init__(self):
    self.programs = 0
    self.secs = 0.0
    jax.monitoring.register_event_duration_secs_listener(self._listen)

  def _listen(self, event: str, secs: float, **_) -> None:
    if event == '/jax/core/compile/backend_compile_duration':
      self.programs += 1
      self.secs += secs


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
  if cfg.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', str(cache_root() / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return CompileCounter()


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
      'devices': [d.device_kind for d in jax.devices()],
    },
  }


def _code_revision() -> str:
  """The checkout's commit ('+' if changed), or the installed version."""
  root = pathlib.Path(__file__).parents[2]
  if not (root / '.git').exists():
    return importlib.metadata.version('erp_jax')
  run = lambda *args: subprocess.run(
    ('git', '-C', str(root), *args), capture_output=True, text=True
  ).stdout.strip()
  dirty = '+' if run('status', '--porcelain', '--untracked-files=no') else ''
  return run('rev-parse', 'HEAD') + dirty
