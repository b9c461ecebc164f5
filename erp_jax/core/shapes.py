"""Few shapes for many lengths: every shape is a program to compile."""

from collections.abc import Iterator, Sequence

import numpy as np

_EIGHTS = [8**i for i in range(8)]


def sizes(longest: int, shortest: int = 16) -> tuple[int, ...]:
  """Ascending powers of two and 1.5 times them, from `shortest` to `longest`.

  The last is `longest` itself, whatever its factors.
  """
  powers = [2**i for i in range(longest.bit_length())]
  steps = sorted(powers + [3 * power for power in powers])
  return (*(n for n in steps if shortest <= n < longest), longest)


def fine_sizes(longest: int, per_doubling: int = 4) -> tuple[int, ...]:
  """Ascending multiples of 8 from 16 on, at most `per_doubling` a doubling.

  The last is `longest` itself, whatever its factors.
  """
  made = [min(16, longest)]
  while made[-1] < longest:
    step = max(8, 2 ** (made[-1].bit_length() - 1) // per_doubling)
    made.append(min(made[-1] + step, longest))
  return tuple(made)


def bucket(length: int, sizes: Sequence[int]) -> int:
  """The smallest of `sizes` (ascending) that holds `length`.

  Raises ValueError if none does; a caller that knows whose length it is
  compares with sizes[-1] first and names it.
  """
  for size in sizes:
    if length <= size:
      return size
  raise ValueError(f'length {length} is over the largest bucket {sizes[-1]}')


def num_rows(size: int, max_tokens: int) -> int:
  """Rows of a batch of `size` columns: as many as fit, at least one."""
  return max(1, max_tokens // size)


def pad_to(
  rows: Sequence[Sequence[int]], num_rows: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Rows of ids in one array: ids int32 [B, T] and where they are valid.

  Pads on the right with 0, and with rows that are not valid anywhere.
  Raises ValueError if there are more rows, or longer ones, than fit.
  """
  lengths = [len(row) for row in rows]
  if len(rows) > num_rows or max(lengths, default=0) > size:
    raise ValueError(
      f'{len(rows)} rows of up to {max(lengths, default=0)} ids do not fit '
      f'[{num_rows}, {size}]'
    )
  ids_BT = np.zeros((num_rows, size), np.int32)
  valid_BT = np.zeros((num_rows, size), bool)
  for i, row in enumerate(rows):
    ids_BT[i, : len(row)] = row
    valid_BT[i, : len(row)] = True
  return ids_BT, valid_BT


def row_counts(size: int, max_tokens: int) -> list[int]:
  """How many rows a batch of `fitted` may have: ascending, the last is full."""
  full = num_rows(size, max_tokens)
  return [n for n in _EIGHTS if 2 * n <= full] + [full]


def fitted(
  rows: Sequence[Sequence[int]],
  max_tokens: int,
  longest: int,
  per_doubling: int = 4,
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
  """Batches of `rows` as (their indices, ids [B, T], where they are valid).

  A batch has at most `max_tokens` positions, or one row; rows of padding come
  last. Rows go from long to short, in batches as wide as their longest one
  needs, of `fine_sizes`.
  Where few are left that are at least half as long, the batch has fewer rows,
  down to one, if those take less time so.
  """
  # On two CPU cores a batch of 1024 takes 35 ms, one of 64 takes 5.6 ms: each
  # start takes as long as an eighth of a full batch.
  cost = lambda num_positions: num_positions + max_tokens / 8
  buckets = fine_sizes(longest, per_doubling)
  order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
  width = [bucket(len(rows[i]), buckets) for i in order]
  start = 0
  while start < len(order):
    size = width[start]
    counts = row_counts(size, max_tokens)
    part = width[start : start + counts[-1]]
    num = sum(2 * other >= size for other in part)
    count = min(counts, key=lambda n: cost(n * size) / min(n, num))
    indices = order[start : start + count]
    yield indices, *pad_to([rows[i] for i in indices], count, size)
    start += count
