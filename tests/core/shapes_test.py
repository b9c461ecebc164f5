import collections

import numpy as np
import pytest

from erp_jax.core import shapes


def test_sizes_are_powers_of_two_and_half_as_much_again():
  assert shapes.sizes(256) == (16, 24, 32, 48, 64, 96, 128, 192, 256)
  assert shapes.sizes(200, shortest=32) == (32, 48, 64, 96, 128, 192, 200)
  assert shapes.sizes(10) == (10,)


def test_bucket_is_the_smallest_that_holds_the_length():
  sizes = shapes.sizes(256)
  for length in range(1, 257):
    size = shapes.bucket(length, sizes)
    assert size >= length
    assert all(other < length for other in sizes if other < size)
  with pytest.raises(ValueError, match='length 257 .* largest bucket 256'):
    shapes.bucket(257, sizes)


def test_batches_hold_every_index_once_within_the_budget():
  lengths = np.random.default_rng(0).integers(1, 257, size=500).tolist()
  sizes = shapes.sizes(256)
  batches = shapes.batches(lengths, 1024, sizes)
  assert sorted(i for indices, _ in batches for i in indices) == list(
    range(500)
  )
  partial = collections.Counter()
  for indices, size in batches:
    assert len(indices) * size <= 1024
    assert all(shapes.bucket(lengths[i], sizes) == size for i in indices)
    partial[size] += len(indices) < shapes.num_rows(size, 1024)
  assert max(partial.values()) <= 1  # Only the last batch of a bucket.
  flat = [lengths[i] for indices, _ in batches for i in indices]
  assert flat == sorted(lengths)


def test_equal_lengths_keep_their_order():
  batches = shapes.batches([5, 3, 5, 3, 5], 16, (4, 8))
  assert batches == [([1, 3], 4), ([0, 2], 8), ([4], 8)]


def test_a_row_longer_than_the_budget_is_a_batch_of_one():
  assert shapes.batches([8, 8], 4, (8,)) == [([0], 8), ([1], 8)]


def test_pad_to_fills_columns_and_rows():
  ids_BT, valid_BT = shapes.pad_to([[7, 8], [9]], 3, 3, fill=5)
  assert ids_BT.tolist() == [[7, 8, 5], [9, 5, 5], [5, 5, 5]]
  assert valid_BT.tolist() == [
    [True, True, False],
    [True, False, False],
    [False] * 3,
  ]
  assert ids_BT.dtype == np.int32


@pytest.mark.parametrize('rows', ([[1], [2], [3]], [[1, 2, 3, 4]]))
def test_pad_to_refuses_what_does_not_fit(rows):
  with pytest.raises(ValueError, match='do not fit'):
    shapes.pad_to(rows, 2, 3)
