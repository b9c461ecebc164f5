"""Growth is measured at the sizes of the config, and written where it says."""

import csv
import dataclasses

import pytest

from erp_jax.core import errors
from launch import growth_config


@pytest.mark.parametrize(
  'varied, expected',
  [
    ({'prompts': (4, 2)}, 'must ascend from 1'),
    ({'prompts': (4,)}, 'a curve needs two sizes'),
    ({'width': (4, 8)}, "'width'; allowed: prompts, arms"),
    ({'arms': (0, 8)}, 'must ascend from 1'),
  ],
)
def test_a_mistake_is_named(varied, expected):
  with pytest.raises(errors.UserError) as error:
    growth_config.Sizes(base={'prompts': 4, 'arms': 2}, varied=varied)
  assert expected in str(error.value)


def test_a_stage_is_one_of_ours():
  sizes = growth_config.Growth().stages['fit']
  with pytest.raises(errors.UserError, match='allowed: sample, score'):
    growth_config.Growth(stages={'fti': sizes})
  with pytest.raises(errors.UserError, match='repeats must be >= 1'):
    dataclasses.replace(growth_config.Growth(), repeats=0)


@pytest.mark.slow
def test_the_program_measures_what_is_varied(launch, tmp_path):
  flags = (
    '--config=configs/growth.py:route',
    f'--workdir={tmp_path}',
    '--config.stages.route.varied.prompts=(1000,100000)',
    '--config.stages.route.varied.arms=(2,3)',
    '--config.repeats=1',
  )
  done = launch('growth', *flags)
  assert done.returncode == 0, done.stderr
  with (tmp_path / 'points.csv').open() as file:
    rows = list(csv.DictReader(file))
  secs = {(row['against'], float(row['size'])): row['seconds'] for row in rows}
  assert set(secs) == {
    *(('prompts', 1000.0), ('prompts', 100000.0), ('arms', 2.0), ('arms', 3.0)),
  }
  assert all(float(value) > 0 for value in secs.values())
  assert '| route | prompts (N) | 1,000 to 100,000 |' in done.stdout
  assert (tmp_path / 'exponents.md').read_text() == done.stdout
  assert (tmp_path / 'route.png').read_bytes().startswith(b'\x89PNG')
