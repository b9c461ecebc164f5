"""Programs of our own in place of those that clusters have.

A `gcloud` on PATH stands in for Cloud TPU: each worker is a folder, in which it
runs what the real one would run by ssh.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_CLUSTERS = _ROOT / 'launch' / 'clusters'
_GCLOUD = r"""
import json, os, pathlib, shutil, subprocess, sys
args = sys.argv[1:]
root = pathlib.Path(os.environ['FAKE_ROOT'])
with open(root / 'calls', 'a') as f:
  f.write(json.dumps(args) + '\n')
verb = args[3] if args[:3] == ['compute', 'tpus', 'tpu-vm'] else args[1]
flags = dict(a[2:].partition('=')[::2] for a in args if a.startswith('--'))
worst = 0
for worker in range(int(os.environ.get('FAKE_WORKERS', 2))):
  home = root / f'worker-{worker}'
  home.mkdir(exist_ok=True)
  env = os.environ | {'HOME': str(home), 'FAKE_WORKER': str(worker)}
  if verb == 'ssh':
    log = pathlib.Path(flags['output-directory']) / f'{worker}.log'
    with log.open('w') as f:
      code = subprocess.call(
        ['bash', '-c', flags['command']], cwd=home, env=env, stdout=f, stderr=f
      )
    worst = worst or code
  elif verb == 'scp':
    *sources, target = [a for a in args[4:] if not a.startswith('--')]
    for source in sources:
      shutil.copy(source, home / target.partition(':')[2])
sys.exit(worst)
"""
# Cloud TPU's metadata, which knows one thing.
_CURL = r"""
import os, sys
assert sys.argv[-1].endswith('/instance/attributes/agent-worker-number')
print(os.environ['FAKE_WORKER'])
"""
# An interpreter whose environments have two packages, and pip's own words.
_PYTHON = r"""
import os, pathlib, shutil, sys
args = sys.argv[1:]
worker = os.environ.get('FAKE_WORKER', '0')
if args[:2] == ['-m', 'venv']:
  (pathlib.Path(args[2]) / 'bin').mkdir(parents=True, exist_ok=True)
  shutil.copy(sys.argv[0], pathlib.Path(args[2]) / 'bin' / 'python')
elif args[:3] == ['-m', 'pip', 'install']:
  with open(pathlib.Path.home() / 'installed', 'a') as f:
    f.write(' '.join(args) + '\n')
  sys.exit(os.environ.get('FAKE_NO_INSTALL') == worker)
elif args[:3] == ['-m', 'pip', 'list']:
  odd = os.environ.get('FAKE_ODD') == worker
  print('erp-jax==0.1.0\nFlax==' + os.environ['FAKE_FLAX'])
  print('unlocked==' + ('2' if odd else '1'))
elif args == ['--version']:
  print('Python 3.11.9')
else:
  print(11)
"""


class Cluster:
  """Runs launchers from the checkout, as a person does.

  Attributes:
    folder: has those programs in bin/, and what they need and leave.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    for name, source in (
      *(('gcloud', _GCLOUD), ('gcluster', _GCLOUD), ('srun', _GCLOUD)),
      *(('python3.11', _PYTHON), ('curl', _CURL)),
    ):
      file = folder / 'bin' / name
      file.parent.mkdir(exist_ok=True)
      file.write_text(f'#!{sys.executable} -S{source}')
      file.chmod(0o755)
    lock = (_ROOT / 'constraints-py311.txt').read_text()
    self.flax = re.search('^flax==(.*)$', lock, re.M).group(1)
    # The tests may run in a job themselves.
    outer = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
    self.env = outer | {
      'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
      'FAKE_ROOT': str(folder),
      'FAKE_FLAX': self.flax,
      'ERP_LIBTPU_LOCK': str(folder / 'libtpu_lockfile'),
      'ERP_GRACE': '5',
    }

  def run(self, script: str, *args: str, **env: str):
    """A launcher that has ended."""
    return subprocess.run(
      ['bash', str(_CLUSTERS / script), *args],
      cwd=_ROOT,
      env=self.env | env,
      capture_output=True,
      text=True,
    )

  def tpu(self, verb: str, *args: str, **env: str):
    """tpu_vm.sh, of the slice 'pod'."""
    before_program = [f'--out={self.folder / "out"}', '--zone=z-1']
    at = args.index('--') if '--' in args else len(args)
    return self.run(
      'tpu_vm.sh', verb, 'pod', *args[:at], *before_program, *args[at:], **env
    )

  def calls(self) -> list[list[str]]:
    """Arguments of each call of those programs."""
    file = self.folder / 'calls'
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]

  def printed(self, done) -> list[list[str]]:
    """Commands that a launcher printed, as a shell reads them back."""
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
      if line.startswith('+ '):
        script = f"printf '%s\\0' {line.removeprefix('+ ')}"
        words = subprocess.check_output(['bash', '-c', script], text=True)
        found.append(words.split('\0')[:-1])
    return found


@pytest.fixture
def fake(tmp_path):
  """A cluster in a folder."""
  return Cluster(tmp_path)
