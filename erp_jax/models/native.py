"""Our own CPU kernels: C++ beside its module, compiled where it runs.

Once a machine, by the C++ compiler that is there; without one, and on a mesh,
XLA does the same.
"""

import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import jax

from erp_jax.core import runtime

_FOLDER = pathlib.Path(__file__).parent
_FLAGS = ('-O3', '-march=native', '-std=c++17', '-fPIC', '-shared')

_log = logging.getLogger(__name__)


def is_usable(
  source: str, targets: Sequence[str], doing: str, needs: str = ''
) -> bool:
  """Whether this process can call `targets`: on one CPU device, once compiled.

  Args:
    source: file of this folder that defines them.
    doing: what takes longer without, for the log.
    needs: a flag of the CPU, without which XLA is as fast.
  """
  mesh = jax.sharding.get_abstract_mesh()
  one_device = mesh.empty or mesh.size == 1
  return (
    jax.default_backend() == 'cpu'
    and one_device
    and needs in _cpu().split() + ['']
    and _register(source, tuple(targets), doing)
  )


@functools.cache
def _register(source: str, targets: tuple[str, ...], doing: str) -> bool:
  """Compiles the kernels, or finds them compiled, and tells XLA of them."""
  goes_on = f"{doing} on CPU goes on with XLA's attention"
  found = shutil.which('c++') or shutil.which('g++') or ''
  compiler = shlex.split(os.environ.get('CXX') or found)
  if not compiler:
    _log.warning(
      'no C++ compiler (c++, g++ or $CXX): %s, which takes longer.', goes_on
    )
    return False
  try:
    library = ctypes.cdll.LoadLibrary(str(_build(compiler, _FOLDER / source)))
  # No such compiler, or one that refuses; a cache that takes no file, or from
  # which nothing may be run.
  except OSError as e:
    _log.warning('%s does not become a kernel (%s): %s.', source, e, goes_on)
    return False
  for target in targets:
    jax.ffi.register_ffi_target(
      target, jax.ffi.pycapsule(getattr(library, target)), platform='cpu'
    )
  return True


def _build(compiler: Sequence[str], source: pathlib.Path) -> pathlib.Path:
  """The shared library, in $ERP_CACHE/native under what it was made from.

  Raises OSError with the first line of what the compiler has against it.
  """
  headers = ('-isystem', jax.ffi.include_dir())
  command = [*compiler, *_FLAGS, *headers, str(source)]
  texts = [f.read_text() for f in (source, *sorted(_FOLDER.glob('*.h')))]
  made_from = (*command, *texts, jax.__version__, _cpu())
  name = hashlib.sha256('\n'.join(made_from).encode()).hexdigest()[:16]
  folder = runtime.cache_root() / 'native'
  library = folder / f'{name}.so'
  if not library.exists():
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
      made = pathlib.Path(scratch) / library.name
      done = subprocess.run(
        [*command, '-o', str(made)], capture_output=True, text=True
      )
      if done.returncode:
        first, *_ = done.stderr.splitlines() or ['no message']
        raise OSError(f'{compiler[0]}: {first}')
      made.rename(library)
  return library


@functools.cache
def _cpu() -> str:
  """What -march=native compiles for."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  flags = [line for line in lines if line.startswith(('flags', 'Features'))]
  return ' '.join((platform.machine(), platform.processor(), *flags[:1]))
