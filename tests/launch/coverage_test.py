"""The binary of the study of coverage: its table, its marks, its mistakes."""

import json

import pytest

_FLAGS = {
  'simulation.width': 8,
  'simulation.prompts_per_category': 60,
  'simulation.k': 4,
  'population_per_category': 500,
  'sizes': '(40,60)',
  'sets': 10,
  'bootstrap.num_draws': 100,
}


def _run(launch, workdir, **changes):
  return launch(
    'coverage',
    '--config=configs/coverage.py:grm',
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in (_FLAGS | changes).items()),
  )


@pytest.fixture(scope='module')
def done(launch, tmp_path_factory):
  """The folder of one run, and what it printed."""
  folder = tmp_path_factory.mktemp('coverage')
  result = _run(launch, folder)
  assert result.returncode == 0, result.stderr
  return folder, result.stdout


def test_the_table_shows_the_file_and_says_simulated(done):
  folder, printed = done
  content = json.loads((folder / 'coverage.json').read_text())
  assert content['simulated'] is True
  assert printed.count('Simulated: how often') == 2
  lines = [
    line for line in printed.splitlines() if 'area ERP − mixture' in line
  ]
  for line, found in zip(lines, content['sizes'].values(), strict=True):
    leaf = found['area:erp-static_mixture']['percentile']
    for truth in ('same_budget', 'same_prices'):
      share, error = leaf[truth]['share'], leaf[truth]['error']
      assert f'{100 * share:.1f}({1000 * error:.0f})' in line


def test_a_second_run_shows_the_same_and_another_reward_is_refused(
  done, launch
):
  folder, printed = done
  assert _run(launch, folder).stdout == printed
  result = _run(launch, folder, reward='oasst')
  assert result.returncode == 1
  assert 'coverage.reward = "grm", now it is "oasst"' in result.stderr
