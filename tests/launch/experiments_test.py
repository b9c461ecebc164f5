"""The experiments' binaries, end to end on small simulated rewards."""

import csv
import json

import pytest

_SMALL = (
  '--config=configs/perfectblend.py:simulated',
  '--config.experiments.simulation.prompts_per_category=20',
  '--config.experiments.simulation.k=4',
  '--config.experiments.simulation.width=16',
  '--config.experiments.common.splits=2',
  '--config.experiments.common.bootstrap.num_draws=200',
  '--config.experiments.routing.refit_draws=100',
)


def _run(launch, binary, workdir, *flags):
  done = launch(binary, *_SMALL, f'--workdir={workdir}', *flags)
  assert done.returncode == 0, done.stderr
  return workdir / 'experiments' / binary


@pytest.fixture(scope='module')
def routed(launch, tmp_path_factory):
  return _run(launch, 'routing', tmp_path_factory.mktemp('routing'))


def test_routing_writes_page_tables_figures_and_metrics(routed):
  page = (routed / 'report.html').read_text()
  assert 'class="banner">SIMULATED' in page
  for reward in ('oasst', 'grm', 'internlm'):
    assert f'Reward: {reward}' in page
    for file in (
      f'figures/simulated-{reward}-frontier.png',
      f'figures/simulated-{reward}-frontier.pdf',
      f'tables/simulated-{reward}-regret.md',
    ):
      assert (routed / file).stat().st_size > 0
    with (routed / f'tables/simulated-{reward}-regret.csv').open() as f:
      policies = [row['Policy'] for row in csv.DictReader(f)]
    assert 'ERP router' in policies and 'Zooter' in policies
  metrics = json.loads((routed / 'metrics.json').read_text())
  leaf = metrics['simulated']['oasst']['over_splits']['regret']['erp']['1.0']
  assert leaf['n_splits'] == 2 and leaf['mean'] > 0
  manifest = json.loads((routed / 'manifest.json').read_text())
  assert manifest['info']['origins'] == {'simulated': 'simulated'}


def test_what_is_there_is_not_made_again(launch, routed):
  before = {
    file: file.stat().st_mtime_ns
    for file in routed.rglob('*')
    if file.is_file()
  }
  _run(launch, 'routing', routed.parents[1])
  assert before == {
    file: file.stat().st_mtime_ns
    for file in routed.rglob('*')
    if file.is_file()
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  'binary, table, figure',
  [
    ('predictability', 'r2', 'predicted'),
    ('pairwise', 'pairs', 'pairs'),
    ('winrates', 'wins', 'wins'),
    ('learning', 'r2', 'learning'),
  ],
)
def test_the_other_experiments_too(launch, tmp_path, binary, table, figure):
  folder = _run(
    launch,
    binary,
    tmp_path,
    '--config.experiments.learning.num_prompts=(10,40)',
    '--config.experiments.learning.num_samples=(1,4)',
    '--config.experiments.learning.repeats=2',
  )
  page = (folder / 'report.html').read_text()
  assert 'class="banner">SIMULATED' in page
  assert (folder / f'tables/simulated-grm-{table}.csv').exists()
  assert list((folder / 'figures').glob(f'simulated-grm-*{figure}*.pdf'))
  metrics = json.loads((folder / 'metrics.json').read_text())
  assert set(metrics['simulated']) >= {'oasst', 'grm', 'internlm'}


@pytest.mark.parametrize(
  'flag, message',
  [
    ('--config.experiments.origin=made', 'allowed: run, simulated, recorded'),
    ('--config.experiments.common.splits=0', 'splits must be >= 1'),
    ("--config.experiments.routing.policies=('zooter',)", 'always among them'),
    ('--config.experiments.origin=recorded', 'config.replays names none'),
  ],
)
def test_mistakes_are_one_line(launch, tmp_path, flag, message):
  done = launch('routing', *_SMALL, f'--workdir={tmp_path}', flag)
  assert done.returncode == 1
  assert message in done.stderr.strip().splitlines()[-1]
