"""How good predictions are: R² and AUROC. NaN says undefined, never 0."""

import numpy as np


def r2(reward_N: np.ndarray, prediction_N: np.ndarray) -> float:
  """1 - mean squared error / variance, about these rewards' own mean.

  Prompts whose reward is NaN are left out. NaN (undefined) if the rewards
  left are all equal, or fewer than two.
  """
  known_N = np.isfinite(reward_N)
  reward_N, prediction_N = reward_N[known_N], prediction_N[known_N]
  if len(reward_N) < 2 or reward_N.min() == reward_N.max():
    return float('nan')
  error_N = reward_N - prediction_N
  spread_N = reward_N - reward_N.mean()
  return float(1 - np.sum(error_N**2) / np.sum(spread_N**2))


def auroc(positive_N: np.ndarray, score_N: np.ndarray) -> float:
  """P(score of a positive > score of a negative), equal scores counted half.

  NaN (undefined) unless there are positives and negatives.
  """
  num_positive = int(positive_N.sum())
  num_negative = len(positive_N) - num_positive
  if not num_positive or not num_negative:
    return float('nan')
  _, inverse_N, count = np.unique(
    score_N, return_inverse=True, return_counts=True
  )
  last = np.cumsum(count)  # Ranks of equal scores run from last - count + 1.
  rank_N = (last - (count - 1) / 2)[inverse_N]
  above = rank_N[positive_N].sum() - num_positive * (num_positive + 1) / 2
  return float(above / (num_positive * num_negative))
