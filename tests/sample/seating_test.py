"""Moves keep every response, and leave as few groups as there can be."""

import numpy as np
import pytest

from erp_jax.sample import seating


@pytest.mark.parametrize('k, slots, group', [(8, 48, 4), (7, 50, 3), (2, 9, 8)])
def test_nothing_is_lost_when_what_runs_is_moved(k, slots, group):
  rng = np.random.default_rng(0)
  for stopped in (0.2, 0.5, 0.8, 0.95):
    seats = seating.empty(9, k, slots, group)
    num = len(seats.seat(list(range(9))))
    assert num == len(seats.owner_PK) // seats.groups_each
    seats.owner_PK[rng.random(seats.owner_PK.shape) < stopped] = seating.FREE
    before = seats.owner_PK.copy()
    needed = seats.num_needed()
    moved = before.ravel().copy()
    for source, target in seats.compact():
      assert moved[target] == seating.FREE != moved[source]
      moved[target], moved[source] = moved[source], seating.FREE
    np.testing.assert_array_equal(moved, seats.owner_PK.ravel())
    np.testing.assert_array_equal(np.sort(moved), np.sort(before.ravel()))
    running = moved[moved >= 0]
    per_prompt = np.bincount(running // k, minlength=9)
    size = seats.owner_PK.shape[1]
    assert seats.num_used == needed == (-(-per_prompt // size)).sum()
    for owner_K in seats.owner_PK:  # Still one prompt a group.
      assert len(set(owner_K[owner_K >= 0] // k)) <= 1


def test_prompts_take_the_lowest_free_groups_while_there_are_any():
  seats = seating.empty(9, 4, 12, 2)
  assert seats.owner_PK.shape == (6, 2)
  np.testing.assert_array_equal(seats.seat([5]), [[0, 1]])
  seats.owner_PK[0] = seating.FREE
  np.testing.assert_array_equal(seats.seat([7, 8, 1]), [[0, 2], [3, 4]])
  np.testing.assert_array_equal(
    seats.owner_PK,
    [[28, 29], [22, 23], [30, 31], [32, 33], [34, 35], [-1, -1]],
  )
  assert seats.num_running == 10


def test_one_prompt_always_fits():
  seats = seating.empty(3, 5, 1, 2)
  assert seats.owner_PK.shape == (3, 2)
  assert len(seats.seat([0, 1, 2])) == 1
