"""Launchers: what they would run, and what they do on hosts that fail.

A `gcloud` of our own on PATH stands in for Cloud TPU: each worker is a folder,
in which it runs what the real one would run by ssh.
"""

import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml

_ROOT = pathlib.Path(__file__).parents[2]
_CLUSTERS = _ROOT / 'launch' / 'clusters'
_SCRIPTS = ['commands.sh', 'gke.sh', 'host.sh', 'slurm.sbatch', 'tpu_vm.sh']
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


@pytest.fixture
def fake(tmp_path):
  """A folder with gcloud and an interpreter in bin/, and what they need."""
  for name, source in (
    *(('gcloud', _GCLOUD), ('gcluster', _GCLOUD), ('srun', _GCLOUD)),
    ('python3.11', _PYTHON),
  ):
    file = tmp_path / 'bin' / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!{sys.executable} -S{source}')
    file.chmod(0o755)
  return tmp_path


def _flax() -> str:
  lock = (_ROOT / 'constraints-py311.txt').read_text()
  return re.search('^flax==(.*)$', lock, re.M).group(1)


def _run(fake, script: str, *args: str, **env: str):
  """Runs a launcher from the checkout, as a person does."""
  return subprocess.run(
    ['bash', str(_CLUSTERS / script), *args],
    cwd=_ROOT,
    env=os.environ
    | {
      'PATH': f'{fake / "bin"}:{os.environ["PATH"]}',
      'FAKE_ROOT': str(fake),
      'FAKE_FLAX': _flax(),
      'ERP_LIBTPU_LOCK': str(fake / 'libtpu_lockfile'),
      'ERP_GRACE': '5',
    }
    | env,
    capture_output=True,
    text=True,
  )


def _tpu(fake, verb: str, *args: str, **env: str):
  before_program = [f'--out={fake / "out"}', '--zone=z-1']
  at = args.index('--') if '--' in args else len(args)
  return _run(
    fake, 'tpu_vm.sh', verb, 'pod', *args[:at], *before_program, *args[at:],
    **env,
  )  # fmt: skip


def _calls(fake) -> list[list[str]]:
  file = fake / 'calls'
  lines = file.read_text().splitlines() if file.exists() else []
  return [json.loads(line) for line in lines]


def _printed(done) -> list[list[str]]:
  """Commands that a launcher printed, as a shell reads them back."""
  assert done.returncode == 0, done.stderr
  found = []
  for line in done.stdout.splitlines():
    if line.startswith('+ '):
      script = f"printf '%s\\0' {line.removeprefix('+ ')}"
      words = subprocess.check_output(['bash', '-c', script], text=True)
      found.append(words.split('\0')[:-1])
  return found


def _wait_for(condition) -> None:
  until = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < until
    time.sleep(0.02)


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


def test_sky_yaml_runs_an_element_of_a_sweep():
  task = yaml.safe_load((_CLUSTERS / 'sky.yaml').read_text())
  assert set(task) <= {
    *('name', 'workdir', 'num_nodes', 'resources', 'envs', 'secrets'),
    *('setup', 'run'),
  }
  assert '--index="$INDEX"' in task['run']
  assert 'host.sh install "$EXTRAS"' in task['setup']
  assert (_ROOT / task['envs']['CONFIG']).exists()


def test_every_script_is_strict():
  for script in _SCRIPTS[1:]:
    assert '\nset -euo pipefail\n' in (_CLUSTERS / script).read_text()
  for script in [*_SCRIPTS, 'sky.yaml']:
    assert not re.search(
      r'\b(pkill|killall)\b', (_CLUSTERS / script).read_text()
    )


_TPU_VERBS = {
  'create': (['--type=v5e-8', '--spot'], []),
  'sync': ([], []),
  'run': (['--wait'], ['--', 'python', '-m', 'launch.fit', '--x=a b', "it's"]),
  'logs': (['--lines=3'], []),
  'stop': ([], []),
  'delete': ([], []),
}


@pytest.mark.parametrize('verb', _TPU_VERBS)
def test_a_dry_run_runs_nothing(verb, fake):
  options, program = _TPU_VERBS[verb]
  done = _tpu(fake, verb, *options, '--dry-run', *program)
  commands = _printed(done)
  assert commands and not _calls(fake)
  assert sorted(f.name for f in fake.iterdir()) == ['bin']
  for words in commands:
    if words[0] == 'gcloud':
      assert words[1:4] == ['compute', 'tpus', 'tpu-vm']
      assert words[5].startswith(('pod', str(fake))) and '--zone=z-1' in words


def test_the_readmes_dry_runs_print_what_they_say(fake):
  text = (_ROOT / 'README.md').read_text()
  block = re.search('## On a cluster.*?```\n(.*?)```', text, re.S).group(1)
  lines = [x for x in block.splitlines() if not x.startswith('sky ')]
  done = subprocess.run(
    ['bash', '-euc', '\n'.join(lines)],
    cwd=_ROOT,
    env=os.environ
    | {'PATH': f'{fake / "bin"}:{os.environ["PATH"]}', 'FAKE_ROOT': str(fake)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert not _calls(fake)
  for part in (
    *(
      'tpu-vm create pod',
      'tpu-vm scp ',
      ' start main python -m launch.sample',
    ),
    *('tpu-vm delete pod', 'gcluster job submit --name=sim-5', '+ srun '),
  ):
    assert part in done.stdout


@pytest.mark.parametrize(
  'kind, made, image',
  [
    ('v4-16', 'v4-16', 'tpu-ubuntu2204-base'),
    ('v5e-16', 'v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v5litepod-8', 'v5litepod-8', 'v2-alpha-tpuv5-lite'),
    ('v5p-8', 'v5p-8', 'v2-alpha-tpuv5'),
    ('v6e-8', 'v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_each_type_has_its_image(kind, made, image, fake):
  done = _tpu(fake, 'create', f'--type={kind}', '--project=p', '--dry-run')
  assert _printed(done) == [
    [
      *('gcloud', 'compute', 'tpus', 'tpu-vm', 'create', 'pod'),
      *(f'--accelerator-type={made}', f'--version={image}'),
      *('--zone=z-1', '--project=p'),
    ]
  ]


def test_a_dry_run_prints_what_a_run_does(fake):
  """On a slice of two hosts: install, start, watch, and each one's log."""
  program = ['--', 'bash', '-c', 'echo "here is $PWD"; echo $0', "it's two  w"]
  for verb, options in (('sync', []), ('run', ['--wait', '--poll=0.1'])):
    words = program if verb == 'run' else []
    printed = _printed(_tpu(fake, verb, *options, '--dry-run', *words))
    (fake / 'calls').unlink(missing_ok=True)
    done = _tpu(fake, verb, *options, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    made = [['gcloud', *call] for call in _calls(fake)]
    # A dry run looks at the state once.
    expected = [w for w in printed if w[0] == 'gcloud']
    assert made[: len(expected)] == expected
    assert all(call == expected[-1] for call in made[len(expected) :])
  for worker in range(2):
    base = fake / f'worker-{worker}' / 'erp'
    log = (base / 'jobs' / 'main' / 'log').read_text()
    assert f'here is {base / "code"}\n' in log and "it's two  w\n" in log
    assert (base / 'jobs' / 'main' / 'code').read_text() == '0\n'
    assert (base / 'code' / 'launch' / 'sample.py').exists()
    assert not (base / 'code' / '.git').exists()
    (line,) = (base.parent / 'installed').read_text().splitlines()
    assert line == (
      f'-m pip install -q -c {base}/code/constraints-py311.txt '
      f'-e {base}/code[tpu,gcs]'
    )
  shown = _tpu(fake, 'logs')
  assert shown.returncode == 0
  assert shown.stdout.count('state: done') == 2
  assert f'here is {fake}/worker-1/erp/code' in shown.stdout


@pytest.fixture
def synced(fake):
  done = _tpu(fake, 'sync')
  assert done.returncode == 0, done.stdout + done.stderr
  yield fake
  _tpu(fake, 'stop')


def test_a_host_that_cannot_install_fails_all(fake):
  done = _tpu(fake, 'sync', FAKE_NO_INSTALL='1')
  assert done.returncode == 1
  assert 'pod, host 1, failed to install' in done.stderr
  assert 'host 0' not in done.stderr
  assert 'not installed on all hosts' in done.stderr.splitlines()[-1]


def test_hosts_with_other_versions_start_nothing(synced):
  done = _tpu(synced, 'run', '--', 'true', FAKE_ODD='1')
  assert done.returncode == 1
  assert '< version: unlocked==1\n' in done.stderr
  assert 'versions on hosts 1 are not those on 0' in done.stderr
  assert not list(synced.glob('worker-*/erp/jobs/main'))


def test_versions_must_be_those_of_the_lock_file(synced):
  done = _tpu(synced, 'run', '--', 'true', FAKE_FLAX='0.1')
  assert done.returncode == 1
  assert f'Flax is 0.1, but locked at {_flax()}' in done.stderr


def _busy(synced, worker):
  """Starts another job on one host by hand."""
  return subprocess.run(
    ['bash', 'erp/host.sh', 'start', 'main', 'sleep', '300'],
    cwd=synced / f'worker-{worker}',
    env=os.environ | {'ERP_LIBTPU_LOCK': str(synced / 'none')},
    capture_output=True,
    text=True,
    check=True,
  )


def _state(synced, worker, job='main'):
  done = subprocess.run(
    ['bash', 'erp/host.sh', 'state', job],
    cwd=synced / f'worker-{worker}',
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()[0].removeprefix('state: ')


def test_what_does_not_start_on_one_host_is_stopped_on_all(synced):
  (synced / 'worker-1/erp/jobs/main').write_text('in the way')
  done = _tpu(synced, 'run', '--', 'sleep', '300')
  assert done.returncode == 1
  assert 'host 1, failed to start' in done.stderr
  assert _state(synced, 0) == 'failed 143'


def test_a_job_that_runs_is_left_alone(synced):
  _busy(synced, 1)
  done = _tpu(synced, 'run', '--', 'sleep', '300')
  assert done.returncode == 1
  assert 'main runs already: stop it first' in done.stderr
  assert _state(synced, 1) == 'running'
  assert _state(synced, 0) == 'none'
  assert _tpu(synced, 'stop').returncode == 0


def test_a_new_copy_of_the_code_keeps_its_runs(synced):
  for worker in (0, 1):
    runs = synced / f'worker-{worker}/erp/code/runs'
    runs.mkdir()
    (runs / 'kept').write_text('result')
  assert _tpu(synced, 'sync').returncode == 0
  for worker in (0, 1):
    kept = synced / f'worker-{worker}/erp/code/runs/kept'
    assert kept.read_text() == 'result'


def test_one_that_fails_later_ends_the_others(synced):
  fails = 'if [ $FAKE_WORKER = 1 ]; then echo disk full; exit 7; fi; sleep 300'
  done = _tpu(synced, 'run', '--wait', '--poll=0.1', '--', 'sh', '-c', fails)
  assert done.returncode == 1
  assert 'state: failed 7' in done.stdout and 'disk full' in done.stdout
  assert 'main has failed on a host' in done.stderr.splitlines()[-1]
  assert _state(synced, 0) == 'failed 143'
  assert _tpu(synced, 'logs').returncode == 1


def test_stop_ends_the_job_and_nothing_else(synced):
  """By the id that was written down, its children too."""
  other = subprocess.Popen(['sleep', '300'])
  try:
    assert (
      _tpu(synced, 'run', '--', 'sh', '-c', 'sleep 300; true').returncode == 0
    )
    assert _state(synced, 0) == 'running'
    assert _tpu(synced, 'stop').returncode == 0
    assert _state(synced, 0) == _state(synced, 1) == 'failed 143'
    assert other.poll() is None
    again = _tpu(synced, 'stop')
    assert again.returncode == 0
  finally:
    other.kill()
    other.wait()


def test_an_id_that_was_given_away_is_not_killed(synced):
  other = subprocess.Popen(['sleep', '300'], start_new_session=True)
  try:
    folder = synced / 'worker-0' / 'erp' / 'jobs' / 'main'
    folder.mkdir()
    (folder / 'pid').write_text(f'{other.pid} 1\n')
    assert _state(synced, 0) == 'lost'
    assert _tpu(synced, 'stop').returncode == 0
    assert other.poll() is None
  finally:
    other.kill()
    other.wait()


def test_a_job_that_was_killed_is_lost(synced):
  assert _tpu(synced, 'run', '--', 'sleep', '300').returncode == 0
  pid = (synced / 'worker-0/erp/jobs/main/pid').read_text().split()[0]
  subprocess.run(['kill', '-9', '--', f'-{pid}'], check=True)
  _wait_for(lambda: _state(synced, 0) == 'lost')
  assert _tpu(synced, 'logs').returncode == 1


def test_code_is_not_replaced_under_a_job(synced):
  assert _tpu(synced, 'run', '--', 'sleep', '300').returncode == 0
  done = _tpu(synced, 'sync')
  assert done.returncode == 1 and 'job main runs this code' in done.stderr


def test_a_stale_lock_of_the_tpu_is_removed(synced):
  lock = synced / 'libtpu_lockfile'
  lock.touch()
  assert _tpu(synced, 'run', '--', 'true').returncode == 0
  assert not lock.exists()


def test_a_lock_that_a_process_holds_is_left(synced):
  lock = synced / 'libtpu_lockfile'
  with lock.open('w') as f:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    done = _tpu(synced, 'run', '--', 'true')
  assert done.returncode == 1 and lock.exists()
  assert f'held by process {os.getpid()} ' in done.stderr


@pytest.mark.parametrize(
  'args, expected',
  [
    (['create', 'pod'], 'create needs --type'),
    (['create', 'pod', '--type=v9-8'], 'allowed: v4-N, v5e-N, v5p-N, v6e-N'),
    (['run', 'pod'], 'run needs a program'),
    (['start', 'pod'], 'allowed: create, sync, run, logs, stop, delete'),
    (['stop', 'pod', 'pad'], 'one slice at a time'),
    (['stop', 'pod', '--force'], 'no option --force'),
    (['stop', '--dry-run'], 'name the slice'),
  ],
)
def test_mistakes_are_named(args, expected, fake):
  done = _run(fake, 'tpu_vm.sh', *args)
  assert done.returncode == 1 and expected in done.stderr
  assert not _calls(fake)


_GKE = ['--cluster=c', '--location=l', '--project=p']


def _gke(fake, *args: str):
  return _run(fake, 'gke.sh', *args)


def test_gke_submits_a_jobset_for_each_index(fake):
  flags = [*_GKE, '--type=v6e-8', '--image=i', '--indices=2-4']
  program = ['--', 'python', '-m', 'launch.sweep', '--index={index}', 'a b']
  dry = _printed(_gke(fake, 'submit', 'job', *flags, '--dry-run', *program))
  assert not _calls(fake)
  assert dry == [
    [
      *('gcluster', 'job', 'submit', f'--name=job-{i}', '--image=i'),
      *('--compute-type=v6e-8', '--restarts=10'),
      f'--command=exec python -m launch.sweep --index={i} a\\ b',
      *('--cluster=c', '--location=l', '--project=p'),
    ]
    for i in (2, 3, 4)
  ]
  done = _gke(fake, 'submit', 'job', *flags, *program)
  assert done.returncode == 0
  assert [['gcluster', *call] for call in _calls(fake)] == dry


def test_gke_lays_the_code_on_an_image(fake):
  flags = [*_GKE, '--type=v6e-8', '--topology=2x4', '--queue=q', '--wait']
  done = _gke(
    fake, 'submit', 'job', *flags, '--dry-run', '--', 'python', '-m', 'x'
  )
  *context, submit = _printed(done)
  assert context[-2] == [
    *('tar', '-xzf', 'runs/gke/job/code.tgz', '-C', 'runs/gke/job/erp')
  ]
  assert '--base-image=python:3.11' in submit
  assert '--build-context=runs/gke/job' in submit
  for flag in ('--topology=2x4', '--queue=q', '--await-job-completion'):
    assert flag in submit
  (command,) = [w for w in submit if w.startswith('--command=')]
  assert 'host.sh install tpu\\,gcs && ' in command
  assert 'host.sh versions && PATH=/erp/.venv/bin:"$PATH" exec ' in command
  assert command.endswith('python -m x')


def test_gke_says_which_were_not_submitted(fake):
  (fake / 'bin' / 'gcluster').write_text(
    '#!/usr/bin/env bash\n[[ $* != *job-1* ]]\n'
  )
  done = _gke(
    fake, 'submit', 'job', *_GKE, '--type=v6e-8', '--image=i',
    '--indices=0-2', '--', 'true',
  )  # fmt: skip
  assert done.returncode == 1
  assert 'not submitted: index 1; the others were' in done.stderr


@pytest.mark.parametrize(
  'args, words',
  [
    (['list'], ['list']),
    (['logs', 'job'], ['logs', 'job']),
    (['cancel', 'job'], ['cancel', 'job']),
  ],
)
def test_gke_looks_after_jobs(args, words, fake):
  done = _gke(fake, *args, *_GKE, '--dry-run')
  assert _printed(done) == [['gcluster', 'job', *words, *_GKE]]


@pytest.mark.parametrize(
  'args, expected',
  [
    (['submit', 'j', '--image=i', '--type=t', '--', 'x'], 'needs --cluster'),
    (['submit', 'j', *_GKE, '--image=i', '--', 'x'], 'submit needs --type'),
    (['submit', 'j', *_GKE, '--image=i', '--type=t'], 'needs a program'),
    (
      ['submit', 'j', *_GKE, '--image=i', '--type=t', '--', 'a{index}'],
      'needs --indices',
    ),
    (
      ['submit', 'j', *_GKE, '--image=i', '--type=t', '--indices=3', '--', 'a'],
      'must be FIRST-LAST',
    ),
    (['scale', 'j'], 'allowed: submit, list, logs, cancel'),
    (['logs', *_GKE], 'name the job'),
  ],
)
def test_gke_names_mistakes(args, expected, fake):
  done = _gke(fake, *args)
  assert done.returncode == 1 and expected in done.stderr
  assert not _calls(fake)


def _slurm(*args: str, **env: str):
  return subprocess.run(
    ['bash', str(_CLUSTERS / 'slurm.sbatch'), *args],
    cwd=_ROOT,
    env=os.environ | env,
    capture_output=True,
    text=True,
  )


def test_slurm_starts_its_element_on_every_node():
  done = _slurm(
    '--dry-run', '--', 'python', '-m', 'launch.sweep', '--index={index}',
    SLURM_ARRAY_JOB_ID='70', SLURM_ARRAY_TASK_ID='3', PATH=os.environ['PATH'],
  )  # fmt: skip
  logs = _ROOT / 'runs' / 'slurm' / '70_3'
  commands = _printed(done)
  install, versions, program = commands[1], commands[3], commands[4]
  assert install == [
    *('flock', f'{_ROOT}/runs/slurm/install.lock', 'bash'),
    *(str(_CLUSTERS / 'host.sh'), 'install', 'cuda'),
  ]
  assert versions[:2] == ['srun', '--ntasks-per-node=1']
  assert versions[-1] == 'versions'
  assert program[:5] == [
    *('srun', '--ntasks-per-node=1', '--kill-on-bad-exit=1'),
    *('--open-mode=append', f'--output={logs}/%N.log'),
  ]
  assert program[-4:] == ['python', '-m', 'launch.sweep', '--index=3']
  assert not logs.exists()


def test_slurm_directives_come_before_any_command():
  """sbatch reads none after the first line of the script itself."""
  lines = (_CLUSTERS / 'slurm.sbatch').read_text().splitlines()
  first = next(i for i, x in enumerate(lines) if x and not x.startswith('#'))
  directives = [x for x in lines if x.startswith('#SBATCH')]
  assert all(lines.index(x) < first for x in directives)
  assert {'#SBATCH --requeue', '#SBATCH --signal=TERM@120'} <= set(directives)


def _slurm_nodes(fake, odd=''):
  """A checkout of two nodes, whose srun runs on both."""
  srun = fake / 'bin' / 'srun'
  srun.write_text(
    '#!/usr/bin/env bash\n'
    'while [[ $1 == --* ]]; do [[ $1 != --output=* ]] || out=${1#*=}; shift\n'
    'done\nworst=0\nfor FAKE_WORKER in 0 1; do\n'
    '  export FAKE_WORKER\n'
    '  "$@" > "${out/\\%N/node$FAKE_WORKER}" 2>&1 || worst=$?\n'
    'done\nexit $worst\n'
  )
  top = fake / 'top'
  (top / 'launch').mkdir(parents=True)
  shutil.copytree(_CLUSTERS, top / 'launch' / 'clusters')
  for name in ('constraints-py311.txt', 'constraints-latest.txt',
               'pyproject.toml'):  # fmt: skip
    shutil.copy(_ROOT / name, top / name)
  return lambda *program: _run(
    fake, str(top / 'launch/clusters/slurm.sbatch'), '--', *program,
    SLURM_SUBMIT_DIR=str(top), SLURM_JOB_NUM_NODES='2', SLURM_JOB_ID='5',
    HOME=str(fake), FAKE_ODD=odd,
  )  # fmt: skip


def test_slurm_logs_each_node_and_fails_with_its_code(fake):
  run = _slurm_nodes(fake)
  done = run('sh', '-c', 'echo $FAKE_WORKER; exit 4')
  assert done.returncode == 4, done.stdout + done.stderr
  logs = fake / 'top' / 'runs' / 'slurm' / '5_0'
  assert [(logs / f'node{i}.log').read_text() for i in (0, 1)] == ['0\n', '1\n']
  assert run('true').returncode == 0
  # It was installed once: others may run from it.
  assert len((fake / 'installed').read_text().splitlines()) == 1


def test_slurm_compares_the_versions_of_its_nodes(fake):
  done = _slurm_nodes(fake, odd='1')('true')
  assert done.returncode == 1
  assert 'nodes differ in their versions' in done.stderr
  assert 'unlocked==2' in done.stderr
