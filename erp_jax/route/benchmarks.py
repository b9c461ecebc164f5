"""Metrics of other routing benchmarks, so that published numbers compare.

RouteLLM (arXiv 2406.18665): PGR, APGR, CPT(x), between a weak and a strong arm.
RouterBench (arXiv 2403.12031): AIQ. And the hypervolume of a frontier about a
stated reference point.

Quality is a mean reward (or minus a mean regret: the frontier's shape is the
same), higher is better; cost is a mean cost. Points may come in any order.
"""

from typing import NamedTuple

import numpy as np

from erp_jax.core import errors


class Metric(NamedTuple):
  """A number, or NaN and the reason why it is undefined."""

  value: float
  reason: str = ''


class CallCurve(NamedTuple):
  """Quality as a function of the share of calls that go to the strong arm.

  Attributes:
    share_P: strictly ascending from 0 to 1.
    quality_P: mean quality; between the points a straight line, since a lottery
      between two thresholds is on it.
  """

  share_P: np.ndarray
  quality_P: np.ndarray


def call_curve(
  score_N: np.ndarray, weak_N: np.ndarray, strong_N: np.ndarray
) -> CallCurve:
  """The router that sends the highest scores to the strong arm.

  Every threshold there is, from all weak to all strong. Prompts of equal score
  change side together.

  Args:
    score_N: how much the router wants the strong arm: for ERP the difference of
      the predictions.
    weak_N, strong_N: the arms' rewards, all finite.
  """
  gain_N = np.asarray(strong_N, np.float64) - weak_N
  if not (np.isfinite(gain_N).all() and np.isfinite(score_N).all()):
    raise errors.UserError(
      'scores or rewards are not finite; leave prompts without them out.'
    )
  order = np.argsort(-np.asarray(score_N, np.float64), kind='stable')
  sorted_N = np.asarray(score_N)[order]
  last_N = np.append(sorted_N[1:] != sorted_N[:-1], True)
  total_P = np.append(0.0, np.cumsum(gain_N[order])[last_N])
  num = len(gain_N)
  share_P = np.append(0.0, (np.flatnonzero(last_N) + 1) / num)
  return CallCurve(share_P, np.mean(weak_N) + total_P / num)


def pgr(curve: CallCurve, share: float) -> Metric:
  """Performance gap recovered: (quality - weak) / (strong - weak), at a share.

  Undefined unless the strong arm is better on these prompts.
  """
  reason = _no_gap(curve)
  if reason:
    return Metric(np.nan, reason)
  quality = np.interp(share, curve.share_P, curve.quality_P)
  return Metric(float(_recovered(curve, quality)))


def apgr(curve: CallCurve) -> Metric:
  """Average PGR: its integral over the share of strong calls, from 0 to 1.

  The exact integral of the polyline; RouteLLM's program takes a trapezoidal sum
  over some ten thresholds. Calling at random gets 1/2.
  """
  reason = _no_gap(curve)
  if reason:
    return Metric(np.nan, reason)
  pgr_P = _recovered(curve, curve.quality_P)
  return Metric(_integrate(curve.share_P, pgr_P))


def cpt(curve: CallCurve, frac: float) -> Metric:
  """CPT(x): least share of strong calls at which PGR is x = `frac` or more.

  From 0 to 1, where RouteLLM writes per cent. Linear between points, and the
  first crossing where the curve is not monotone.
  """
  if not 0 <= frac <= 1:
    raise errors.UserError(
      f'CPT is asked for a PGR of {frac}; give a fraction from 0 to 1.'
    )
  reason = _no_gap(curve)
  if reason:
    return Metric(np.nan, reason)
  pgr_P = _recovered(curve, curve.quality_P)
  pgr_P[-1] = 1.0  # Reached by definition; sums may miss it by a last bit.
  after = int(np.argmax(pgr_P >= frac))
  if after == 0:
    return Metric(0.0)
  pair = slice(after - 1, after + 1)
  return Metric(float(np.interp(frac, pgr_P[pair], curve.share_P[pair])))


def upper_hull(
  cost_P: np.ndarray, quality_P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Corners of RouterBench's non-decreasing convex hull, ascending in cost.

  The least concave function above the points, from the cheapest point to the
  best one (the cheaper of equals): what lotteries between points can reach
  without paying for lower quality. Beyond the best point it stays flat.
  """
  cost_P, quality_P = _points(cost_P, quality_P)
  hull = []
  for c, q in zip(cost_P, quality_P, strict=True):
    if hull and q <= hull[-1][1]:
      continue  # Not cheaper, not better.
    while len(hull) > 1:
      (c0, q0), (c1, q1) = hull[-2:]
      if (q1 - q0) * (c - c0) > (q - q0) * (c1 - c0):
        break  # The last corner is above the line to the new one.
      hull.pop()
    hull.append((c, q))
  corners = np.array(hull)
  return corners[:, 0], corners[:, 1]


def aiq(
  cost_P: np.ndarray, quality_P: np.ndarray, lo: float, hi: float
) -> Metric:
  """Average improvement in quality: mean height of the hull over [lo, hi].

  Routers to be compared need the same range, within what each of them offers;
  beyond its best point a hull is flat. RouterBench's paper divides by the range
  as here; its program by the highest cost: that is this number times 1 - lo/hi,
  with the cheapest point's cost for `lo`.
  Undefined for lo = hi, and below the cheapest point, where nothing is sold.
  """
  corner_cost, corner_quality = upper_hull(cost_P, quality_P)
  reason = _bad_range(corner_cost[0], lo, hi)
  if reason:
    return Metric(np.nan, reason)
  area = _area(corner_cost, corner_quality, lo, hi)
  return Metric(area / (hi - lo))


def hypervolume(
  cost_P: np.ndarray,
  quality_P: np.ndarray,
  reference_cost: float,
  reference_quality: float,
) -> float:
  """Area that the points dominate, down to a reference point: a staircase.

  No lotteries: a place counts if some point is at most as dear and at least as
  good. Points dearer or worse than the reference count for nothing, so it is 0
  where all are.
  """
  cost_P, quality_P = _points(cost_P, quality_P)
  inside_P = (cost_P <= reference_cost) & (quality_P > reference_quality)
  if not inside_P.any():
    return 0.0
  cost_P = cost_P[inside_P]
  height_P = np.maximum.accumulate(quality_P[inside_P]) - reference_quality
  width_P = np.diff(cost_P, append=reference_cost)
  return float((width_P * height_P).sum())


def _points(
  cost_P: np.ndarray, quality_P: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Ascending in cost, of equal costs the best first."""
  cost_P = np.asarray(cost_P, np.float64)
  quality_P = np.asarray(quality_P, np.float64)
  if not (len(cost_P) and np.isfinite(cost_P + quality_P).all()):
    raise errors.UserError(
      'a frontier needs points, with finite costs and qualities.'
    )
  order = np.lexsort((-quality_P, cost_P))
  return cost_P[order], quality_P[order]


def _no_gap(curve: CallCurve) -> str:
  weak, strong = curve.quality_P[0], curve.quality_P[-1]
  # A sum of equal rewards leaves rounding, not a gap.
  if strong - weak <= 1e-12 * max(abs(weak), abs(strong)):
    return (
      f'the strong arm ({strong:.6g}) is not better than the weak one '
      f'({weak:.6g}): there is no gap to recover'
    )
  return ''


def _recovered(curve: CallCurve, quality: np.ndarray) -> np.ndarray:
  weak, strong = curve.quality_P[0], curve.quality_P[-1]
  return (quality - weak) / (strong - weak)


def _bad_range(cheapest: float, lo: float, hi: float) -> str:
  if not lo < hi:
    return f'the costs {lo:.6g} and {hi:.6g} span no range'
  # A share of a sum may miss the cheapest point by rounding.
  if lo < cheapest and not np.isclose(lo, cheapest, rtol=1e-9, atol=0):
    return f'nothing costs {lo:.6g}: the cheapest point is {cheapest:.6g}'
  return ''


def _area(
  cost_P: np.ndarray, quality_P: np.ndarray, lo: float, hi: float
) -> float:
  """Integral from lo to hi of the polyline, flat beyond its ends."""
  inside_P = cost_P[(cost_P > lo) & (cost_P < hi)]
  at = np.concatenate([[lo], inside_P, [hi]])
  return _integrate(at, np.interp(at, cost_P, quality_P))


def _integrate(x_P: np.ndarray, y_P: np.ndarray) -> float:
  return float((np.diff(x_P) * (y_P[1:] + y_P[:-1])).sum() / 2)
