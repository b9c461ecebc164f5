"""Cloud TPU: what would be run, and what is done on hosts that fail."""

import fcntl
import os
import subprocess
import time

import pytest

_VERBS = {
  'create': (['--type=v5e-8', '--spot'], []),
  'sync': ([], []),
  'run': (['--wait'], ['--', 'python', '-m', 'launch.fit', '--x=a b', "it's"]),
  'logs': (['--lines=3'], []),
  'stop': ([], []),
  'delete': ([], []),
}


def _wait_for(condition) -> None:
  until = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < until
    time.sleep(0.02)


@pytest.mark.parametrize('verb', _VERBS)
def test_a_dry_run_runs_nothing(verb, fake):
  options, program = _VERBS[verb]
  done = fake.tpu(verb, *options, '--dry-run', *program)
  commands = fake.printed(done)
  assert commands and not fake.calls()
  assert sorted(f.name for f in fake.folder.iterdir()) == ['bin']
  for words in commands:
    if words[0] == 'gcloud':
      assert words[1:4] == ['compute', 'tpus', 'tpu-vm']
      assert words[5].startswith(('pod', str(fake.folder)))
      assert '--zone=z-1' in words


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
  done = fake.tpu('create', f'--type={kind}', '--project=p', '--dry-run')
  assert fake.printed(done) == [
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
    printed = fake.printed(fake.tpu(verb, *options, '--dry-run', *words))
    (fake.folder / 'calls').unlink(missing_ok=True)
    done = fake.tpu(verb, *options, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    made = [['gcloud', *call] for call in fake.calls()]
    # A dry run looks at the state once.
    expected = [w for w in printed if w[0] == 'gcloud']
    assert made[: len(expected)] == expected
    assert all(call == expected[-1] for call in made[len(expected) :])
  for worker in range(2):
    base = fake.folder / f'worker-{worker}' / 'erp'
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
  shown = fake.tpu('logs')
  assert shown.returncode == 0
  assert shown.stdout.count('state: done') == 2
  assert f'here is {fake.folder}/worker-1/erp/code' in shown.stdout


@pytest.fixture
def synced(fake):
  done = fake.tpu('sync')
  assert done.returncode == 0, done.stdout + done.stderr
  yield fake
  fake.tpu('stop')


def test_a_host_that_cannot_install_fails_all(fake):
  done = fake.tpu('sync', FAKE_NO_INSTALL='1')
  assert done.returncode == 1
  assert 'pod, host 1, failed to install' in done.stderr
  assert 'host 0' not in done.stderr
  assert 'not installed on all hosts' in done.stderr.splitlines()[-1]


def test_hosts_with_other_versions_start_nothing(synced):
  done = synced.tpu('run', '--', 'true', FAKE_ODD='1')
  assert done.returncode == 1
  assert '< version: unlocked==1\n' in done.stderr
  assert 'versions on hosts 1 are not those on 0' in done.stderr
  assert not list(synced.folder.glob('worker-*/erp/jobs/main'))


def test_versions_must_be_those_of_the_lock_file(synced):
  done = synced.tpu('run', '--', 'true', FAKE_FLAX='0.1')
  assert done.returncode == 1
  assert f'Flax is 0.1, but locked at {synced.flax}' in done.stderr


def test_a_program_of_ours_must_know_how_many_hosts_it_is_on(synced):
  program = ['--', 'echo', 'launch.sample']
  done = synced.tpu('run', *program, '--config.runtime.hosts=3')
  assert done.returncode == 1
  assert 'give it --config.runtime.hosts=2.' in done.stderr.splitlines()[-1]
  assert not list(synced.folder.glob('worker-*/erp/jobs/main'))
  done = synced.tpu('run', *program, '--config.runtime.hosts=2')
  assert done.returncode == 0, done.stderr


def _busy(synced, worker):
  """Starts another job on one host by hand."""
  return subprocess.run(
    ['bash', 'erp/host.sh', 'start', 'main', 'sleep', '300'],
    cwd=synced.folder / f'worker-{worker}',
    env=os.environ | {'ERP_LIBTPU_LOCK': str(synced.folder / 'none')},
    capture_output=True,
    text=True,
    check=True,
  )


def _state(synced, worker, job='main'):
  done = subprocess.run(
    ['bash', 'erp/host.sh', 'state', job],
    cwd=synced.folder / f'worker-{worker}',
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()[0].removeprefix('state: ')


def test_what_does_not_start_on_one_host_is_stopped_on_all(synced):
  (synced.folder / 'worker-1/erp/jobs/main').write_text('in the way')
  done = synced.tpu('run', '--', 'sleep', '300')
  assert done.returncode == 1
  assert 'host 1, failed to start' in done.stderr
  assert _state(synced, 0) == 'failed 143'


def test_a_job_that_runs_is_left_alone(synced):
  _busy(synced, 1)
  done = synced.tpu('run', '--', 'sleep', '300')
  assert done.returncode == 1
  assert 'main runs already: stop it first' in done.stderr
  assert _state(synced, 1) == 'running'
  assert _state(synced, 0) == 'none'
  assert synced.tpu('stop').returncode == 0


def test_a_new_copy_of_the_code_keeps_its_runs(synced):
  for worker in (0, 1):
    runs = synced.folder / f'worker-{worker}/erp/code/runs'
    runs.mkdir()
    (runs / 'kept').write_text('result')
  assert synced.tpu('sync').returncode == 0
  for worker in (0, 1):
    kept = synced.folder / f'worker-{worker}/erp/code/runs/kept'
    assert kept.read_text() == 'result'


def test_one_that_fails_later_ends_the_others(synced):
  fails = 'if [ $FAKE_WORKER = 1 ]; then echo disk full; exit 7; fi; sleep 300'
  done = synced.tpu('run', '--wait', '--poll=0.1', '--', 'sh', '-c', fails)
  assert done.returncode == 1
  assert 'state: failed 7' in done.stdout and 'disk full' in done.stdout
  assert 'main has failed on a host' in done.stderr.splitlines()[-1]
  assert _state(synced, 0) == 'failed 143'
  assert synced.tpu('logs').returncode == 1


def test_what_sigterm_stopped_has_not_failed(synced):
  done = synced.tpu('run', '--wait', '--poll=0.1', '--', 'sh', '-c', 'exit 75')
  assert done.returncode == 75
  assert 'the same run goes on' in done.stdout
  assert _state(synced, 0) == _state(synced, 1) == 'interrupted'
  assert synced.tpu('logs').returncode == 0


def test_each_host_is_told_which_it_is(synced):
  program = ('sh', '-c', 'test $ERP_RANK = $FAKE_WORKER')
  done = synced.tpu('run', '--wait', '--poll=0.1', '--', *program)
  assert done.returncode == 0, done.stderr


def test_stop_ends_the_job_and_nothing_else(synced):
  """By the id that was written down, its children too."""
  other = subprocess.Popen(['sleep', '300'])
  try:
    done = synced.tpu('run', '--', 'sh', '-c', 'sleep 300; true')
    assert done.returncode == 0
    assert _state(synced, 0) == 'running'
    assert synced.tpu('stop').returncode == 0
    assert _state(synced, 0) == _state(synced, 1) == 'failed 143'
    assert other.poll() is None
    again = synced.tpu('stop')
    assert again.returncode == 0
  finally:
    other.kill()
    other.wait()


def test_an_id_that_was_given_away_is_not_killed(synced):
  other = subprocess.Popen(['sleep', '300'], start_new_session=True)
  try:
    folder = synced.folder / 'worker-0' / 'erp' / 'jobs' / 'main'
    folder.mkdir()
    (folder / 'pid').write_text(f'{other.pid} 1\n')
    assert _state(synced, 0) == 'lost'
    assert synced.tpu('stop').returncode == 0
    assert other.poll() is None
  finally:
    other.kill()
    other.wait()


def test_a_job_that_was_killed_is_lost(synced):
  assert synced.tpu('run', '--', 'sleep', '300').returncode == 0
  pid = (synced.folder / 'worker-0/erp/jobs/main/pid').read_text().split()[0]
  subprocess.run(['kill', '-9', '--', f'-{pid}'], check=True)
  _wait_for(lambda: _state(synced, 0) == 'lost')
  assert synced.tpu('logs').returncode == 1


def test_a_host_without_the_job_has_failed_too(synced):
  """As one has that was made anew: while it is watched, and in its log."""
  done = synced.tpu('logs')
  assert done.returncode == 1 and done.stdout.count('state: none') == 2
  assert 'host of pod, or never began there' in done.stderr.splitlines()[-1]
  goes = 'if [ $FAKE_WORKER = 1 ]; then sleep 1; rm -r ../jobs/main; exit; fi'
  program = ['--', 'sh', '-c', f'{goes}; sleep 300']
  done = synced.tpu('run', '--wait', '--poll=0.1', *program)
  assert done.returncode == 1
  assert 'host 1, state: none' in done.stdout
  assert 'has ended with 0' not in done.stdout
  assert _state(synced, 0) == 'failed 143'


def test_a_host_that_does_not_answer_once_is_asked_again(synced):
  """While a program is watched; for good it ends the watch, not the program."""
  host = synced.folder / 'worker-1/erp/host.sh'
  host.rename(host.with_name('real.sh'))
  host.write_text(
    'if [ $1 = state ]; then echo >> asked; case $(wc -l < asked) in\n'
    '  [2-4]) echo no route; exit 255 ;;\nesac; fi\n'
    'exec bash erp/real.sh "$@"\n'
  )
  done = synced.tpu('run', '--wait', '--poll=0.1', '--', 'sleep', '1')
  assert done.returncode == 0, done.stderr
  assert done.stderr.count('no route') == 3
  host.write_text(host.read_text().replace('[2-4])', '1?|2?)'))
  (host.parents[1] / 'asked').write_text(8 * '\n')
  done = synced.tpu('run', '--wait', '--poll=0.1', '--', 'sleep', '300')
  assert done.returncode == 1
  assert 'a host does not answer; the program goes on' in done.stderr
  assert _state(synced, 0) == 'running'


def test_a_host_that_says_nothing_does_not_end_the_logs(synced):
  assert synced.tpu('run', '--wait', '--poll=0.1', '--', 'true').returncode == 0
  (synced.folder / 'worker-0/erp/host.sh').write_text('')
  done = synced.tpu('logs')
  assert done.returncode == 1
  assert 'host 0, says nothing\n' in done.stdout
  assert 'host 1, state: done\n' in done.stdout
  assert 'main has failed on a host' in done.stderr.splitlines()[-1]


def test_code_is_not_replaced_under_a_job(synced):
  assert synced.tpu('run', '--', 'sleep', '300').returncode == 0
  done = synced.tpu('sync')
  assert done.returncode == 1 and 'job main runs this code' in done.stderr


def test_a_stale_lock_of_the_tpu_is_removed(synced):
  lock = synced.folder / 'libtpu_lockfile'
  lock.touch()
  assert synced.tpu('run', '--', 'true').returncode == 0
  assert not lock.exists()


def test_a_lock_that_a_process_holds_is_left(synced):
  lock = synced.folder / 'libtpu_lockfile'
  with lock.open('w') as f:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    done = synced.tpu('run', '--', 'true')
  assert done.returncode == 1 and lock.exists()
  assert f'held by process {os.getpid()} ' in done.stderr


@pytest.mark.parametrize(
  'args, expected',
  [
    (['create', 'pod'], 'create needs --type'),
    (['create', 'pod', '--type=v9-8'], 'allowed: v4-N, v5e-N, v5p-N, v6e-N'),
    (['run', 'pod'], 'run needs a program'),
    (['start', 'pod'], 'allowed: create, sync, run, logs, stop, delete'),
    (['stop', 'pod', 'pad'], 'one name at a time'),
    (['stop', 'pod', '--force'], 'no option --force'),
    (['stop', 'pod', '--cluster=c'], 'no option --cluster='),
    (['stop', 'pod', '--job'], 'no option --job;'),
    (['stop', 'pod', '--dry-run=1'], 'no option --dry-run='),
    (['stop', '--dry-run'], 'name the slice'),
  ],
)
def test_mistakes_are_named(args, expected, fake):
  done = fake.run('tpu_vm.sh', *args)
  assert done.returncode == 1 and expected in done.stderr
  assert not fake.calls()
