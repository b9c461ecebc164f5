"""All launchers: what shellcheck says, and what the README prints."""

import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
import yaml

_ROOT = pathlib.Path(__file__).parents[3]
_CLUSTERS = _ROOT / 'launch' / 'clusters'
_SCRIPTS = ['commands.sh', 'gke.sh', 'host.sh', 'slurm.sbatch', 'tpu_vm.sh']


@pytest.mark.parametrize('script', _SCRIPTS)
def test_shellcheck_has_nothing_to_say(script):
  checker = shutil.which('shellcheck', path=pathlib.Path(sys.executable).parent)
  done = subprocess.run(
    [checker, '-x', script], cwd=_CLUSTERS, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('part', ['setup', 'run'])
def test_shellcheck_reads_the_parts_of_sky_yaml(part, tmp_path):
  task = yaml.safe_load((_CLUSTERS / 'sky.yaml').read_text())
  file = tmp_path / 'part.sh'
  envs = ''.join(f'{name}=x\n' for name in task['envs'])
  file.write_text(f'#!/usr/bin/env bash\n{envs}export {" ".join(task["envs"])}'
                  f'\n{task[part]}')  # fmt: skip
  checker = shutil.which('shellcheck', path=pathlib.Path(sys.executable).parent)
  done = subprocess.run([checker, file], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


def test_what_is_packed(tmp_path):
  """All that git does not ignore and that is there, as it is there."""
  top = tmp_path / 'top'
  (top / 'launch').mkdir(parents=True)
  shutil.copy(_CLUSTERS / 'commands.sh', top / 'launch')
  for name in ('kept', 'gone', 'two  w', '-C', 'line\nbreak', 'ignored'):
    (top / name).write_text(name)
  (top / 'dangling').symlink_to('nowhere')
  (top / '.gitignore').write_text('ignored\n')
  subprocess.run(['git', 'init', '-q'], cwd=top, check=True)
  subprocess.run(['git', 'add', '-A'], cwd=top, check=True)
  (top / 'gone').unlink()
  (top / 'kept').write_text('changed')
  (top / 'new').write_text('not yet added')
  script = 'set -euo pipefail; source "$1/launch/commands.sh"; pack code.tgz'
  done = subprocess.run(
    ['bash', '-c', script, 'pack', top],
    cwd=tmp_path, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  with tarfile.open(tmp_path / 'code.tgz') as archive:
    assert sorted(archive.getnames()) == sorted([
      *('kept', 'two  w', '-C', 'line\nbreak', 'dangling', 'new'),
      *('.gitignore', 'launch/commands.sh'),
    ])  # fmt: skip
    assert archive.extractfile('kept').read() == b'changed'


def test_sky_yaml_runs_an_element_of_a_sweep():
  task = yaml.safe_load((_CLUSTERS / 'sky.yaml').read_text())
  assert set(task) <= {
    *('name', 'workdir', 'num_nodes', 'resources', 'envs', 'secrets'),
    *('setup', 'run'),
  }
  assert '--index="$INDEX"' in task['run']
  assert 'host.sh install "$EXTRAS"' in task['setup']
  assert (_ROOT / task['envs']['CONFIG']).exists()
  # SkyPilot refuses a null that no flag replaces.
  assert None not in [*task['envs'].values(), *task['secrets'].values()]


def test_every_script_is_strict():
  for script in _SCRIPTS[1:]:
    assert '\nset -euo pipefail\n' in (_CLUSTERS / script).read_text()
  for script in [*_SCRIPTS, 'sky.yaml']:
    assert not re.search(
      r'\b(pkill|killall)\b', (_CLUSTERS / script).read_text()
    )


def test_the_readmes_dry_runs_print_what_they_say(fake):
  text = (_ROOT / 'README.md').read_text()
  block = re.search('## On a cluster.*?```\n(.*?)```', text, re.S).group(1)
  lines = [x for x in block.splitlines() if not x.startswith('sky ')]
  done = subprocess.run(
    ['bash', '-euc', '\n'.join(lines)],
    cwd=_ROOT,
    env=fake.env,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert not fake.calls()
  for part in (
    *(
      'tpu-vm create pod',
      'tpu-vm scp ',
      ' start main python -m launch.sample',
    ),
    *('tpu-vm delete pod', 'gcluster job submit --name=sim-5', '+ srun '),
  ):
    assert part in done.stdout
