"""R² of each arm's predicted rewards, with intervals and noise ceilings.

Of all prompts and of each category, and of the contrasts between arms.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import ceiling as ceiling_lib
from erp_jax.probe import decomposition, scores

TEST_MEAN, TRAIN_MEAN, GLOBAL_MEAN = 'test_mean', 'train_mean', 'global_mean'
BASELINES = (TEST_MEAN, TRAIN_MEAN, GLOBAL_MEAN)
_OFF = 'switched off'

Counts = Callable[[], Iterable[np.ndarray]]  # Of a bootstrap, from its start.


class Truth(NamedTuple):
  """What is predicted, NaN where missing, and the variance of its noise."""

  mean_NM: np.ndarray
  noise_NM: np.ndarray
  pooled_NM: np.ndarray  # Cells whose noise is borrowed, see ceiling.Cells.

  @classmethod
  def of_samples(cls, reward_NKM: np.ndarray) -> 'Truth':
    """Means of samples; those that are not finite leave."""
    cells = ceiling_lib.summarise(reward_NKM)
    return cls(cells.mean_NM, cells.noise_NM, cells.pooled_NM)

  def contrasts(self) -> 'Truth':
    """The same of each arm minus the prompt's mean over the arms present."""
    present_NM = np.isfinite(self.mean_NM)
    return Truth(
      decomposition.contrasts(self.mean_NM, present_NM),
      decomposition.contrast_noise(self.noise_NM, present_NM),
      self.pooled_NM,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """One R², beside its noise ceiling.

  Attributes:
    r2: {mean, lo, hi}; None where undefined, or without draws.
    reason: why it is undefined; empty if it is defined.
    num_prompts: that have a reward.
    ceiling: of the same prompts, about the same baseline.
    share: {mean, lo, hi} of R² / ceiling, None where the ceiling is not clear
      of 0 (`Ceiling.can_divide`).
    draw_Q: the R² of each draw.
  """

  r2: Mapping[str, float | None]
  reason: str
  num_prompts: int
  ceiling: ceiling_lib.Ceiling
  share: Mapping[str, float | None]
  draw_Q: np.ndarray = dataclasses.field(repr=False, compare=False)

  def as_metrics(self) -> dict[str, Any]:
    """JSON-able, reasons only where there are some."""
    found = self.ceiling
    why = {'reason': self.reason} if self.reason else {}
    ceiling = _interval(found.value, found.lo, found.hi)
    ceiling |= {'num_pooled': found.num_pooled}
    ceiling |= {'reason': found.reason} if found.reason else {}
    return {
      **self.r2,
      **why,
      'num_prompts': self.num_prompts,
      'ceiling': ceiling,
      'of_ceiling': dict(self.share),
    }


# Of the arms, by category; None are all prompts, and stand first.
Table = dict[str | None, list[Score]]


def subsets(category_N: np.ndarray) -> dict[str | None, np.ndarray]:
  """Masks of all prompts (None, first) and of each category."""
  masks: dict[str | None, np.ndarray] = {None: np.ones(len(category_N), bool)}
  for category in np.unique(category_N):
    masks[str(category)] = category_N == category
  return masks


def score(
  truth: Truth,
  prediction_NM: np.ndarray,
  category_N: np.ndarray,
  counts: Counts = tuple,
  baseline: str = TEST_MEAN,
  train: tuple[np.ndarray, np.ndarray] | None = None,
  with_ceiling: bool = True,
) -> Table:
  """R² of test prompts, and its ceiling, by category and arm.

  Args:
    truth: of the test prompts, as are the next two.
    counts: makes the counts_QN of a bootstrap over them.
    baseline: what variances are about: the subset's own mean; that of its
      training prompts; or the mean of all test prompts.
    train: (mean_NM, category_N) of the training prompts, for 'train_mean'.
    with_ceiling: whether ceilings are wanted.
  """
  masks = subsets(category_N)
  num_arms = prediction_NM.shape[1]

  def spread(value_NM):  # Columns: the arms of one subset after another.
    parts = [np.where(m[:, None], value_NM, np.nan) for m in masks.values()]
    return np.concatenate(parts, axis=1)

  train_mean_S = np.full(num_arms * len(masks), np.nan)
  if train is not None:
    train_mean_S = np.concatenate(
      [_means(*train, category) for category in masks]
    )
  about = _baseline(baseline, num_arms, train_mean_S)
  columns = Truth(*(spread(part) for part in truth[:2]), spread(truth[2]) == 1)
  found = _score(columns, spread(prediction_NM), about, counts, with_ceiling)
  if baseline == TRAIN_MEAN:
    found = [
      one
      if np.isfinite(mean) or one.reason
      else _undefined(one, 'no training prompt of the category has a reward')
      for one, mean in zip(found, train_mean_S, strict=True)
    ]
  return {
    category: found[i * num_arms : (i + 1) * num_arms]
    for i, category in enumerate(masks)
  }


def score_contrasts(
  truth: Truth,
  prediction_NM: np.ndarray,
  counts: Counts = tuple,
  with_ceiling: bool = True,
) -> tuple[list[Score], Score]:
  """R² of each arm's contrasts, and of all together, as `contrast_r2`."""
  contrast = truth.contrasts()
  guess_NM = decomposition.contrasts(prediction_NM, np.isfinite(truth.mean_NM))
  arms = _score(contrast, guess_NM, scores.own_mean, counts, with_ceiling)
  moments, _ = scores.draw_moments(contrast.mean_NM, guess_NM, counts())
  reason = '' if any(not arm.reason for arm in arms) else arms[0].reason
  if len(arms) < 2:
    reason = 'one arm: there is nothing to compare'
    arms = [_undefined(arm, reason) for arm in arms]
  # Together they are the arms' averages, each weighted by its spread.
  spread_QM = np.nan_to_num(moments.spread())
  ceiling_QM = np.stack(
    [np.append(a.ceiling.value, a.ceiling.draw_Q) for a in arms], axis=1
  )
  with np.errstate(invalid='ignore', divide='ignore'):
    total_Q = spread_QM.sum(axis=1)
    r2_Q = 1 - moments.error.sum(axis=1) / total_Q
    ceiling_Q = (ceiling_QM * spread_QM).sum(axis=1) / total_Q
  why = reason or next((a.ceiling.reason for a in arms if a.ceiling.reason), '')
  lo, hi = (np.nan, np.nan) if why else resample.percentiles(ceiling_Q[1:])
  num = int(np.isfinite(contrast.mean_NM).any(axis=1).sum())
  return arms, _join(
    r2_Q,
    reason,
    num,
    ceiling_lib.Ceiling(
      value=np.nan if why else float(ceiling_Q[0]),
      lo=lo,
      hi=hi,
      num_prompts=num,
      num_pooled=sum(a.ceiling.num_pooled for a in arms),
      reason=why,
      draw_Q=ceiling_Q[1:],
    ),
  )


def mean_of(found: Sequence[Score]) -> dict[str, Any]:
  """{mean, lo, hi} of the arms' R²s, None unless all are defined."""
  if any(one.reason for one in found):
    return resample.undefined()
  value = float(np.mean([one.r2['mean'] for one in found]))
  draw_Q = np.mean([one.draw_Q for one in found], axis=0)
  return _interval(value, *resample.percentiles(draw_Q))


def _score(
  truth: Truth,
  prediction_NM: np.ndarray,
  baseline: scores.Baseline,
  counts: Counts,
  with_ceiling: bool,
) -> list[Score]:
  """Of each column."""
  moments, centre_M = scores.draw_moments(
    truth.mean_NM, prediction_NM, counts()
  )
  r2_QM = moments.r2(baseline(moments, centre_M))
  ceilings = [
    ceiling_lib.Ceiling(np.nan, np.nan, np.nan, int(num), 0, _OFF)
    for num in moments.num[0]
  ]
  if with_ceiling:
    ceilings = ceiling_lib.noise_ceilings(*truth, counts(), baseline)
  return [
    _join(
      r2_QM[:, m],
      _reason(truth.mean_NM[:, m], prediction_NM[:, m]),
      int(moments.num[0, m]),
      ceilings[m],
    )
    for m in range(len(ceilings))
  ]


def _join(
  r2_Q: np.ndarray, reason: str, num: int, ceiling: ceiling_lib.Ceiling
) -> Score:
  """A score of values, of which the first is that of the prompts themselves."""
  r2, share = resample.undefined(), resample.undefined()
  if not reason:
    r2 = _interval(float(r2_Q[0]), *resample.percentiles(r2_Q[1:]))
    if ceiling.can_divide:
      share_Q = r2_Q[1:] / ceiling.draw_Q
      share = _interval(r2_Q[0] / ceiling.value, *resample.percentiles(share_Q))
  return Score(
    r2=r2,
    reason=reason,
    num_prompts=num,
    ceiling=ceiling,
    share=share,
    draw_Q=r2_Q[1:],
  )


def _undefined(found: Score, reason: str) -> Score:
  ceiling = dataclasses.replace(
    found.ceiling, value=np.nan, lo=np.nan, hi=np.nan, reason=reason
  )
  return dataclasses.replace(
    found,
    r2=resample.undefined(),
    reason=reason,
    ceiling=ceiling,
    share=resample.undefined(),
  )


def _interval(value: float, lo: float, hi: float) -> dict[str, float | None]:
  """None for what is NaN: a value may be known without its interval."""
  parts = {'mean': value, 'lo': lo, 'hi': hi}
  return {name: resample.defined(part) for name, part in parts.items()}


def _reason(mean_N: np.ndarray, prediction_N: np.ndarray) -> str:
  known_N = np.isfinite(mean_N)
  if reason := scores.undefined(mean_N[known_N]):
    return reason
  if not np.isfinite(prediction_N[known_N]).all():
    return 'no prediction: fewer than 2 training prompts have a reward'
  return ''


def _means(
  mean_NM: np.ndarray, category_N: np.ndarray, category: str | None
) -> np.ndarray:
  """mean_M of the rewards that there are in a category; NaN for none."""
  if category is not None:
    mean_NM = mean_NM[category_N == category]
  known_NM = np.isfinite(mean_NM)
  num_M = known_NM.sum(axis=0)
  mean_M = np.full(num_M.shape, np.nan)
  sum_M = np.where(known_NM, mean_NM, 0.0).sum(axis=0)
  return np.divide(sum_M, num_M, out=mean_M, where=num_M > 0)


def _baseline(
  name: str, num_arms: int, train_mean_S: np.ndarray
) -> scores.Baseline:
  if name == TEST_MEAN:
    return scores.own_mean
  if name == TRAIN_MEAN:
    return lambda moments, centre_S: np.broadcast_to(
      train_mean_S - centre_S, moments.num.shape
    )

  def global_mean(moments, centre_S):
    mean_QM = moments.mean()[:, :num_arms] + centre_S[:num_arms]
    return np.tile(mean_QM, len(centre_S) // num_arms) - centre_S

  return global_mean
