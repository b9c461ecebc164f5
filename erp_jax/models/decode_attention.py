"""A decode step's attention on CPU: our own kernel, compiled where it runs.

XLA's CPU backend multiplies a few queries with many keys on one thread, and
copies each layer's cache before it does. The kernel reads keys and values where
they lie. It is compiled once a machine, by the C++ compiler that is there;
without one, and on a mesh, attention is XLA's.
"""

import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import runtime
from erp_jax.models import layers

_SOURCE = pathlib.Path(__file__).with_suffix('.cc')
_FLAGS = ('-O3', '-march=native', '-std=c++17', '-fPIC', '-shared')
_TARGETS = {
  jnp.dtype('float32'): 'DecodeAttentionFloat32',
  jnp.dtype('uint16'): 'DecodeAttentionBfloat16',
}

_log = logging.getLogger(__name__)


def is_usable() -> bool:
  """Whether this process can run it: on one CPU device, once compiled."""
  mesh = jax.sharding.get_abstract_mesh()
  one_device = mesh.empty or mesh.size == 1
  return jax.default_backend() == 'cpu' and one_device and _register()


def fits(q_PKTGRW: jax.Array, key_LPKGWS: jax.Array) -> bool:
  """Whether `attend` can do it: one token each, caches that it can read."""
  return q_PKTGRW.shape[2] == 1 and key_LPKGWS.dtype in _TARGETS and is_usable()


def attend(
  q_PKTGRW: jax.Array,
  new: tuple[jax.Array, jax.Array],
  shared: tuple[jax.Array, jax.Array],
  own: tuple[jax.Array, jax.Array],
  layer: jax.Array,
  new_PKTS: jax.Array,
  old_PKTS: jax.Array,
  prefix_PKTS: jax.Array,
  scores: layers.Scores,
) -> jax.Array:
  """Softmax attention of one token (T = 1), [P, K, T, G, R, W] in float32.

  Args:
    new: its key [P, K, G, W, T] and value [P, K, G, T, W].
    shared: the keys and values of prefixes, of all layers.
    own: those of suffixes. Like the prefixes, they may be of more prompts, and
      have more entries, than are read.
    new_PKTS: whether it sees itself; old_PKTS the suffix's entries, prefix_PKTS
      the prefix's.
  """
  P, K, _, G, R, W = q_PKTGRW.shape
  wide = lambda x, *shape: x.reshape(shape).astype(jnp.float32)
  seen_PKS = jnp.concatenate([new_PKTS, old_PKTS], axis=-1)[:, :, 0]
  # Without a window, the same for all K.
  shape = (P, K, 1, prefix_PKTS.shape[-1])
  prefix_PKS = jnp.broadcast_to(prefix_PKTS, shape)[:, :, 0]
  call = jax.ffi.ffi_call(
    _TARGETS[own[0].dtype], jax.ShapeDtypeStruct((P, K, G, R, W), jnp.float32)
  )
  out_PKGRW = call(
    wide(q_PKTGRW, P, K, G, R, W),
    wide(new[0], P, K, G, W),
    wide(new[1], P, K, G, W),
    *(*shared, *own, prefix_PKS, seen_PKS, jnp.int32(layer)),
    scale=np.float32(scores.scale),
    softcap=np.float32(scores.softcap),
  )
  return out_PKGRW[:, :, None]


@functools.cache
def _register() -> bool:
  """Compiles the kernel, or finds it compiled, and tells XLA of it."""
  compiler = os.environ.get('CXX') or shutil.which('c++') or shutil.which('g++')
  if not compiler:
    _log.warning(
      'no C++ compiler (c++, g++ or $CXX): decoding on CPU goes on with '
      "XLA's attention, which takes about twice as long."
    )
    return False
  built = _build(compiler)
  if isinstance(built, str):
    _log.warning(
      '%s does not compile %s (%s): decoding on CPU goes on with '
      "XLA's attention, which takes about twice as long.",
      *(compiler, _SOURCE.name, built),
    )
    return False
  library = ctypes.cdll.LoadLibrary(str(built))
  for target in _TARGETS.values():
    jax.ffi.register_ffi_target(
      target, jax.ffi.pycapsule(getattr(library, target)), platform='cpu'
    )
  return True


def _build(compiler: str) -> pathlib.Path | str:
  """The shared library, in $ERP_CACHE/native under what it was made from.

  Or the first line of what the compiler had against it.
  """
  headers = ('-isystem', jax.ffi.include_dir())
  command = [compiler, *_FLAGS, *headers, str(_SOURCE)]
  made_from = (*command, _SOURCE.read_text(), jax.__version__, _cpu())
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
        return (done.stderr.splitlines() or ['no message'])[0]
      made.rename(library)
  return library


def _cpu() -> str:
  """What -march=native compiles for."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  flags = [line for line in lines if line.startswith(('flags', 'Features'))]
  return ' '.join((platform.machine(), platform.processor(), *flags[:1]))
