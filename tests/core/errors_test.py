"""Checks of config fields."""

import pytest

from erp_jax.core import errors


def test_a_choice_that_is_allowed_passes():
  errors.check_choice('a.kind', 'one', ('one', 'two'))
  errors.check_choice('a.kind', 'two', {'one': 1, 'two': 2})


def test_another_choice_is_refused_with_all_that_are_allowed():
  with pytest.raises(errors.UserError) as e:
    errors.check_choice('a.kind', 'three', {'one': 1, 'two': 2})
  assert str(e.value) == "a.kind is 'three'; allowed: one, two."


@pytest.mark.parametrize('grid', [(3,), (3, 4), (4, 10, 11)])
def test_a_grid_that_ascends_passes(grid: tuple[int, ...]):
  errors.check_grid('a.sizes', grid, 3)


@pytest.mark.parametrize('grid', [(), (2, 3), (3, 3), (4, 3)])
def test_other_grids_are_refused(grid: tuple[int, ...]):
  with pytest.raises(errors.UserError, match='a.sizes must ascend from 3 or'):
    errors.check_grid('a.sizes', grid, 3)
