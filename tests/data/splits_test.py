import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.data import splits


def _prompts(num_a, num_b):
  ids = [f'a{i}' for i in range(num_a)] + [f'b{i}' for i in range(num_b)]
  return ids, ['a'] * num_a + ['b'] * num_b


def test_half_of_each_category_trains_and_an_odd_prompt_tests():
  ids, categories = _prompts(7, 4)
  train_N = splits.train_mask(ids, categories, seed=3)
  assert train_N[:7].sum() == 3
  assert train_N[7:].sum() == 2


@pytest.mark.parametrize(
  ('num', 'frac', 'expected'),
  [(100, 0.29, 29), (2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 1), (10, 0.7, 7)],
)
def test_the_fraction_is_floored_and_both_sides_get_one(num, frac, expected):
  ids, categories = _prompts(num, 0)
  assert splits.train_mask(ids, categories, 0, frac).sum() == expected


def test_order_and_other_categories_do_not_matter():
  ids, categories = _prompts(20, 10)
  train_N = splits.train_mask(ids, categories, seed=1)
  chosen = {i for i, t in zip(ids, train_N, strict=True) if t}
  more_ids = [*reversed(ids), 'c1', 'c2']
  more_N = splits.train_mask(
    more_ids, [*reversed(categories), 'c', 'c'], seed=1
  )
  again = {i for i, t in zip(more_ids, more_N, strict=True) if t}
  assert again - {'c1', 'c2'} == chosen


def test_seeds_split_anew_and_every_prompt_trains_as_often():
  ids, categories = _prompts(40, 0)
  train_SN = np.array(
    [splits.train_mask(ids, categories, seed) for seed in range(400)]
  )
  # 400 fair halvings: the share of a prompt has a standard error of .025.
  assert np.abs(train_SN.mean(axis=0) - 0.5).max() < 0.1
  # Two prompts share a side with probability 19/39.
  together = (train_SN[:, 0] == train_SN[:, 1]).mean()
  assert abs(together - 19 / 39) < 0.1


def test_a_category_with_one_prompt_is_named():
  with pytest.raises(errors.UserError, match="category 'b' has one prompt"):
    splits.train_mask(*_prompts(4, 1), seed=0)


def test_a_prompt_id_twice_is_named():
  with pytest.raises(errors.UserError, match="'x' is there twice"):
    splits.train_mask(['x', 'y', 'x'], ['a', 'a', 'a'], seed=0)


@pytest.mark.parametrize('frac', [0.0, 1.0, float('nan')])
def test_a_fraction_outside_0_1_is_refused(frac):
  with pytest.raises(errors.UserError, match='between 0 and 1'):
    splits.train_mask(*_prompts(4, 4), seed=0, train_frac=frac)
