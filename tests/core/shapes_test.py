import numpy as np
import pytest

from erp_jax.core import shapes


def test_sizes_are_powers_of_two_and_half_as_much_again():
  assert shapes.sizes(256) == (16, 24, 32, 48, 64, 96, 128, 192, 256)
  assert shapes.sizes(200, shortest=32) == (32, 48, 64, 96, 128, 192, 200)
  assert shapes.sizes(10) == (10,)


def test_fine_sizes_are_an_eighth_to_a_fifth_apart():
  assert shapes.fine_sizes(256) == (
    *(16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256),
  )
  assert shapes.fine_sizes(200)[-2:] == (192, 200)
  assert shapes.fine_sizes(10) == (10,)
  sizes = shapes.fine_sizes(100, per_doubling=8)
  assert sizes[-6:] == (64, 72, 80, 88, 96, 100)


def test_bucket_is_the_smallest_that_holds_the_length():
  sizes = shapes.sizes(256)
  for length in range(1, 257):
    size = shapes.bucket(length, sizes)
    assert size >= length
    assert all(other < length for other in sizes if other < size)
  with pytest.raises(ValueError, match='length 257 .* largest bucket 256'):
    shapes.bucket(257, sizes)


def test_pad_to_fills_columns_and_rows():
  ids_BT, valid_BT = shapes.pad_to([[7, 8], [9]], 3, 3)
  assert ids_BT.tolist() == [[7, 8, 0], [9, 0, 0], [0, 0, 0]]
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


@pytest.mark.parametrize('num', [1, 2, 3, 40, 500])
def test_fitted_batches_hold_each_row_once_in_few_shapes(num):
  rng = np.random.default_rng(num)
  lengths = np.minimum(rng.geometric(1 / 60, size=num), 256)
  rows = [rng.integers(1, 9, size=n).tolist() for n in lengths]
  sizes = shapes.fine_sizes(256)
  found = {}
  for indices, ids_BT, valid_BT in shapes.fitted(rows, 1024, 256):
    num_rows, size = ids_BT.shape
    assert num_rows in shapes.row_counts(size, 1024)
    longest = max(len(rows[i]) for i in indices)
    assert size == shapes.bucket(longest, sizes)
    for i, row, valid in zip(indices, ids_BT, valid_BT, strict=False):
      found[i] = row[valid].tolist()
    assert valid_BT.sum() == sum(len(rows[i]) for i in indices)
  assert [found[i] for i in range(num)] == rows


def test_fitted_batches_have_less_padding():
  lengths = np.minimum(np.random.default_rng(0).geometric(1 / 60, 1000), 256)
  rows = [[1] * n for n in lengths]

  def share_valid(batches):
    valid = [valid_BT for _, _, valid_BT in batches]
    return sum(x.sum() for x in valid) / sum(x.size for x in valid)

  assert share_valid(shapes.fitted(rows, 1024, 256)) > 0.87
  for few in ([200], [200, 20], [200, 190, 20, 20, 19]):
    rows = [[1] * n for n in few]
    assert share_valid(shapes.fitted(rows, 1024, 256)) > 0.6
