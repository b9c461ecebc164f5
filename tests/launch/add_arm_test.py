"""One more arm: sampled, imported, or held out; the others stay as they are."""

import hashlib
import json
import pathlib
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erp_jax.core import store
from erp_jax.data import embeddings, splits
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from launch import newcomers

_FEW = [
  '--config.experiments.newcomer.num_prompts=(3,)',
  '--config.experiments.newcomer.repeats=3',
  '--config.experiments.common.bootstrap.num_draws=200',
]


@pytest.fixture(scope='module')
def flags(tiny, tmp_path_factory):
  """Flags of the quickstart with a single reward model and no replay."""
  config = tmp_path_factory.mktemp('config') / 'one_reward.py'
  config.write_text(
    'from configs import quickstart\n'
    'def get_config(arg=""):\n'
    '  config = quickstart.get_config()\n'
    '  for name in ("relevance", "judge"):\n'
    '    del config.rewards[name]\n'
    '  del config.replays["paretobandit"]\n'
    '  return config\n'
  )
  gone = ('relevance', 'judge', 'paretobandit')

  def of(workdir):
    kept = [f for f in tiny.flags(workdir) if not any(g in f for g in gone)]
    return [f'--config={config}', *kept[1:], *_FEW]

  return of


@pytest.fixture(scope='module')
def finished(flags, launch, tmp_path_factory):
  """A run up to its report, that nobody adds to."""
  workdir = tmp_path_factory.mktemp('run') / 'pool'
  done = launch('pipeline', *flags(workdir))
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture
def copied(finished, tmp_path):
  workdir = tmp_path / 'copy'
  shutil.copytree(finished, workdir)
  return workdir


def _files(workdir: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Time and sum of each file but locks, and what processes say of themselves.

  Those tell of mistakes too.
  """
  return {
    str(file.relative_to(workdir)): (
      file.stat().st_mtime_ns,
      hashlib.sha256(file.read_bytes()).hexdigest(),
    )
    for file in workdir.rglob('*')
    if file.is_file()
    and file.name != '.lock'
    and file.parent.name not in ('processes', 'events')
  }


def _metrics(workdir: pathlib.Path, name: str) -> dict:
  folder = workdir / 'experiments' / f'add_arm-{name}'
  return json.loads(store.read_file(folder, 'metrics.json'))


@pytest.mark.slow
def test_a_sampled_arm_leaves_the_others_alone(copied, flags, tiny, launch):
  before = _files(copied)
  arguments = [
    *flags(copied),
    '--arm=plain',
    f'--model={tiny.decoder}',
    '--system_prompt=Be plain.',
    '--nominal_b=0.5',
  ]
  done = launch('add_arm', *arguments)
  assert done.returncode == 0, done.stderr
  after = _files(copied)
  assert before.items() <= after.items()
  own = (
    *('responses/plain/', 'rewards/verify/plain/', 'probes/verify/plain/'),
    'experiments/add_arm-plain/',
  )
  new = {name for name in after if name not in before}
  assert all(name.startswith(own) for name in new)
  for folder in own:
    assert any(name.startswith(folder) for name in new), folder
  responses = store.read_manifest(copied / 'responses/plain')
  assert responses['identity']['arm']['system_prompt'] == 'Be plain.'

  metrics = _metrics(copied, 'plain')['run']
  assert metrics['origin'] == 'run'
  found = metrics['rewards']['verify']
  assert found['arms'] == ['terse', 'steps', 'plain']
  assert found['counts']['train'] == found['counts']['test'] == 6
  assert {(row['prompts'], row['variant']) for row in found['curve']} == {
    (num, variant) for num in (3, 6) for variant in ('pooled', 'alone', 'plain')
  }
  assert 'traffic' in done.stdout and 'report.html' in done.stdout

  done = launch('add_arm', *arguments)  # Nothing is made again.
  assert done.returncode == 0, done.stderr
  assert _files(copied) == after


@pytest.mark.slow
def test_an_imported_arm(copied, flags, launch, tmp_path):
  """A copy of an arm that costs nearly nothing gets all of its prompts."""
  path = tmp_path / 'rewards.parquet'
  pq.write_table(
    pa.Table.from_pylist(
      store.read_table(copied / 'rewards/verify/terse').to_pylist()
    ),
    path,
  )
  before = _files(copied)
  arguments = [
    *flags(copied),
    '--arm=hosted',
    f'--rewards_table={path}',
    '--reward=verify',
  ]
  done = launch('add_arm', *arguments, '--cost=1e-9')
  assert done.returncode == 0, done.stderr
  after = _files(copied)
  assert before.items() <= after.items()
  own = (
    *('rewards/verify/hosted/', 'probes/verify/hosted/'),
    'experiments/add_arm-hosted/',
  )
  assert all(name.startswith(own) for name in after if name not in before)

  probes = fit_stage.load(copied, 'verify', ['terse', 'hosted', 'steps'])
  np.testing.assert_array_equal(probes.theta_EM[:, 0], probes.theta_EM[:, 1])
  found = _metrics(copied, 'hosted')['run']['rewards']['verify']
  assert found['costs']['hosted'] == 1e-9
  ids = _prompt_ids(copied)
  predicted_NM = ridge.predict(
    probes, embeddings.read(copied / 'embeddings' / 'encoder', ids)
  )
  test_N = ~splits.train_mask(ids, [n.split('-')[0] for n in ids], 0, 0.5)
  better_N = predicted_NM[test_N, 1] >= predicted_NM[test_N, 2]
  unlimited = found['compared']['plain']['unlimited']
  assert unlimited['traffic']['mean'] == pytest.approx(better_N.mean())
  assert unlimited['change']['mean'] == pytest.approx(0)
  assert unlimited['reached'] == 1
  assert unlimited['saved']['mean'] >= 0


def _prompt_ids(workdir):
  table = store.read_table(workdir / 'rewards/verify/terse')
  return list(dict.fromkeys(table['prompt_id'].to_pylist()))


@pytest.mark.slow
@pytest.mark.parametrize(
  'wrong, expected',
  [
    ('--reward=verfy', 'verfy: the table’s rewards must be those of a reward'),
    ('--arm=terse', '--arm=terse is an arm of the config'),
    ('--model=x', '--model and --rewards_table are two ways'),
    ('--config.fit.ridge.beta=2.0', 'fit.ridge.beta = 1.0'),
  ],
)
def test_mistakes_are_one_line_and_write_nothing(
  wrong, expected, finished, flags, launch
):
  before = _files(finished)
  done = launch(
    *('add_arm', *flags(finished), '--arm=hosted', '--reward=verify'),
    *('--rewards_table=rewards.jsonl', '--cost=1', wrong),
  )
  assert done.returncode == 1
  assert expected in done.stderr.splitlines()[-1]
  assert _files(finished) == before


def test_an_arm_of_a_table_is_held_out(tiny, launch, tmp_path):
  """No run, and a pool of one arm."""
  done = launch('add_arm', *tiny.flags(tmp_path), *_FEW, '--arm=large')
  assert done.returncode == 0, done.stderr
  metrics = _metrics(tmp_path, 'large')['paretobandit']
  assert metrics['origin'] == 'recorded'
  found = metrics['rewards']['correct01']
  assert found['arms'] == ['small', 'large']
  assert 4 < found['costs']['large'] < 6
  unlimited = found['compared']['plain']['unlimited']
  assert 0 <= unlimited['traffic']['lo'] <= unlimited['traffic']['mean'] <= 1
  assert (tmp_path / 'experiments/add_arm-large/report.html').is_file()

  done = launch('add_arm', *tiny.flags(tmp_path), *_FEW, '--arm=lrge')
  assert done.returncode == 1
  assert '--arm=lrge is no arm' in done.stderr.splitlines()[-1]


def test_every_name_has_a_folder_of_its_own():
  names = ('large', 'org/a', 'org-a', 'org a', '模型', '模', '../a')
  folders = {newcomers.folder_name(name) for name in names}
  assert len(folders) == len(names)
  assert 'add_arm-large' in folders and 'add_arm-org-a' in folders
  assert all(re.fullmatch('[A-Za-z0-9._-]+', folder) for folder in folders)
