"""What a probe learns to predict: a model's expected reward on a prompt."""

from typing import NamedTuple

import numpy as np


class Targets(NamedTuple):
  """Estimates of ER of (3.1).

  Attributes:
    mean_NM: float64 mean reward; NaN where no response counts.
    num_NM: how many responses each mean is over.
    num_not_finite_M: valid responses left out for a NaN or infinite reward.
  """

  mean_NM: np.ndarray
  num_NM: np.ndarray
  num_not_finite_M: np.ndarray


def expected_reward(reward_NKM: np.ndarray, valid_NKM: np.ndarray) -> Targets:
  """Mean reward per (prompt, model): the target ER-hat of Sec. 3.

  Responses with valid_NKM False are left out, and so is a reward that is not
  finite (PAPER.md 22). Rewards are in the reward model's own units; they are
  not comparable across reward models. Sums in float64.
  """
  if reward_NKM.shape != valid_NKM.shape or reward_NKM.ndim != 3:
    raise ValueError(
      f'rewards {reward_NKM.shape} and valid {valid_NKM.shape} must both be '
      '[prompts, responses, models].'
    )
  finite_NKM = np.isfinite(reward_NKM)
  used_NKM = finite_NKM & valid_NKM
  num_NM = used_NKM.sum(axis=1)
  sum_NM = np.where(used_NKM, reward_NKM, 0.0).sum(axis=1, dtype=np.float64)
  mean_NM = np.full(num_NM.shape, np.nan)
  np.divide(sum_NM, num_NM, out=mean_NM, where=num_NM > 0)
  return Targets(mean_NM, num_NM, (valid_NKM & ~finite_NKM).sum(axis=(0, 1)))
