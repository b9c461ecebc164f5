"""The best way to spend a number of samples: many prompts, or many of each."""

import dataclasses

import numpy as np

from erp_jax.core import errors
from erp_jax.route import evaluate, learning

BY_REGRET, BY_R2, BY_CONTRAST_R2 = 'regret', 'r2', 'contrast_r2'
CRITERIA = (BY_REGRET, BY_R2, BY_CONTRAST_R2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allocation:
  """The best cell among those of n k samples.

  Attributes:
    by: the criterion.
    total: n k.
    num_prompts, num_samples: n and k.
    value: mean over repeats of the criterion (regret itself, not minus it).
    se: its standard error over repeats; NaN for one.
    runner_up: (n, k) of the second best; (0, 0) if there is no other.
    lead: by how much it is better than that.
    lead_se: standard error of the lead, paired over repeats.
  """

  by: str
  total: int
  num_prompts: int
  num_samples: int
  value: float
  se: float
  runner_up: tuple[int, int] = (0, 0)
  lead: float = np.nan
  lead_se: float = np.nan


def totals(curve: learning.LearningCurve) -> list[int]:
  """Numbers of samples n k that more than one cell has, ascending."""
  product = np.multiply.outer(curve.num_prompts_N, curve.num_samples_K)
  value, count = np.unique(product, return_counts=True)
  return [int(v) for v in value[count > 1]]


def score_JNK(curve: learning.LearningCurve, by: str) -> np.ndarray:
  """What is to be highest by a criterion of CRITERIA.

  For regret: minus its mean over the budgets of `evaluate.BUDGETS` that are
  feasible.
  Raises UserError for another criterion.
  """
  errors.check_choice('the criterion', by, CRITERIA)
  if by == BY_R2:
    return curve.r2_JNK
  if by == BY_CONTRAST_R2:
    return curve.contrast_r2_JNK
  regret_JNKP = curve.regret_JNKP['erp'][..., : len(evaluate.BUDGETS)]
  feasible_P = np.isfinite(regret_JNKP).all(axis=(0, 1, 2))
  return -regret_JNKP[..., feasible_P].mean(axis=-1)


def best_allocation(
  curve: learning.LearningCurve, total: int, by: str = BY_REGRET
) -> Allocation:
  """The best (n, k) with n k = total, by a criterion of CRITERIA.

  The best of several noisy means looks a little better than it is; `lead` and
  its standard error say how sure the choice is.
  Raises UserError for another criterion, and a total that no cell has.
  """
  product = np.multiply.outer(curve.num_prompts_N, curve.num_samples_K)
  n_at, k_at = np.nonzero(product == total)
  if not len(n_at):
    raise errors.UserError(
      f'no cell of the grid has {total} samples; there are '
      f'{", ".join(map(str, np.unique(product)))}.'
    )
  score_J = score_JNK(curve, by)[:, n_at, k_at]
  mean, se = learning.mean_se(score_J)
  order = np.argsort(-mean, kind='stable')  # Undefined ones last.
  first = order[0]
  cell = lambda i: (
    int(curve.num_prompts_N[n_at[i]]),
    int(curve.num_samples_K[k_at[i]]),
  )
  num_prompts, num_samples = cell(first)
  result = Allocation(
    by=by,
    total=total,
    num_prompts=num_prompts,
    num_samples=num_samples,
    value=float(-mean[first] if by == BY_REGRET else mean[first]),
    se=float(se[first]),
  )
  if len(order) == 1:
    return result
  second = order[1]
  lead, lead_se = learning.mean_se(score_J[:, first] - score_J[:, second])
  return dataclasses.replace(
    result,
    runner_up=cell(second),
    lead=float(lead),
    lead_se=float(lead_se),
  )
