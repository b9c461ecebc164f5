"""A run on a real object store: the same bytes as in a folder."""

import os
import subprocess
import time

import pytest

from erp_jax.core import audit, events
from tests import tiny as tiny_lib

pytestmark = pytest.mark.slow
# The quickstart without replays; two points of a sweep.
_CONFIG = """
from configs import quickstart
from launch.sweeps import grid

def get_config():
  config = quickstart.get_config()
  config.replays = {}
  return config

def get_sweep():
  return grid.over('sample.seed', (0, 1))
"""


@pytest.fixture(scope='module')
def flags(tiny, tmp_path_factory):
  """Flags of a workdir, without replays; of a sweep's points without one."""
  config = tmp_path_factory.mktemp('config') / 'bucket.py'
  config.write_text(_CONFIG)

  def of(workdir: str = '') -> list[str]:
    kept = [f for f in tiny.flags(workdir) if '.replays.' not in f]
    return [f'--config={config}', *kept[1 if workdir else 2 :]]

  return of


@pytest.fixture(scope='module')
def killed(bucket, flags, launch, tmp_path_factory):
  """A copy of gs://runs/killed, finished after kill -9 at three moments."""
  command = tiny_lib.command('pipeline', *flags('gs://runs/killed'))
  for moment in (15, 45, 90):  # Responses, rewards, probes.
    with subprocess.Popen(
      command,
      env=os.environ | bucket.env,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    ) as process:
      while len(bucket.names('killed/')) < moment and process.poll() is None:
        time.sleep(0.01)
      assert process.poll() is None, f'it ended before object {moment}'
      process.kill()
  done = launch('pipeline', *flags('gs://runs/killed'), **bucket.env)
  assert done.returncode == 0, done.stderr
  assert 'gs://runs/killed/report/report.html' in done.stdout
  folder = tmp_path_factory.mktemp('killed')
  bucket.download('killed', folder)
  return folder


def test_a_killed_run_leaves_what_one_in_a_folder_does(
  killed, flags, launch, tmp_path
):
  done = launch('pipeline', *flags(str(tmp_path)))
  assert done.returncode == 0, done.stderr
  expected = tiny_lib.promised(tmp_path)
  assert len(expected) > 20
  assert tiny_lib.promised(killed) == expected
  figures = {f.name for f in (tmp_path / 'report').iterdir()}
  assert {f.name for f in (killed / 'report').iterdir()} == figures
  assert (killed / 'report' / 'report.html').stat().st_size > 10_000


def test_all_of_it_is_whole(killed, bucket, launch):
  states = {found.state for found in audit.audit(killed, {})}
  assert states <= {audit.WHOLE, audit.UNCHECKED}
  done = launch('verify', '--workdir=gs://runs/killed', **bucket.env)
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'responses/terse' in done.stdout


def test_status_reads_it(killed, bucket, launch):
  done = launch('status', '--workdir=gs://runs/killed', **bucket.env)
  assert done.returncode == 0, done.stdout + done.stderr
  lines = [line for line in done.stdout.splitlines() if '3 of 3' in line]
  assert len(lines) == 2 + 2 * 2  # Arms; two reward models of each.
  assert all('done' in line for line in lines)


def test_its_processes_tell_what_they_did(killed):
  last = [events.read(f)[-1]['event'] for f in (killed / 'events').iterdir()]
  assert last.count('exit') == 1 and len(last) == 4


def test_a_sweep_runs_lists_and_skips(bucket, flags, launch):
  config, *extra = flags()
  sweep = [config, '--binary=launch.sample', '--workdir=gs://runs/sweep']
  run = [*sweep, '--run', '--', *extra, '--arms=terse']
  done = launch('sweep', *run, **bucket.env)
  assert done.returncode == 0, done.stderr
  assert '2 points' in done.stdout and '2 done' in done.stdout
  shards = [n for n in bucket.names('sweep/') if n.endswith('.parquet')]
  assert len(shards) == 2 * 3
  again = launch('sweep', *run, **bucket.env)
  assert again.returncode == 0 and again.stderr.count('done, skipped') == 2
  listed = launch(
    *('sweep', *sweep, '--list', '--', *extra, '--arms=terse'), **bucket.env
  )
  assert '2 done' in listed.stdout
  told = launch('status', '--workdir=gs://runs/sweep', **bucket.env)
  assert told.returncode == 0 and told.stdout.count('seed=') >= 2
