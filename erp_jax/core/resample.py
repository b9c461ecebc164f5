"""Intervals: bootstrap draws of rows, percentiles, and repeated splits.

Draws are counts, how often each draw has each row. What is linear in the rows
is then one matrix product, and all that is counted by the same draws is paired.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from erp_jax.core import errors

LEVEL = 0.95
_CHUNK = 100  # Draws counted at once: 8 MB for 10 000 rows.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
  """95 % percentile intervals."""

  num_draws: int = 2000
  seed: int = 0

  def __post_init__(self):
    if self.num_draws < 100:
      raise errors.UserError(
        f'bootstrap.num_draws must be 100 or more, got {self.num_draws}.'
      )


def draw_counts(num: int, cfg: BootstrapConfig) -> Iterator[np.ndarray]:
  """counts_QN, how often each draw has each of `num` rows, some at a time."""
  rng = np.random.default_rng(cfg.seed)
  for start in range(0, cfg.num_draws, _CHUNK):
    size = min(_CHUNK, cfg.num_draws - start)
    picks = rng.integers(num, size=(size, num))
    picks += num * np.arange(size)[:, None]
    counts = np.bincount(picks.ravel(), minlength=size * num)
    yield counts.reshape(size, num).astype(np.float64)


def interval(point: float, draws_Q: np.ndarray) -> dict[str, float | None]:
  """{mean, lo, hi}: the value itself and its percentile interval.

  Draws that are not finite are left out. All three are None where the value is
  not finite, or no draw is.
  """
  lo, hi = percentiles(draws_Q)
  if not (np.isfinite(point) and np.isfinite(lo)):
    return undefined()
  return {'mean': float(point), 'lo': lo, 'hi': hi}


def share_interval(
  point: float, draws_Q: np.ndarray
) -> dict[str, float | None]:
  """As `interval`, for a number in [0, 1] with a skewed error, as AUROC has.

  Percentiles, reflected about the value on the scale of logits: logit(lo) is
  2 logit(value) - logit(upper percentile). They cover better than plain ones:
  see `launch.coverage`. Plain ones where the value or a percentile is 0 or 1,
  which have no logit.
  """
  leaf = interval(point, draws_Q)
  if leaf['mean'] is None or not all(0 < bound < 1 for bound in leaf.values()):
    return leaf
  logit = {name: math.log(p / (1 - p)) for name, p in leaf.items()}
  reflect = lambda name: 1 / (1 + math.exp(logit[name] - 2 * logit['mean']))
  return {'mean': leaf['mean'], 'lo': reflect('hi'), 'hi': reflect('lo')}


def undefined() -> dict[str, None]:
  """The interval of what has no value."""
  return {'mean': None, 'lo': None, 'hi': None}


def defined(value: float) -> float | None:
  """As JSON has it, which knows no NaN: None for what is not finite."""
  return float(value) if math.isfinite(value) else None


def number(value: float | None) -> float:
  """The number that `defined` was given: NaN for None."""
  return math.nan if value is None else value


def percentiles(draws_Q: np.ndarray) -> tuple[float, float]:
  """(lo, hi) that hold 95 % of the finite draws between them; NaN without."""
  draws_Q = draws_Q[np.isfinite(draws_Q)]
  if not len(draws_Q):
    return math.nan, math.nan
  tail = (1 - LEVEL) / 2
  lo, hi = np.quantile(draws_Q, [tail, 1 - tail])
  return float(lo), float(hi)


def split_corrected(
  value_J: np.ndarray, test_over_train: float, level: float = LEVEL
) -> dict[str, float | int | None]:
  """{mean, lo, hi, sd, n_splits} of a value over J random splits of one table.

  Splits share rows, so values are correlated and sd / sqrt(J) is too small.
  Nadeau and Bengio (2003): variance (1/J + test rows / training rows) sd², with
  the t distribution of J - 1 degrees of freedom. Values that are not finite are
  left out of everything, J included; lo, hi and sd are None for J < 2, and
  mean for none.
  """
  if not (math.isfinite(test_over_train) and test_over_train > 0):
    raise ValueError(f'test_over_train is {test_over_train}, must be > 0.')
  value_J = np.asarray(value_J, np.float64)
  value_J = value_J[np.isfinite(value_J)]
  num = len(value_J)
  if num < 2:
    mean = float(value_J[0]) if num else None
    return {'mean': mean, 'lo': None, 'hi': None, 'sd': None, 'n_splits': num}
  mean, sd = float(value_J.mean()), float(value_J.std(ddof=1))
  half = t_quantile((1 + level) / 2, num - 1) * sd
  half *= math.sqrt(1 / num + test_over_train)
  return {
    'mean': mean,
    'lo': mean - half,
    'hi': mean + half,
    'sd': sd,
    'n_splits': num,
  }


def t_quantile(prob: float, df: int) -> float:
  """Quantile of Student's t for a whole number of degrees of freedom.

  By bisection in the angle atan(t / sqrt(df)), in which the distribution
  function is a finite trigonometric sum (Abramowitz and Stegun, 26.7.3-4).
  """
  if not 0 < prob < 1:
    raise ValueError(f'prob is {prob}, must be between 0 and 1.')
  if df < 1:
    raise ValueError(f'df is {df}, must be 1 or more.')
  if prob < 0.5:
    return -t_quantile(1 - prob, df)
  lo, hi = 0.0, math.pi / 2
  while lo < (middle := (lo + hi) / 2) < hi:
    if _central_prob(middle, df) < 2 * prob - 1:
      lo = middle
    else:
      hi = middle
  return math.sqrt(df) * math.tan(middle)


def _central_prob(angle: float, df: int) -> float:
  """P(|t| <= sqrt(df) tan(angle))."""
  sin, cos = math.sin(angle), math.cos(angle)
  odd = df % 2
  term = cos if odd else 1.0
  total = term if df > 1 else 0.0
  for k in range(2 + odd, df, 2):
    term *= cos * cos * (k - 1) / k
    total += term
  return 2 / math.pi * (angle + sin * total) if odd else sin * total
