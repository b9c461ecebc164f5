import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import benchmarks


@pytest.fixture
def curve():
  """Gains of 0, 1, -1, 1 in the order of the scores: weak .25, strong .5."""
  weak_N = np.array([0.0, 1.0, 0.0, 0.0])
  strong_N = np.array([1.0, 0.0, 1.0, 0.0])
  score_N = np.array([0.8, 0.5, 0.1, 0.9])
  return benchmarks.call_curve(score_N, weak_N, strong_N)


def test_routellm_by_hand(curve):
  np.testing.assert_allclose(curve.share_P, [0, 0.25, 0.5, 0.75, 1])
  np.testing.assert_allclose(curve.quality_P, [0.25, 0.25, 0.5, 0.25, 0.5])
  # PGR: 0, 0, 1, 0, 1.
  assert benchmarks.pgr(curve, 0.5).value == pytest.approx(1)
  assert benchmarks.pgr(curve, 0.375).value == pytest.approx(0.5)
  assert benchmarks.pgr(curve, 0.875).value == pytest.approx(0.5)
  # Trapezoids of width 1/4: 0 + 1/2 + 1/2 + 1/2.
  assert benchmarks.apgr(curve).value == pytest.approx(1.5 / 4)
  assert benchmarks.cpt(curve, 0.0).value == 0
  assert benchmarks.cpt(curve, 0.5).value == pytest.approx(0.375)
  assert benchmarks.cpt(curve, 0.8).value == pytest.approx(0.45)
  assert benchmarks.cpt(curve, 1.0).value == pytest.approx(0.5)


def test_recovering_more_than_the_gap_counts():
  # Strong is better on one prompt, worse on another, much better on a third.
  curve = benchmarks.call_curve(
    np.array([3.0, 2.0, 1.0]), np.array([0.0, 0.0, 1.0]), np.array([2.0, 1, 0])
  )
  # PGR: 0, 1, 1.5, 1.
  assert benchmarks.pgr(curve, 2 / 3).value == pytest.approx(1.5)
  assert benchmarks.apgr(curve).value == pytest.approx((0.5 + 1.25 + 1.25) / 3)
  assert benchmarks.cpt(curve, 1.0).value == pytest.approx(1 / 3)


def test_the_call_threshold_is_the_first_crossing():
  strong_N = np.array([0.6, -0.4, 0.8])
  curve = benchmarks.call_curve(np.array([3.0, 2, 1]), np.zeros(3), strong_N)
  # PGR: 0, .6, .2, 1.
  assert benchmarks.cpt(curve, 0.5).value == pytest.approx(0.5 / 0.6 / 3)
  assert benchmarks.cpt(curve, 0.8).value == pytest.approx((2 + 0.6 / 0.8) / 3)


def test_prompts_of_equal_score_change_side_together():
  weak_N, strong_N = np.zeros(4), np.array([1.0, 0.0, 0.0, 1.0])
  score_N = np.array([0.2, 0.7, 0.2, 0.2])
  share_P, quality_P = benchmarks.call_curve(score_N, weak_N, strong_N)
  np.testing.assert_allclose(share_P, [0, 0.25, 1])
  np.testing.assert_allclose(quality_P, [0, 0, 0.5])
  constant = benchmarks.call_curve(np.zeros(4), weak_N, strong_N)
  assert benchmarks.apgr(constant).value == pytest.approx(0.5)
  assert benchmarks.cpt(constant, 0.3).value == pytest.approx(0.3)


def test_the_curve_is_what_thresholds_give():
  rng = np.random.default_rng(0)
  score_N, weak_N, strong_N = rng.normal(size=(3, 50))
  score_N = np.round(score_N, 1)
  share_P, quality_P = benchmarks.call_curve(score_N, weak_N, strong_N)
  thresholds = [np.inf, *np.unique(score_N)[::-1]]
  assert len(share_P) == len(thresholds) < 51
  for p, threshold in enumerate(thresholds):
    routed_N = np.where(score_N >= threshold, strong_N, weak_N)
    assert share_P[p] == pytest.approx((score_N >= threshold).mean())
    assert quality_P[p] == pytest.approx(routed_N.mean())


@pytest.mark.parametrize(
  'strong', [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2], [0, 0, 0]]
)
def test_without_a_gap_there_is_nothing_to_recover(strong):
  curve = benchmarks.call_curve(
    np.arange(3.0), np.array([0.1, 0.2, 0.3]), np.array(strong)
  )
  for metric in (
    benchmarks.pgr(curve, 0.5),
    benchmarks.apgr(curve),
    benchmarks.cpt(curve, 0.5),
  ):
    assert np.isnan(metric.value) and 'no gap' in metric.reason


# Corners (1, 2), (2, 4), (4, 5); (3, 4.2) is below the line, (5, 4.8) worse.
_COST = np.array([5.0, 2.0, 3.0, 1.0, 4.0, 1.0])
_QUALITY = np.array([4.8, 4.0, 4.2, 2.0, 5.0, 1.5])


def test_aiq_by_hand():
  corners = benchmarks.upper_hull(_COST, _QUALITY)
  np.testing.assert_allclose(corners, [[1, 2, 4], [2, 4, 5]])
  # (2 + 4) / 2 * 1 + (4 + 5) / 2 * 2 + 5 * 1 over a range of 4.
  assert benchmarks.aiq(_COST, _QUALITY, 1, 5).value == pytest.approx(17 / 4)
  # From 1.5 to 3: (3 + 4) / 2 * .5 + (4 + 4.5) / 2 * 1.
  part = benchmarks.aiq(_COST, _QUALITY, 1.5, 3)
  assert part.value == pytest.approx(6 / 1.5)


def test_the_hull_is_the_least_concave_function_above():
  rng = np.random.default_rng(1)
  cost_P, quality_P = rng.integers(0, 12, (2, 40)).astype(float)
  corner_cost, corner_quality = benchmarks.upper_hull(cost_P, quality_P)
  for at in np.linspace(cost_P.min(), cost_P.max(), 45):
    # The best lottery between two points that costs at most this.
    best = -np.inf
    for c0, q0 in zip(cost_P, quality_P, strict=True):
      for c1, q1 in zip(cost_P, quality_P, strict=True):
        if c0 <= at:
          frac = 1.0 if c1 <= at else (at - c0) / (c1 - c0)
          best = max(best, q0, q0 + frac * (q1 - q0))
    assert np.interp(at, corner_cost, corner_quality) == pytest.approx(best)


def test_one_point_is_flat():
  point = np.array([2.0]), np.array([3.0])
  assert benchmarks.aiq(*point, 2, 7).value == pytest.approx(3)


def test_hypervolume_by_hand():
  # Down to (4.5, 3): 1 from cost 2 to 3, 1.2 to 4, and 2 for the last half.
  result = benchmarks.hypervolume(_COST, _QUALITY, 4.5, 3)
  assert result == pytest.approx(1 + 1.2 + 1)
  assert benchmarks.hypervolume(_COST, _QUALITY, 1.5, 3) == 0
  # A worse point behind adds nothing.
  more = benchmarks.hypervolume(
    np.append(_COST, 3.5), np.append(_QUALITY, 3.1), 4.5, 3
  )
  assert more == pytest.approx(result)


def test_hypervolume_is_the_share_of_places_dominated():
  rng = np.random.default_rng(2)
  cost_P, quality_P = rng.random((2, 12))
  place = (np.arange(400) + 0.5) / 400
  better = (cost_P[:, None, None] <= 0.9 * place[:, None]) & (
    quality_P[:, None, None] >= 0.2 + 0.8 * place
  )
  result = benchmarks.hypervolume(cost_P, quality_P, 0.9, 0.2)
  assert result == pytest.approx(better.any(axis=0).mean() * 0.72, abs=0.003)


@pytest.mark.parametrize(
  'lo, hi, reason',
  [(2.0, 2.0, 'span no range'), (0.5, 5.0, 'nothing costs 0.5')],
)
def test_a_range_without_points_has_a_reason(lo, hi, reason):
  metric = benchmarks.aiq(_COST, _QUALITY, lo, hi)
  assert np.isnan(metric.value) and reason in metric.reason


def test_a_range_may_miss_the_cheapest_point_by_rounding():
  cost_P = np.array([0.3, 1.0])
  result = benchmarks.aiq(cost_P, np.array([1.0, 2.0]), 0.3 - 1e-16, 1.0)
  assert result.value == pytest.approx(1.5)


def test_input_errors():
  with pytest.raises(errors.UserError, match='PGR of 80'):
    benchmarks.cpt(benchmarks.call_curve(*np.eye(3)), 80)
  with pytest.raises(errors.UserError, match='needs points'):
    benchmarks.upper_hull(np.zeros(0), np.zeros(0))
  with pytest.raises(errors.UserError, match='needs points'):
    benchmarks.hypervolume(np.array([np.nan]), np.ones(1), 1, 0)
  with pytest.raises(errors.UserError, match='not finite'):
    benchmarks.call_curve(np.zeros(2), np.array([0.0, np.nan]), np.ones(2))
