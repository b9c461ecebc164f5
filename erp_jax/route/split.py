"""One split: what a router knew from training, and what is true on test."""

import dataclasses
import functools

import numpy as np

from erp_jax.core import errors
from erp_jax.data import outcomes
from erp_jax.route import policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
  """Test prompts are those with a prediction; routing uses the complete ones.

  Attributes:
    models: names of the M arms.
    cost_M: mean cost per prompt that decisions go by.
    prediction_NM: predicted expected reward of the test prompts.
    reward_NM: their observed reward, NaN where missing.
    spent_NM: what each answer cost, NaN where not recorded (cost_M stands in).
    category_N: their category.
    train_reward_NM, train_category_N: the same of the training prompts.
    cost_weight: reward that a unit of cost takes away from the value that
      regret is measured in: 0, the paper's regret (4.2), leaves cost out.

  Raises UserError for costs that are negative or not finite, and where no
  training prompt or no test prompt has rewards of all arms.
  """

  models: tuple[str, ...]
  cost_M: np.ndarray
  prediction_NM: np.ndarray
  reward_NM: np.ndarray
  spent_NM: np.ndarray
  category_N: np.ndarray
  train_reward_NM: np.ndarray
  train_category_N: np.ndarray
  cost_weight: float = 0.0

  def __post_init__(self):
    shape = self.prediction_NM.shape
    if not (
      shape == self.reward_NM.shape == self.spent_NM.shape
      and shape[1:] == self.cost_M.shape == (len(self.models),)
      and shape[:1] == self.category_N.shape
    ):
      raise ValueError('predictions, rewards and costs differ in shape.')
    policy.check_costs(self.models, self.cost_M)
    for part, complete_N in (
      ('training', np.isfinite(self.train_reward_NM).all(axis=1)),
      ('test', self.complete_N),
    ):
      if not complete_N.any():
        raise errors.UserError(
          f'no {part} prompt has rewards of all of {", ".join(self.models)}; '
          'leave out the arm with the fewest.'
        )

  @functools.cached_property
  def complete_N(self) -> np.ndarray:
    """True for test prompts with rewards of all arms."""
    return np.isfinite(self.reward_NM).all(axis=1)

  @functools.cached_property
  def paid_NM(self) -> np.ndarray:
    """Cost of each answer of the test prompts; cost_M where not recorded."""
    return np.where(np.isfinite(self.spent_NM), self.spent_NM, self.cost_M)

  @functools.cached_property
  def value_NM(self) -> np.ndarray:
    """What regret compares on complete test prompts: reward, less its cost."""
    complete_N = self.complete_N
    reward_NM = self.reward_NM[complete_N]
    if not self.cost_weight:
      return reward_NM
    return reward_NM - self.cost_weight * self.paid_NM[complete_N]

  @functools.cached_property
  def train_mean_M(self) -> np.ndarray:
    """Mean reward over complete training prompts."""
    complete_N = np.isfinite(self.train_reward_NM).all(axis=1)
    return self.train_reward_NM[complete_N].mean(axis=0)

  @functools.cached_property
  def best_arm(self) -> int:
    """The best single arm: highest training mean, ties to the cheaper."""
    return policy.best_single(self.train_mean_M, self.cost_M)

  def category_mean_NM(self) -> np.ndarray:
    """Training mean of each complete test prompt's category, per arm.

    Raises UserError for a category without a complete training prompt.
    """
    complete_N = np.isfinite(self.train_reward_NM).all(axis=1)
    category_N = self.category_N[self.complete_N]
    mean_NM = np.empty((len(category_N), len(self.models)))
    for category in np.unique(category_N):
      rows_N = complete_N & (self.train_category_N == category)
      if not rows_N.any():
        raise errors.UserError(
          f'category {str(category)!r} is in test, but no training prompt of '
          'it has rewards of all arms; join it to another category.'
        )
      mean_NM[category_N == category] = self.train_reward_NM[rows_N].mean(
        axis=0
      )
    return mean_NM


def from_outcomes(
  table: outcomes.Outcomes,
  train_N: np.ndarray,
  prediction_NM: np.ndarray,
  cost_weight: float = 0.0,
) -> Split:
  """The split of a table by train_N; predictions are for all its prompts."""
  return Split(
    models=table.models,
    cost_M=table.mean_cost_M(train_N),
    prediction_NM=prediction_NM[~train_N],
    reward_NM=table.reward_NM[~train_N],
    spent_NM=table.cost_NM[~train_N],
    category_N=table.category_N[~train_N],
    train_reward_NM=table.reward_NM[train_N],
    train_category_N=table.category_N[train_N],
    cost_weight=cost_weight,
  )


def category_rows(category_N: np.ndarray) -> dict[str, np.ndarray]:
  """Rows of each category, in alphabetical order."""
  return {
    str(category): np.flatnonzero(category_N == category)
    for category in np.unique(category_N)
  }
