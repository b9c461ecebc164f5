"""How good predictions are: R² and AUROC. NaN says undefined, never 0."""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


def r2(reward_N: np.ndarray, prediction_N: np.ndarray) -> float:
  """1 - mean squared error / variance, about these rewards' own mean.

  Prompts whose reward is NaN are left out. NaN (undefined) if the rewards
  left are all equal, or fewer than two.
  """
  known_N = np.isfinite(reward_N)
  reward_N, prediction_N = reward_N[known_N], prediction_N[known_N]
  if undefined(reward_N):
    return float('nan')
  error_N = reward_N - prediction_N
  spread_N = reward_N - reward_N.mean()
  return float(1 - np.sum(error_N**2) / np.sum(spread_N**2))


def undefined(reward_N: np.ndarray) -> str:
  """Why R² of these rewards, all known, is undefined; empty if it is not."""
  if len(reward_N) < 2:
    return f'{len(reward_N)} prompts have a reward, a variance needs 2'
  if reward_N.min() == reward_N.max():
    return 'all mean rewards are equal'
  return ''


class Moments(NamedTuple):
  """Sums over prompts that R² is made of, each [Q, M]: draws by columns.

  Attributes:
    num: prompts with a reward.
    first, second: of rewards minus a constant of the column, and their squares.
    error: of squared errors.
  """

  num: np.ndarray
  first: np.ndarray
  second: np.ndarray
  error: np.ndarray

  @classmethod
  def of_sums(cls, sums_QS: np.ndarray) -> 'Moments':
    """From counts_QN @ the columns of `moment_columns`."""
    return cls(*np.split(sums_QS, 4, axis=1))

  def mean(self) -> np.ndarray:
    """Of rewards minus the column's constant; NaN without any."""
    with np.errstate(invalid='ignore'):
      return self.first / self.num

  def spread(self, baseline_QM: np.ndarray | None = None) -> np.ndarray:
    """Squared deviations from a baseline, minus the column's constant as well.

    Without one, from each draw's own mean. NaN where rewards are all equal.
    """
    mean_QM = self.mean()
    own_QM = self.second - self.first * mean_QM
    # Equal rewards leave rounding, not a variance.
    own_QM = np.where(own_QM > 1e-12 * self.second, own_QM, np.nan)
    if baseline_QM is None:
      return own_QM
    return own_QM + self.num * (mean_QM - baseline_QM) ** 2

  def r2(self, baseline_QM: np.ndarray | None = None) -> np.ndarray:
    """1 - squared errors / spread; NaN where undefined."""
    return 1 - self.error / self.spread(baseline_QM)


# baseline_QM of moments and the columns' constants; None: each one's own mean.
Baseline = Callable[[Moments, np.ndarray], np.ndarray | None]


def own_mean(moments: Moments, centre_M: np.ndarray) -> None:
  """The baseline of `r2`: the mean of the same rewards."""
  del moments, centre_M


def moment_columns(
  reward_NM: np.ndarray, prediction_NM: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What each prompt adds to `Moments`, [N, 4 M], and each column's constant.

  Rewards that are NaN add nothing. The constant is the column's mean, for
  digits.
  """
  known_NM = np.isfinite(reward_NM)
  num_M = np.maximum(known_NM.sum(axis=0), 1)
  centre_M = np.where(known_NM, reward_NM, 0.0).sum(axis=0) / num_M
  centred_NM = np.where(known_NM, reward_NM - centre_M, 0.0)
  error_NM = np.where(known_NM, reward_NM - prediction_NM, 0.0)
  parts = (known_NM.astype(np.float64), centred_NM, centred_NM**2, error_NM**2)
  return np.concatenate(parts, axis=1), centre_M


def draw_moments(
  reward_NM: np.ndarray,
  prediction_NM: np.ndarray,
  counts: Iterable[np.ndarray] = (),
) -> tuple[Moments, np.ndarray]:
  """Moments of the prompts themselves and of draws, and columns' constants.

  `counts` are counts_QN, how often each draw has each prompt.
  """
  column_NS, centre_M = moment_columns(reward_NM, prediction_NM)
  all_counts = itertools.chain([np.ones((1, len(column_NS)))], counts)
  sums_QS = np.concatenate([counts_QN @ column_NS for counts_QN in all_counts])
  return Moments.of_sums(sums_QS), centre_M


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
