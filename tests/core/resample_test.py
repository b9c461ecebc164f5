import math

import numpy as np
import pytest
from scipy import special, stats

from erp_jax.core import errors, resample


def test_draws_are_rows_drawn_one_by_one():
  cfg = resample.BootstrapConfig(num_draws=230, seed=7)
  counts_QN = np.concatenate([*resample.draw_counts(13, cfg)])
  assert counts_QN.shape == (230, 13)
  rng = np.random.default_rng(7)
  for counts_N in counts_QN:
    expected_N = np.zeros(13)
    for row in rng.integers(13, size=13):
      expected_N[row] += 1
    np.testing.assert_array_equal(counts_N, expected_N)


def test_the_interval_holds_95_percent_of_the_finite_draws():
  draws_Q = np.append(np.arange(1001.0), [np.nan, np.inf])
  leaf = resample.interval(3, draws_Q)
  assert leaf == pytest.approx({'mean': 3.0, 'lo': 25.0, 'hi': 975.0})
  assert type(leaf['mean']) is type(leaf['lo']) is float


def test_without_a_value_or_draws_there_is_no_interval():
  nothing = {'mean': None, 'lo': None, 'hi': None}
  assert resample.interval(math.nan, np.ones(3)) == nothing
  assert resample.interval(1.0, np.full(3, np.nan)) == nothing
  assert resample.interval(1.0, np.zeros(0)) == nothing
  assert all(math.isnan(bound) for bound in resample.percentiles(np.zeros(0)))


def test_the_interval_of_a_share_is_reflected_on_the_scale_of_logits():
  rng = np.random.default_rng(2)
  draws_Q = special.expit(2 + 0.5 * rng.normal(size=999))
  leaf = resample.share_interval(0.9, draws_Q)
  lo, hi = np.quantile(special.logit(draws_Q), [0.025, 0.975])
  value = special.logit(0.9)
  # Quantiles of logits and logits of quantiles differ between two draws.
  assert leaf['lo'] == pytest.approx(special.expit(2 * value - hi), rel=1e-3)
  assert leaf['hi'] == pytest.approx(special.expit(2 * value - lo), rel=1e-3)
  assert leaf['mean'] == 0.9
  missing = resample.share_interval(math.nan, draws_Q)
  assert missing == resample.undefined()


@pytest.mark.parametrize(
  'point, draws', [(1.0, [0.8, 1.0]), (0.9, [0.8, 1.0]), (0.1, [0.0, 0.4])]
)
def test_a_share_at_an_end_has_the_plain_interval(point, draws):
  draws_Q = np.repeat(draws, 50)
  assert resample.share_interval(point, draws_Q) == resample.interval(
    point, draws_Q
  )


@pytest.mark.parametrize('prob', [1e-6, 0.025, 0.5, 0.6, 0.9, 0.975, 0.9995])
def test_t_quantiles_are_scipys(prob: float):
  for df in (*range(1, 41), 99, 100, 999, 1000):
    assert resample.t_quantile(prob, df) == pytest.approx(
      stats.t.ppf(prob, df), rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize(
  'prob, df, match',
  [(0.0, 3, 'prob is 0'), (1.0, 3, 'prob is 1'), (0.9, 0, 'df is 0')],
)
def test_t_quantiles_that_are_none_are_refused(prob, df, match):
  with pytest.raises(ValueError, match=match):
    resample.t_quantile(prob, df)


def test_split_correction_by_hand():
  # Mean 2, variance 1; t(.975, 2) = 4.302653; test half as large as training.
  leaf = resample.split_corrected(np.array([1.0, np.nan, 2.0, 3.0]), 0.5)
  half = 4.302652729911275 * math.sqrt(1 / 3 + 1 / 2)
  assert leaf['mean'] == 2 and leaf['sd'] == 1 and leaf['n_splits'] == 3
  assert leaf['lo'] == pytest.approx(2 - half)
  assert leaf['hi'] == pytest.approx(2 + half)
  narrow = resample.split_corrected(np.array([1.0, 2, 3]), 0.5, level=0.5)
  assert narrow['hi'] - 2 == pytest.approx(
    stats.t.ppf(0.75, 2) * math.sqrt(5 / 6)
  )


def test_one_split_has_no_interval_and_none_no_mean():
  one = resample.split_corrected(np.array([2.5]), 1.0)
  assert one == dict(mean=2.5, lo=None, hi=None, sd=None, n_splits=1)
  none = resample.split_corrected(np.array([np.nan]), 1.0)
  assert none == dict(mean=None, lo=None, hi=None, sd=None, n_splits=0)
  with pytest.raises(ValueError, match='test_over_train is 0'):
    resample.split_corrected(np.ones(3), 0.0)


def test_split_correction_covers_where_the_naive_interval_does_not():
  """Splits of one sample, of which the parameter is the mean of the test half.

  Test halves of the same 60 rows: their means are correlated, so 20 of them
  say little more than one.
  """
  rng = np.random.default_rng(0)
  inside = naive = 0
  for _ in range(300):
    row_N = rng.normal(size=60)
    value_J = np.array(
      [row_N[rng.permutation(60)[:30]].mean() for _ in range(20)]
    )
    leaf = resample.split_corrected(value_J, 1.0)
    inside += leaf['lo'] <= 0 <= leaf['hi']
    naive += abs(leaf['mean']) <= 1.96 * leaf['sd'] / math.sqrt(20)
  assert inside > 270  # Binomial(300, .95) is 285 +- 4; it need not be exact.
  assert naive < 200


def test_config_errors_name_the_value():
  with pytest.raises(errors.UserError, match='bootstrap.num_draws must .* 10'):
    resample.BootstrapConfig(num_draws=10)


def test_what_is_not_finite_is_null():
  assert resample.defined(np.float32(0.5)) == 0.5
  assert type(resample.defined(np.float32(0.5))) is float
  for value in (math.nan, math.inf, -np.inf):
    assert resample.defined(value) is None
