"""Sweeps that are no lists of points are refused in one line."""

import pytest

from erp_jax.core import errors
from launch.sweeps import grid, points


def test_a_text_is_no_list_of_values():
  assert grid.over('probe.kind', ('ridge',)) == [['probe.kind=ridge']]
  with pytest.raises(errors.UserError, match=r"over\('probe.kind', 'ridge'\)"):
    grid.over('probe.kind', 'ridge')


@pytest.mark.parametrize(
  'sweep', [None, [], (), {'a': 1}, 'a=1', iter([['a']])]
)
def test_what_is_no_list_of_points_is_refused(sweep):
  with pytest.raises(
    errors.UserError, match=r'get_sweep\(\) returns .* list of'
  ):
    points.named(sweep)


@pytest.mark.parametrize(
  'flags, match',
  [
    (['--list', '--binary=launch.fit'], 'only --list goes without both'),
    (['--list', '--workdir=x'], 'only --list goes without both'),
    (['--run', '--binary=launch.fit'], 'only --list goes without both'),
    (['--binary=launch.fit', '--workdir=x'], 'choose one of --list, --run and'),
    (
      ['--run', '--binary=launch.fit', '--workdir=x', '--', '--workdir=y'],
      '--workdir=y after `--` is set for each point already',
    ),
    (
      ['--run', '--binary=launch.fit', '--workdir=x', '--', '--config', 'y'],
      '--config after `--` is set for each point already',
    ),
    (
      ['--index=6', '--binary=launch.fit', '--workdir=x'],
      'the sweep has 6 points, from 0 to 5',
    ),
  ],
)
def test_flags_that_make_no_sense_are_refused(launch, flags, match):
  done = launch('sweep', '--config=configs/simulate.py', *flags)
  assert done.returncode == 1
  assert done.stderr.count('\n') == 1 and match in done.stderr
