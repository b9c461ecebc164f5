"""The whole pipeline on tiny checkpoints: stages, kills, changed lists."""

import json
import os
import pathlib
import random
import shutil
import time

import numpy as np
import pytest

from erp_jax.core import audit, store
from tests.tiny import promised

_ARMS = ('terse', 'steps')


@pytest.fixture(scope='module')
def finished(tiny, launch, tmp_path_factory):
  """A run of the pipeline that nobody disturbed, and how long it took."""
  workdir = tmp_path_factory.mktemp('run') / 'undisturbed'
  launch('pipeline', *tiny.flags(tmp_path_factory.mktemp('warm')))
  begin = time.monotonic()
  done = launch('pipeline', *tiny.flags(workdir))
  assert done.returncode == 0, done.stderr
  return workdir, time.monotonic() - begin, done


def test_a_run_leaves_everything_that_a_reader_needs(finished):
  workdir, _, done = finished
  names = set(promised(workdir))
  for expected in (
    'responses/terse/part-00000-of-00003.parquet',
    'rewards/judge/steps/part-00002-of-00003.parquet',
    'embeddings/encoder/part-00000-of-00001.parquet',
    'probes/verify/terse/weights',
    'routes/relevance/metrics.json',
    'replay/paretobandit/metrics.json',
    'metrics.json',
  ):
    assert expected in names
  assert (workdir / 'report' / 'report.html').stat().st_size > 10_000
  assert 'report.html' in done.stdout


def test_stored_responses_are_complete(finished):
  workdir, _, _ = finished
  table = store.read_table(workdir / 'responses' / 'steps').to_pylist()
  assert len(table) == 12 * 3
  assert {row['arm'] for row in table} == {'steps'}
  assert sorted({row['k'] for row in table}) == [0, 1, 2]
  for row in table:
    assert 1 <= row['num_tokens'] <= 12
    if row['num_tokens'] < 12:
      assert row['finish_reason'] == 'stop'
  assert {row['finish_reason'] for row in table} == {'stop', 'length'}
  read = lambda arm: store.read_table(workdir / 'responses' / arm)
  terse, steps = (read(arm)['prompt_tokens'][0].as_py() for arm in _ARMS)
  assert terse < steps  # Its system prompt is the longer one.


@pytest.mark.slow
def test_stages_apart_give_the_same(finished, tiny, launch, tmp_path):
  """Also by arm and by reward model, as separate jobs would."""
  flags = tiny.flags(tmp_path)
  for arm in reversed(_ARMS):
    assert launch('sample', *flags, f'--arms={arm}').returncode == 0
  for reward in ('judge,verify', 'relevance'):
    assert launch('score', *flags, f'--rewards={reward}').returncode == 0
  for stage in ('embed', 'fit', 'route'):
    done = launch(stage, *flags)
    assert done.returncode == 0, done.stderr
  shutil.copytree(finished[0] / 'replay', tmp_path / 'replay')
  assert launch('report', *flags).returncode == 0
  assert promised(tmp_path) == promised(finished[0])


@pytest.mark.slow
def test_a_finished_run_is_whole(finished):
  found = list(audit.audit(finished[0], {}))
  assert len(found) > 10
  assert not [x for x in found if x.state in audit.WRONG]


def _count(folder: pathlib.Path) -> int:
  """Files below a folder in which a process writes, renames and deletes.

  os.walk passes over a folder that has gone since it was listed.
  """
  return sum(len(files) for _, _, files in os.walk(folder))


@pytest.mark.slow
def test_kills_change_nothing(finished, tiny, start, launch, tmp_path):
  """kill -9 at two moments, then to its end; more of them in tests/faults.

  A moment is a number of files written, so that every kill finds a process
  that is working, whatever the machine's speed.
  """
  undisturbed, _, _ = finished
  rng = random.Random(0)
  moments = sorted(rng.sample(range(1, _count(undisturbed) - 5), 2))
  for moment in moments:
    process = start('pipeline', *tiny.flags(tmp_path))
    while _count(tmp_path) < moment and process.poll() is None:
      time.sleep(0.002)
    assert process.poll() is None, f'it ended before file {moment}'
    process.kill()
    process.wait()
  done = launch('pipeline', *tiny.flags(tmp_path))
  assert done.returncode == 0, done.stderr
  assert promised(tmp_path) == promised(undisturbed)
  assert not list(tmp_path.rglob('.tmp-*'))


@pytest.mark.slow
def test_what_is_done_is_not_done_again(finished, tiny, launch, tmp_path):
  workdir = tmp_path / 'copy'
  shutil.copytree(finished[0], workdir)
  before = {f: f.stat().st_mtime_ns for f in workdir.rglob('*.parquet')}
  assert launch('pipeline', *tiny.flags(workdir)).returncode == 0
  assert before == {f: f.stat().st_mtime_ns for f in workdir.rglob('*.parquet')}


@pytest.mark.slow
def test_an_added_arm_leaves_the_others_alone(finished, tiny, launch, tmp_path):
  """First `steps` alone, then `terse` too: only its own files are new."""
  config = tmp_path / 'one_arm.py'
  config.write_text(
    'from configs import quickstart\n'
    'def get_config(arg=""):\n'
    '  config = quickstart.get_config()\n'
    '  del config.arms["terse"]\n'
    '  return config\n'
  )
  workdir = tmp_path / 'run'
  flags = [f for f in tiny.flags(workdir) if 'terse' not in f]
  flags[0] = f'--config={config}'
  done = launch('pipeline', *flags)
  assert done.returncode == 0, done.stderr
  before = {
    f: (f.stat().st_mtime_ns, f.read_bytes())
    for part in ('responses', 'rewards', 'probes', 'embeddings')
    for f in (workdir / part).rglob('*')
    if f.is_file()
  }
  done = launch('pipeline', *tiny.flags(workdir))
  assert done.returncode == 0, done.stderr
  for file, (mtime, data) in before.items():
    if file.name != '.lock':
      assert (file.stat().st_mtime_ns, file.read_bytes()) == (mtime, data), file
  assert promised(workdir) == promised(finished[0])


@pytest.mark.slow
def test_another_setting_is_refused_and_named(finished, tiny, launch, tmp_path):
  workdir = tmp_path / 'copy'
  shutil.copytree(finished[0], workdir)
  done = launch('sample', *tiny.flags(workdir), '--config.sample.seed=1')
  assert done.returncode == 1
  assert 'sample.seed = 0, now it is 1' in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
  'stage, flag, expected',
  [
    ('score', 'arms.terse.system_prompt=Hi', 'arm.system_prompt'),
    ('fit', 'rewards.judge.question=Good?', 'reward.question'),
    ('route', 'fit.ridge.beta=2.0', 'fit.ridge.beta = 1.0'),
    ('route', 'prompts.limit_per_category=4', 'prompts ='),
    ('report', 'fit.split_seed=5', 'fit.split_seed = 0'),
    ('report', 'route.cost.kind=params', 'route.cost.kind'),
  ],
)
def test_a_later_stage_refuses_earlier_files_of_another_config(
  stage, flag, expected, finished, tiny, launch
):
  done = launch(stage, *tiny.flags(finished[0]), f'--config.{flag}')
  assert done.returncode == 1
  assert expected in done.stderr.splitlines()[-1], done.stderr


def test_metrics_hold_no_nan_and_only_leaves(finished):
  metrics = json.loads((finished[0] / 'metrics.json').read_text())
  assert set(metrics['live']) == {'verify', 'relevance', 'judge'}

  def walk(value):
    if isinstance(value, list):
      for item in value:
        walk(item)
    elif 'n_splits' in value:
      assert value.keys() <= {'mean', 'sd', 'n_splits', 'feasible', 'reason'}
      assert value['mean'] is None or np.isfinite(value['mean'])
    else:
      for item in value.values():
        walk(item)

  walk(metrics)


@pytest.mark.slow
def test_routes_refuse_probes_of_other_rewards(
  finished, tiny, launch, tmp_path
):
  """Rewards made anew under another setting need probes made anew."""
  workdir = tmp_path / 'copy'
  shutil.copytree(finished[0], workdir)
  shutil.rmtree(workdir / 'rewards/relevance')
  flags = [*tiny.flags(workdir), '--config.rewards.relevance.neutral_prompt=Hi']
  assert launch('score', *flags).returncode == 0
  done = launch('route', *flags)
  assert done.returncode == 1
  assert 'probes/relevance' in done.stderr.splitlines()[-1]
  assert 'rewards =' in done.stderr.splitlines()[-1]
  done = launch('report', *flags)  # Of the routes that are still there.
  assert done.returncode == 1
  assert 'routes/relevance' in done.stderr.splitlines()[-1]
  assert 'rewards =' in done.stderr.splitlines()[-1]
