"""The R² that a perfect predictor would get: targets are noisy means of K.

A prediction of ER itself misses the mean of K samples by their noise, so R²
can't be expected above 1 - mean(s²/K) / Var(mean) (PAPER.md 8).
"""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import scores, targets

_LOWEST = 0.05  # PAPER.md 8: below it R² / ceiling is noise over noise.


class Cells(NamedTuple):
  """What the samples of each (prompt, arm) say, float64.

  Attributes:
    mean_NM: mean reward; NaN without samples.
    num_NM: how many samples.
    var_NM: their variance s², by num - 1. A cell with one sample gets the mean
      s² of its arm's other cells, NaN if no cell of the arm has two.
    pooled_NM: True for those with one sample.
  """

  mean_NM: np.ndarray
  num_NM: np.ndarray
  var_NM: np.ndarray
  pooled_NM: np.ndarray

  @property
  def noise_NM(self) -> np.ndarray:
    """Variance of the mean, s²/K; NaN where unknown."""
    noise_NM = np.full(self.num_NM.shape, np.nan)
    known_NM = self.num_NM > 0
    np.divide(self.var_NM, self.num_NM, out=noise_NM, where=known_NM)
    return noise_NM


@dataclasses.dataclass(frozen=True)
class Ceiling:
  """A noise ceiling, or why there is none.

  Attributes:
    value: at most 1; NaN where there is a reason. Not cut at 0: it is below
      where the noise seems larger than the whole variance.
    lo, hi: 95 % percentile interval over prompts; NaN without draws.
    num_prompts: rows that have a mean: those of the R² beside it.
    num_pooled: of these, rows with one sample (see Cells).
    reason: why it is not available; empty if it is.
    draw_Q: its value in each draw.
  """

  value: float
  lo: float
  hi: float
  num_prompts: int
  num_pooled: int
  reason: str = ''
  draw_Q: np.ndarray = dataclasses.field(
    default_factory=lambda: np.empty(0), repr=False, compare=False
  )

  @property
  def can_divide(self) -> bool:
    """Whether R² / ceiling means something: the lower bound is above .05."""
    return self.lo > _LOWEST


def summarise(reward_NKM: np.ndarray) -> Cells:
  """Mean, count and variance of each cell; samples that are not finite leave.

  Rewards are in the reward model's own units.
  """
  used_NKM = np.isfinite(reward_NKM)
  target = targets.expected_reward(reward_NKM, used_NKM)
  num_NM = target.num_NM
  error_NKM = np.where(used_NKM, reward_NKM - target.mean_NM[:, None], 0.0)
  square_NM = np.einsum('NKM,NKM->NM', error_NKM, error_NKM)
  var_NM = np.full(num_NM.shape, np.nan)
  np.divide(square_NM, num_NM - 1, out=var_NM, where=num_NM > 1)
  pooled_NM = num_NM == 1
  for m in range(num_NM.shape[1]):
    several_N = num_NM[:, m] > 1
    if several_N.any():
      var_NM[pooled_NM[:, m], m] = var_NM[several_N, m].mean()
  return Cells(target.mean_NM, num_NM, var_NM, pooled_NM)


def noise_ceilings(
  mean_NM: np.ndarray,
  noise_NM: np.ndarray,
  pooled_NM: np.ndarray,
  counts: Iterable[np.ndarray] = (),
  baseline: scores.Baseline = scores.own_mean,
) -> list[Ceiling]:
  """1 - mean(noise) / Var(mean) of each column, over rows with a mean.

  Both averages are over the same rows and the variance is by their number, so
  it belongs beside `scores.r2` of the same column.

  Args:
    mean_NM: targets, NaN where missing: `Cells.mean_NM`, or contrasts.
    noise_NM: variance of each target about its expectation.
    pooled_NM: cells whose noise is borrowed, to be counted.
    counts: counts_QN, how often each bootstrap draw has each prompt, some draws
      at a time, as `resample.draw_counts` makes them: so an interval is
      paired with that of R². Draws of equal targets are left out.
    baseline: what the variance is about, as of the R² beside it.
  """
  present_NM = np.isfinite(mean_NM)
  # A prediction that is off by the noise's standard deviation has this R².
  moments, centre_M = scores.draw_moments(
    mean_NM, mean_NM + np.sqrt(noise_NM), counts
  )
  value_QM = moments.r2(baseline(moments, centre_M))
  num_M = present_NM.sum(axis=0)
  result = []
  for m in range(len(num_M)):
    rows_N = present_NM[:, m]
    reason = _reason(mean_NM[rows_N, m], noise_NM[rows_N, m])
    lo, hi = (
      (np.nan, np.nan) if reason else resample.percentiles(value_QM[1:, m])
    )
    result.append(
      Ceiling(
        value=np.nan if reason else float(value_QM[0, m]),
        lo=lo,
        hi=hi,
        num_prompts=int(num_M[m]),
        num_pooled=int((pooled_NM[:, m] & rows_N).sum()),
        reason=reason,
        draw_Q=value_QM[1:, m],
      )
    )
  return result


def _reason(mean_N: np.ndarray, noise_N: np.ndarray) -> str:
  if reason := scores.undefined(mean_N):
    return reason
  if not np.isfinite(noise_N).all():
    return 'K = 1: one sample says nothing about the noise'
  return ''
