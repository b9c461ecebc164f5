"""R² by category and arm against scikit-learn and loops over rows."""

import statistics

import numpy as np
import pytest
from sklearn import metrics

from erp_jax.core import resample
from erp_jax.probe import decomposition, explained

_BOOTSTRAP = resample.BootstrapConfig(num_draws=200, seed=5)
_CATEGORY_N = np.array(['a', 'b', 'b'] * 20)


def _samples(seed=0, num=60, k=4, arms=3):
  rng = np.random.default_rng(seed)
  er_NM = rng.normal(size=(num, 1)) + 0.5 * rng.normal(size=(num, arms)) + 10
  reward_NKM = er_NM[:, None] + 0.8 * rng.normal(size=(num, k, arms))
  reward_NKM[rng.random(reward_NKM.shape) < 0.2] = np.nan
  reward_NKM[4, :, -1] = np.nan
  return reward_NKM, er_NM + 0.4 * rng.normal(size=er_NM.shape)


def _counts():
  return resample.draw_counts(60, _BOOTSTRAP)


def _cell(samples):
  """(mean, variance of the mean) of the finite numbers; None without two."""
  kept = [x for x in samples.tolist() if np.isfinite(x)]
  if not kept:
    return None
  return statistics.fmean(kept), (
    statistics.variance(kept) / len(kept) if len(kept) > 1 else None
  )


def test_r2_and_ceilings_are_those_of_each_subset():
  reward_NKM, prediction_NM = _samples()
  truth = explained.Truth.of_samples(reward_NKM)
  found = explained.score(truth, prediction_NM, _CATEGORY_N, _counts)
  assert list(found) == [None, 'a', 'b']
  counts_QN = np.concatenate(list(_counts())).astype(int)
  for category, row in found.items():
    for m, score in enumerate(row):
      all_cells = [_cell(samples) for samples in reward_NKM[:, :, m]]
      pooled = statistics.fmean(
        variance * np.isfinite(reward_NKM[n, :, m]).sum()
        for n, (_, variance) in (
          (n, c) for n, c in enumerate(all_cells) if c and c[1] is not None
        )
      )
      rows = [
        n
        for n in range(60)
        if category in (None, _CATEGORY_N[n]) and all_cells[n]
      ]
      mean = {n: all_cells[n][0] for n in rows}
      noise = {
        n: pooled if all_cells[n][1] is None else all_cells[n][1] for n in rows
      }

      def values(kept, m=m, mean=mean, noise=noise):
        truth_n = [mean[n] for n in kept]
        spread = statistics.pvariance(truth_n)
        return (
          metrics.r2_score(truth_n, prediction_NM[kept, m]),
          1 - statistics.fmean(noise[n] for n in kept) / spread,
        )

      r2, ceiling = values(rows)
      assert score.num_prompts == len(rows)
      assert score.r2['mean'] == pytest.approx(r2, abs=1e-10)
      assert score.ceiling.value == pytest.approx(ceiling, abs=1e-10)
      draws = np.array(
        [
          values([n for n in rows for _ in range(counts_N[n])])
          for counts_N in counts_QN
        ]
      )
      share = draws[:, 0] / draws[:, 1]
      for leaf, part in ((score.r2, draws[:, 0]), (score.share, share)):
        lo, hi = np.quantile(part, [0.025, 0.975])
        if leaf is score.share and not score.ceiling.can_divide:
          assert leaf == resample.undefined()
          continue
        assert [leaf['lo'], leaf['hi']] == pytest.approx([lo, hi], abs=1e-9)
      if score.ceiling.can_divide:
        assert score.share['mean'] == pytest.approx(r2 / ceiling)
  assert any(s.ceiling.can_divide for row in found.values() for s in row)


@pytest.mark.parametrize('baseline', explained.BASELINES)
def test_each_baseline_is_a_loop(baseline):
  reward_NKM, prediction_NM = _samples()
  truth = explained.Truth.of_samples(reward_NKM)
  rng = np.random.default_rng(3)
  train_NM = rng.normal(size=(8, 3)) + 9
  train_NM[2, 0] = np.nan
  train_category_N = np.array(['a', 'a', 'b', 'b', 'b', 'a', 'b', 'b'])
  found = explained.score(
    *(truth, prediction_NM, _CATEGORY_N, _counts, baseline),
    (train_NM, train_category_N),
  )
  first_N = next(_counts())[0].astype(int)
  for category, row in found.items():
    for m, score in enumerate(row):
      for index, times_N in enumerate([np.ones(60, int), first_N]):
        rows = np.repeat(np.arange(60), times_N)
        rows = rows[np.isfinite(truth.mean_NM[rows, m])]
        every = truth.mean_NM[rows, m]
        if category is not None:
          rows = rows[_CATEGORY_N[rows] == category]
        own = truth.mean_NM[rows, m]
        train = train_NM[
          [category in (None, c) for c in train_category_N.tolist()], m
        ]
        about = {
          'test_mean': own.mean(),
          'train_mean': np.nanmean(train),
          'global_mean': every.mean(),
        }[baseline]
        spread = sum((own - about) ** 2)
        r2 = 1 - sum((own - prediction_NM[rows, m]) ** 2) / spread
        ceiling = 1 - sum(truth.noise_NM[rows, m]) / spread
        value = score.draw_Q[0] if index else score.r2['mean']
        draw = score.ceiling.draw_Q[0] if index else score.ceiling.value
        assert value == pytest.approx(r2, abs=1e-10)
        assert draw == pytest.approx(ceiling, abs=1e-10)


def test_contrasts_are_those_of_the_decomposition():
  reward_NKM, prediction_NM = _samples()
  truth = explained.Truth.of_samples(reward_NKM)
  arms, together = explained.score_contrasts(truth, prediction_NM, _counts)
  r2_M, pooled = decomposition.contrast_r2(truth.mean_NM, prediction_NM)
  np.testing.assert_allclose([a.r2['mean'] for a in arms], r2_M)
  assert together.r2['mean'] == pytest.approx(pooled)
  counts_QN = np.concatenate(list(_counts())).astype(int)
  draws = []
  for counts_N in counts_QN:
    rows = np.repeat(np.arange(60), counts_N)
    draws.append(
      decomposition.contrast_r2(truth.mean_NM[rows], prediction_NM[rows])[1]
    )
  np.testing.assert_allclose(together.draw_Q, draws)
  expected = np.quantile(draws, [0.025, 0.975])
  np.testing.assert_allclose([together.r2['lo'], together.r2['hi']], expected)


def test_draws_of_the_ceiling_of_all_contrasts():
  reward_NKM, prediction_NM = _samples()
  truth = explained.Truth.of_samples(reward_NKM)
  _, together = explained.score_contrasts(truth, prediction_NM, _counts)
  contrast = truth.contrasts()
  counts_QN = np.concatenate([np.ones((1, 60)), *_counts()]).astype(int)
  values = []
  for counts_N in counts_QN:
    rows = np.repeat(np.arange(60), counts_N)
    spread = noise = 0.0
    for m in range(3):
      kept = [n for n in rows if np.isfinite(contrast.mean_NM[n, m])]
      column = contrast.mean_NM[kept, m]
      spread += sum((column - column.mean()) ** 2)
      noise += sum(contrast.noise_NM[kept, m])
    values.append(1 - noise / spread)
  found = together.ceiling
  assert found.value == pytest.approx(values[0])
  np.testing.assert_allclose(found.draw_Q, values[1:])
  expected = np.quantile(values[1:], [0.025, 0.975])
  np.testing.assert_allclose([found.lo, found.hi], expected)


def test_the_ceiling_of_all_contrasts_is_what_their_truth_reaches():
  rng = np.random.default_rng(1)
  scale_M = np.array([0.1, 0.5, 1.0])
  er_NM = rng.normal(size=(30_000, 1)) + scale_M * rng.normal(size=(30_000, 3))
  reward_NKM = er_NM[:, None] + rng.normal(size=(30_000, 4, 3))
  truth = explained.Truth.of_samples(reward_NKM)
  arms, together = explained.score_contrasts(truth, er_NM)
  assert together.r2['mean'] == pytest.approx(together.ceiling.value, abs=0.01)
  # Var of contrasts, summed over arms: centred, and noise 1/4 each.
  signal = (scale_M**2).sum() * 2 / 3
  assert together.ceiling.value == pytest.approx(
    signal / (signal + 0.5), abs=0.01
  )
  assert len({round(arm.ceiling.value, 2) for arm in arms}) == 3


def test_what_is_common_to_the_arms_moves_no_contrast():
  reward_NKM, prediction_NM = _samples()
  shift_N = np.random.default_rng(2).normal(size=60) * 5
  scores = []
  for shift in (0 * shift_N, shift_N):
    truth = explained.Truth.of_samples(reward_NKM + shift[:, None, None])
    scores.append(
      (
        explained.score_contrasts(truth, prediction_NM, _counts),
        explained.score(truth, prediction_NM, _CATEGORY_N)[None],
      )
    )
  (plain, plain_rows), (moved, moved_rows) = scores
  for a, b in zip([*plain[0], plain[1]], [*moved[0], moved[1]], strict=True):
    np.testing.assert_allclose(a.draw_Q, b.draw_Q, atol=1e-9)
    assert a.r2['mean'] == pytest.approx(b.r2['mean'])
    assert a.ceiling.value == pytest.approx(b.ceiling.value)
  assert abs(plain_rows[0].r2['mean'] - moved_rows[0].r2['mean']) > 0.1


def test_the_mean_over_arms_is_paired():
  reward_NKM, prediction_NM = _samples()
  truth = explained.Truth.of_samples(reward_NKM)
  row = explained.score(truth, prediction_NM, _CATEGORY_N, _counts)['b']
  mean = explained.mean_of(row)
  assert mean['mean'] == pytest.approx(np.mean([s.r2['mean'] for s in row]))
  lo, hi = np.quantile(np.mean([s.draw_Q for s in row], 0), [0.025, 0.975])
  assert (mean['lo'], mean['hi']) == pytest.approx((lo, hi))
  widths = [s.r2['hi'] - s.r2['lo'] for s in row]
  assert hi - lo < np.mean(widths)


def test_what_is_undefined_has_its_reason():
  reward_NKM, prediction_NM = _samples()
  reward_NKM[:, :, 0] = 0.1
  reward_NKM[_CATEGORY_N == 'a', :, 1] = np.nan
  reward_NKM[:, 1:, 2] = np.nan
  truth = explained.Truth.of_samples(reward_NKM)
  for baseline in explained.BASELINES:
    train = np.zeros((3, 3)) + np.arange(3)[:, None], np.array(['b'] * 3)
    found = explained.score(
      *(truth, prediction_NM, _CATEGORY_N, _counts, baseline, train)
    )
    assert 'equal' in found[None][0].reason
    assert found[None][0].r2 == resample.undefined()
    assert 'equal' in found[None][0].ceiling.reason
    assert found['a'][1].reason.startswith('0 prompts have a reward')
    single = found['a'][2]
    assert 'K = 1' in single.ceiling.reason or single.reason
    assert single.share == resample.undefined()
    absent = 'no training prompt' in single.reason
    assert absent == (baseline == 'train_mean')
    assert not found['b'][2].reason and found['b'][2].ceiling.reason
    assert explained.mean_of(found[None]) == resample.undefined()
    as_metrics = found[None][0].as_metrics()
    assert as_metrics['mean'] is None and 'equal' in as_metrics['reason']
    assert 'reason' not in found['b'][2].as_metrics()


def test_missing_predictions_and_a_ceiling_not_wanted():
  reward_NKM, prediction_NM = _samples()
  prediction_NM[:, 1] = np.nan
  truth = explained.Truth.of_samples(reward_NKM)
  found = explained.score(
    *(truth, prediction_NM, _CATEGORY_N), with_ceiling=False
  )
  assert 'no prediction' in found[None][1].reason
  assert not found[None][0].reason
  assert found[None][0].ceiling.reason == 'switched off'
  assert np.isnan(found[None][0].ceiling.value)


def test_one_arm_has_no_contrasts():
  reward_NKM, prediction_NM = _samples(arms=1)
  truth = explained.Truth.of_samples(reward_NKM[:, :, :1])
  arms, together = explained.score_contrasts(truth, prediction_NM[:, :1])
  assert (
    together.reason
    == arms[0].reason
    == ('one arm: there is nothing to compare')
  )
  assert together.r2 == resample.undefined()


def test_noise_is_not_divided_by_noise():
  """Where all is noise the ceiling is about 0, and the share means nothing."""
  rng = np.random.default_rng(4)
  truth = explained.Truth.of_samples(rng.normal(size=(60, 4, 2)))
  found = explained.score(truth, rng.normal(size=(60, 2)), _CATEGORY_N, _counts)
  for score in found[None]:
    assert score.ceiling.value < 0.4 and score.ceiling.lo < 0.05
    assert score.share == resample.undefined()
    assert score.r2['mean'] is not None
