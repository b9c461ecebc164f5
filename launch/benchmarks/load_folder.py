"""The checkpoints of the loading workload, and the clock around a loading."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

from erp_jax.models import checkpoint
from launch.benchmarks import contest, hf_folder


def timed(argument, module: str) -> Callable[[], contest.Work]:
  """What runs the module's function of the part on its folder."""
  work, part = argument
  kind, _, new = part.partition(' ')
  if kind == 'decoder':
    folder = pathlib.Path(tempfile.mkdtemp())
    hf_folder.write(work.decoder, folder, 'bfloat16')
  else:
    folder = checkpoint.open_checkpoint(work.encoder).path
  num_bytes = (folder / 'model.safetensors').stat().st_size
  name = f'{kind}_weights'
  code = f'import {module} as m; m.{name}({str(folder)!r})'

  def run() -> contest.Work:
    if new:
      subprocess.run((sys.executable, '-c', code), check=True)
    else:
      getattr(sys.modules[module], name)(str(folder))
    return contest.Work(1, bytes=2 * num_bytes)

  return run
