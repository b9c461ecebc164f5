"""SLURM: an element of an array, on one or several nodes."""

import pathlib
import shutil
import signal

import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_CLUSTERS = _ROOT / 'launch' / 'clusters'


def test_slurm_starts_its_element_on_every_node(fake):
  done = fake.run(
    'slurm.sbatch',
    '--dry-run', '--', 'python', '-m', 'launch.sweep', '--index={index}',
    SLURM_ARRAY_JOB_ID='70', SLURM_ARRAY_TASK_ID='3',
  )  # fmt: skip
  logs = _ROOT / 'runs' / 'slurm' / '70_3'
  commands = fake.printed(done)
  install, versions, program = commands[2:5]
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
  srun = fake.folder / 'bin' / 'srun'
  srun.write_text(
    '#!/usr/bin/env bash\n'
    'while [[ $1 == --* ]]; do [[ $1 != --output=* ]] || out=${1#*=}; shift\n'
    'done\nworst=0\nexport FAKE_BATCH=$PPID\nfor FAKE_WORKER in 0 1; do\n'
    '  export FAKE_WORKER\n'
    '  "$@" > "${out/\\%N/node$FAKE_WORKER}" 2>&1 || worst=$?\n'
    'done\nexit $worst\n'
  )
  top = fake.folder / 'top'
  (top / 'launch').mkdir(parents=True)
  shutil.copytree(_CLUSTERS, top / 'launch' / 'clusters')
  for name in ('constraints-py311.txt', 'constraints-latest.txt',
               'pyproject.toml'):  # fmt: skip
    shutil.copy(_ROOT / name, top / name)
  return lambda *program: fake.run(
    str(top / 'launch/clusters/slurm.sbatch'), '--', *program,
    SLURM_SUBMIT_DIR=str(top), SLURM_JOB_NUM_NODES='2', SLURM_JOB_ID='5',
    HOME=str(fake.folder), FAKE_ODD=odd,
  )  # fmt: skip


def test_slurm_logs_each_node_and_fails_with_its_code(fake):
  run = _slurm_nodes(fake)
  done = run('sh', '-c', 'echo $FAKE_WORKER; exit 4')
  assert done.returncode == 4, done.stdout + done.stderr
  logs = fake.folder / 'top' / 'runs' / 'slurm' / '5_0'
  assert [(logs / f'node{i}.log').read_text() for i in (0, 1)] == ['0\n', '1\n']
  assert run('true').returncode == 0
  # It was installed once: others may run from it.
  assert len((fake.folder / 'installed').read_text().splitlines()) == 1


def test_slurm_wants_our_programs_to_know_of_its_nodes(fake):
  run = _slurm_nodes(fake)
  done = run('echo', 'launch.sample')
  assert done.returncode == 1
  assert 'give it --config.runtime.hosts=2.' in done.stderr
  assert (
    run('echo', 'launch.sample', '--config.runtime.hosts=2').returncode == 0
  )


def _requeued(fake):
  """A file of what scontrol was told; nodes do not wait for each other."""
  requeue = fake.folder / 'requeued'
  for name, text in (
    ('scontrol', f'echo "$*" >> {requeue}'),
    ('sleep', '[ "$1" = 10 ] || exec /bin/sleep "$@"'),
  ):
    program = fake.folder / 'bin' / name
    program.write_text(f'#!/bin/sh\n{text}\n')
    program.chmod(0o755)
  return requeue


def test_slurm_queues_again_what_sigterm_stopped(fake):
  run, requeue = _slurm_nodes(fake), _requeued(fake)
  assert run('sh', '-c', 'exit 75').returncode == 75
  assert requeue.read_text() == 'requeue 5\n'
  assert run('sh', '-c', 'exit 76').returncode == 76
  assert requeue.read_text() == 'requeue 5\n'
  # A node that failed, and one that was stopped because of it.
  assert run('sh', '-c', 'exit $((FAKE_WORKER ? 75 : 3))').returncode == 3
  assert requeue.read_text() == 'requeue 5\n'
  # An element has a name of its own: its id may be that of the whole array.
  fake.env |= {'SLURM_ARRAY_JOB_ID': '5', 'SLURM_ARRAY_TASK_ID': '3'}
  assert run('sh', '-c', 'exit 75').returncode == 75
  assert requeue.read_text() == 'requeue 5\nrequeue 5_3\n'


@pytest.mark.parametrize(
  'told',
  [
    'kill -TERM $PPID $$',
    '(sleep 0.3; kill -TERM $PPID) & kill -TERM $$',  # The program first.
  ],
)
def test_slurm_queues_again_what_ended_before_it_could_see_to_sigterm(
  told, fake
):
  """As Python does that imports: it has no handler yet, and ends with 143."""
  run, requeue = _slurm_nodes(fake), _requeued(fake)
  done = run('sh', '-c', told)
  assert done.returncode == 75, done.stdout + done.stderr
  assert requeue.read_text() == 'requeue 5\n'


def test_slurm_queues_nothing_again_that_never_saw_to_sigterm(fake):
  """It would begin anew each time: ten minutes are more than imports take."""
  run, requeue = _slurm_nodes(fake), _requeued(fake)
  fake.env |= {'SECONDS': '601'}  # Bash counts on from there.
  assert run('sh', '-c', 'kill -TERM $PPID $$').returncode == 143
  assert not requeue.exists()


def test_slurm_queues_nothing_again_that_was_killed_alone(fake):
  run, requeue = _slurm_nodes(fake), _requeued(fake)
  assert run('sh', '-c', 'kill -TERM $$').returncode == 143
  # One node's program, and the other stopped because of it.
  alone = 'kill -TERM $$ $([ $FAKE_WORKER = 0 ] || echo $PPID)'
  assert run('sh', '-c', alone).returncode == 143
  assert not requeue.exists()


@pytest.mark.parametrize('end', ['kill -TERM $$', 'exit 75'])
def test_slurm_queues_nothing_again_that_was_cancelled(end, fake):
  """scancel sends SIGTERM to the shell of the element, too."""
  run, requeue = _slurm_nodes(fake), _requeued(fake)
  only_once = '[ $FAKE_WORKER = 0 ] || exit 75'
  cancel = f'{only_once}; kill -TERM $FAKE_BATCH $PPID; {end}'
  assert run('sh', '-c', cancel).returncode == -signal.SIGTERM
  assert not requeue.exists()


def test_slurm_lets_a_node_end_what_sigterm_stops(fake):
  """It comes to all processes of a step, also to the shell on the node."""
  done = _slurm_nodes(fake)(
    'bash', '-c', 'trap "exit 7" TERM; kill $PPID $$; sleep 9'
  )
  assert done.returncode == 7


def test_slurm_compares_the_versions_of_its_nodes(fake):
  done = _slurm_nodes(fake, odd='1')('true')
  assert done.returncode == 1
  assert 'nodes differ in their versions' in done.stderr
  assert 'unlocked==2' in done.stderr
