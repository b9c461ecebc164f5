"""GKE: a JobSet for each index, from an image or from the code."""

import pytest

_FLAGS = ['--cluster=c', '--location=l', '--project=p']


def test_gke_submits_a_jobset_for_each_index(fake):
  flags = [*_FLAGS, '--type=v6e-8', '--image=i', '--indices=2-4']
  program = ['--', 'python', '-m', 'launch.sweep', '--index={index}', 'a b']
  dry = fake.printed(
    fake.run('gke.sh', 'submit', 'job', *flags, '--dry-run', *program)
  )
  assert not fake.calls()
  assert dry == [
    [
      *('gcluster', 'job', 'submit', f'--name=job-{i}', '--image=i'),
      *('--compute-type=v6e-8', '--restarts=10'),
      '--grace-period=120s',
      f'--command=exec python -m launch.sweep --index={i} a\\ b',
      *('--cluster=c', '--location=l', '--project=p'),
    ]
    for i in (2, 3, 4)
  ]
  done = fake.run('gke.sh', 'submit', 'job', *flags, *program)
  assert done.returncode == 0
  assert [['gcluster', *call] for call in fake.calls()] == dry


def test_gke_lays_the_code_on_an_image(fake):
  flags = [*_FLAGS, '--type=v6e-8', '--topology=2x4', '--queue=q', '--wait']
  done = fake.run(
    'gke.sh', 'submit', 'job', *flags, '--dry-run', '--', 'python', '-m', 'x'
  )
  *context, submit = fake.printed(done)
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
  (fake.folder / 'bin' / 'gcluster').write_text(
    '#!/usr/bin/env bash\n[[ $* != *job-1* ]]\n'
  )
  done = fake.run(
    'gke.sh', 'submit', 'job', *_FLAGS, '--type=v6e-8', '--image=i',
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
  done = fake.run('gke.sh', *args, *_FLAGS, '--dry-run')
  assert fake.printed(done) == [['gcluster', 'job', *words, *_FLAGS]]


@pytest.mark.parametrize(
  'args, expected',
  [
    (['submit', 'j', '--image=i', '--type=t', '--', 'x'], 'needs --cluster'),
    (['submit', 'j', *_FLAGS, '--image=i', '--', 'x'], 'submit needs --type'),
    (['submit', 'j', *_FLAGS, '--image=i', '--type=t'], 'needs a program'),
    (
      ['submit', 'j', *_FLAGS, '--image=i', '--type=t', '--', 'a{index}'],
      'needs --indices',
    ),
    (
      ['submit', 'j', *_FLAGS, '--type=t', '--indices=3', '--', 'a'],
      'must be FIRST-LAST',
    ),
    (['scale', 'j'], 'allowed: submit, list, logs, cancel'),
    (['logs', *_FLAGS], 'name the job'),
  ],
)
def test_gke_names_mistakes(args, expected, fake):
  done = fake.run('gke.sh', *args)
  assert done.returncode == 1 and expected in done.stderr
  assert not fake.calls()
