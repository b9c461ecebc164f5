"""The train/test split: stratified, and decided by each prompt's own id."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from erp_jax.core import errors


def train_mask(
  prompt_ids: Sequence[str],
  categories: Sequence[str],
  seed: int,
  train_frac: float = 0.5,
) -> np.ndarray:
  """train_N, True for training prompts: `train_frac` of each category.

  Within a category prompts are ordered by sha256 of (seed, id), and the first
  floor(n train_frac) of n are training prompts: an odd one goes to test. Both
  sides get at least one. So the order of the file never matters, and other
  categories never matter.
  Raises UserError for a category with one prompt, an id given twice, or a
  fraction outside (0, 1).
  """
  if not 0 < train_frac < 1:
    raise errors.UserError(
      f'train_frac is {train_frac}; give a fraction between 0 and 1.'
    )
  if len(prompt_ids) != len(categories):
    raise ValueError(f'{len(prompt_ids)} ids, {len(categories)} categories.')
  key = {}
  rows_of = {}
  for row, (prompt_id, category) in enumerate(
    zip(prompt_ids, categories, strict=True)
  ):
    if prompt_id in key:
      raise errors.UserError(
        f'prompt id {prompt_id!r} is there twice; give every prompt its own.'
      )
    key[prompt_id] = hashlib.sha256(f'{seed}\n{prompt_id}'.encode()).digest()
    rows_of.setdefault(category, []).append(row)
  train_N = np.zeros(len(prompt_ids), bool)
  for category, rows in rows_of.items():
    if len(rows) == 1:
      raise errors.UserError(
        f'category {str(category)!r} has one prompt, a split needs two: add '
        'prompts to it, or join it to another category.'
      )
    rows.sort(key=lambda row: key[prompt_ids[row]])
    # 0.29 * 100 is 28.999...: the small number keeps it at 29.
    num_train = math.floor(len(rows) * train_frac + 1e-9)
    train_N[rows[: min(max(num_train, 1), len(rows) - 1)]] = True
  return train_N


def test_over_train(train_N: np.ndarray) -> float:
  """Test prompts by training prompts, for `resample.split_corrected`."""
  return float((~train_N).sum() / train_N.sum())
