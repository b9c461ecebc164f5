"""A sweep and its point killed together, at random moments, and resumed."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from erp_jax.core import preemption, process
from erp_jax.report import status
from tests import tiny as tiny_lib
from tests.faults import runs

pytestmark = pytest.mark.faults

_CONFIG = """
from configs import simulate
from launch.sweeps import grid
def get_config(arg=''):
  return simulate.get_config('grm')
def get_sweep():
  return grid.over('simulation.spectrum', (0.5, 1.0))
"""


def _start(config: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
  """A sweep of two simulations, in a process group of its own."""
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'launch.sweep', '--binary=launch.simulate'),
      *(f'--config={config}', f'--workdir={workdir}', '--run', '--'),
      *(
        f'--config.{name}={value}'
        for name, value in tiny_lib.SIMULATION.items()
      ),
    ],
    cwd=runs.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def _states(workdir: pathlib.Path) -> list[str]:
  found = status.read(workdir).points
  return [record.state_now() for *_, record in found]


def _wait_for_a_point(workdir, sweep, kind: str) -> None:
  """Until a point of this sweep has begun: its process, or its own work."""
  begin = time.time()
  is_new = lambda file: process.read(file).begin > begin
  while not any(map(is_new, workdir.glob(f'*/{kind}/simulate*.json'))):
    assert sweep.poll() is None, sweep.communicate()
    time.sleep(0.02)


def test_a_sweep_is_killed_with_its_point_and_resumed(seed, tmp_path, tally):
  config = tmp_path / 'swept.py'
  config.write_text(_CONFIG)
  begin = time.monotonic()
  with _start(config, tmp_path / 'undisturbed') as sweep:
    said, _ = sweep.communicate()
    assert sweep.returncode == 0, said
  secs = (time.monotonic() - begin) / 2
  wanted = tiny_lib.promised(tmp_path / 'undisturbed')
  assert len(wanted) == 2
  workdir = tmp_path / 'run'
  rng = random.Random(f'sweep {seed}')
  for _ in range(3):
    with _start(config, workdir) as sweep:
      _wait_for_a_point(workdir, sweep, 'state')
      time.sleep(rng.random() * secs / 2)
      os.killpg(sweep.pid, signal.SIGKILL)
      sweep.communicate()
    while process.RUNNING in _states(workdir):  # It is being taken apart.
      time.sleep(0.02)
    assert process.INTERRUPTED in _states(workdir)
    tally('kill -9 of a sweep and its point')
  with _start(config, workdir) as sweep:
    _wait_for_a_point(workdir, sweep, 'processes')
    # As `host.sh stop` and SLURM do: to all of them.
    os.killpg(sweep.pid, signal.SIGTERM)
    said, _ = sweep.communicate()
    assert sweep.returncode == preemption.EXIT_CODE, said
  assert process.INTERRUPTED in _states(workdir)
  assert process.FAILED not in _states(workdir)
  tally('SIGTERM to a sweep and its point')
  with _start(config, workdir) as sweep:
    said, _ = sweep.communicate()
    assert sweep.returncode == 0, said
  assert _states(workdir) == [process.DONE] * 2
  found = tiny_lib.promised(workdir)
  differ = runs.num_different(found, wanted)
  tally('sweep to its end after these', differ=differ)
  assert differ == 0
