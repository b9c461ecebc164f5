"""Win rates by gap against loops, and what chance explains against scipy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from erp_jax.core import resample
from erp_jax.probe import pairwise
from erp_jax.route import proposition, winprob

_CFG = resample.BootstrapConfig(num_draws=100)


def _evidence(num=30, size=4, seed=0, **changes):
  rng = np.random.default_rng(seed)
  er_NM = rng.standard_normal((num, 3))
  sd_N = rng.uniform(0.5, 2.0, num)
  noise_NKM = rng.standard_normal((num, size, 3))
  fields = dict(
    reward_NKM=er_NM[:, None] + sd_N[:, None, None] * noise_NKM,
    prediction_NM=er_NM + 0.3 * rng.standard_normal((num, 3)),
    er_NM=er_NM,
    noise_sd_N=sd_N,
    proxy=float('nan'),
  )
  return proposition.Evidence(**fields | changes)


def _loop(value_M, reward_KM, i, j):
  """(gap, strict, half ties) of the pair, the higher value first."""
  if value_M[i] < value_M[j]:
    i, j = j, i
  ones = reward_KM[np.isfinite(reward_KM[:, i]), i]
  zeros = reward_KM[np.isfinite(reward_KM[:, j]), j]
  choices = list(itertools.product(ones, zeros))
  strict = np.mean([a > b for a, b in choices])
  ties = np.mean([a == b for a, b in choices])
  return value_M[i] - value_M[j], strict, strict + ties / 2


@pytest.mark.parametrize('gap', ['samples', 'known', 'predicted'])
def test_rates_are_those_of_a_loop(gap):
  evidence = _evidence()
  evidence.reward_NKM[:] = np.round(evidence.reward_NKM)
  evidence.reward_NKM[::4, 1:, 1] = np.nan
  evidence.reward_NKM[3, :, 2] = np.nan
  value_NM = {
    'samples': [
      [column[np.isfinite(column)].mean() if np.isfinite(column).any() else
       np.nan for column in reward_KM.T]
      for reward_KM in evidence.reward_NKM
    ],
    'known': evidence.er_NM,
    'predicted': evidence.prediction_NM,
  }[gap]  # fmt: skip
  found = proposition.rates(evidence, gap)
  for n, (index, (i, j)) in itertools.product(
    range(30), enumerate(pairwise.arm_pairs(3))
  ):
    if n == 3 and 2 in (i, j):
      assert np.isnan(found.gap_NI[n, index])
      continue
    reward_KM = evidence.reward_NKM[n]
    expected = _loop(np.array(value_NM)[n], reward_KM, i, j)
    got = [array[n, index] for array in found[:3]]
    assert got == pytest.approx(expected)
    nums = np.isfinite(reward_KM).sum(axis=0)
    assert found.num_NI[n, index] == min(nums[i], nums[j])
    if nums.min() > 1:
      var_M = np.nanvar(reward_KM, axis=0, ddof=1)
      z = expected[0] / np.sqrt(var_M[i] + var_M[j])
      assert found.plug_in_NI[n, index] == pytest.approx(stats.norm.cdf(z))
      bound = 1 - np.exp(-(z**2) / 2)
      assert found.bounds['variance'][n, index] == pytest.approx(bound)
    if gap == 'known':
      sd = evidence.noise_sd_N[n]
      bound = 1 - np.exp(-((expected[0] / sd) ** 2) / 4)
      assert found.bounds['known'][n, index] == pytest.approx(bound)
      bound = 1 - np.exp(-((expected[0] / sd) ** 2) / 8)
      assert found.bounds['known_any'][n, index] == pytest.approx(bound)
  names = {'variance', 'variance_any'}
  assert set(found.bounds) == names | (
    {'known', 'known_any'} if gap == 'known' else set()
  )


def test_the_other_half_is_of_other_samples_in_either_direction():
  evidence = _evidence(size=6)
  found = proposition.rates(evidence, 'other_half')
  assert found.gap_NI.shape == (30, 6)
  halves = evidence.reward_NKM[:, ::2], evidence.reward_NKM[:, 1::2]
  for n, way, (index, pair) in itertools.product(
    range(30), (0, 1), enumerate(pairwise.arm_pairs(3))
  ):
    value_M = halves[way][n].mean(axis=0)
    expected = _loop(value_M, halves[1 - way][n], *pair)
    got = [array[n, 3 * way + index] for array in found[:3]]
    assert got == pytest.approx(expected)
  assert (found.num_NI == 3).all()
  taken = found.take(np.array([1, 4]))
  np.testing.assert_array_equal(taken.strict_NI, found.strict_NI[:, [1, 4]])
  np.testing.assert_array_equal(
    taken.bounds['variance'], found.bounds['variance'][:, [1, 4]]
  )


def test_of_the_same_samples_hoeffdings_bound_cannot_fail():
  """They are a population of their own; of other samples it can."""
  rng = np.random.default_rng(4)
  chance_NM = rng.uniform(size=(400, 3))
  reward_NKM = (rng.uniform(size=(400, 4, 3)) < chance_NM[:, None]) * 1.0
  evidence = _evidence(
    reward_NKM=reward_NKM, proxy=winprob.hoeffding_proxy(0.0, 1.0)
  )
  same = proposition.summarise(proposition.rates(evidence, 'samples'), _CFG)
  assert same['hoeffding below']['mean'] == 0
  other = proposition.summarise(proposition.rates(evidence, 'other_half'), _CFG)
  assert other['hoeffding below']['mean'] > 0.01
  assert other['hoeffding_any below']['mean'] < other['hoeffding below']['mean']


def test_beyond_chance_is_rare_at_the_bound_and_sure_far_below():
  num = 12
  for bound in (0.05, 0.3, 0.5, 0.8, 0.97):
    won = np.arange(num + 1)
    flagged = proposition.beyond_chance(won / num, np.array(bound), num)
    mass = stats.binom.pmf(won, num, bound)
    assert mass[flagged].sum() <= 0.05
    assert not flagged[won / num >= bound].any()
  assert proposition.beyond_chance(np.array(0.1), np.array(0.8), 12)
  # One sample refutes a bound of .96, but not one of .94: 5 %.
  flagged = proposition.beyond_chance(np.zeros(2), np.array([0.96, 0.94]), 1)
  assert flagged.tolist() == [True, False]
  ends = proposition.beyond_chance(np.array([0, 1.0]), np.array([0, 1.0]), 9)
  assert ends.tolist() == [False, False]


def test_summaries_are_means_over_prompts_and_pairs():
  evidence = _evidence()
  evidence.reward_NKM[:] = np.round(evidence.reward_NKM)
  evidence.reward_NKM[5, :, 0] = np.nan
  found = proposition.rates(evidence, 'known')
  summary = proposition.summarise(found, _CFG)
  rows = [
    (n, i) for n in range(30) for i in range(3)
    if np.isfinite(found.gap_NI[n, i])
  ]  # fmt: skip
  assert len(rows) == 88
  pick = lambda array: np.array([array[n, i] for n, i in rows])
  strict, half, plug_in = map(pick, found[1:4])
  bound = pick(found.bounds['known'])
  expected = {
    'tied': 2 * (half - strict),
    'strict_error': np.abs(plug_in - strict),
    'half_ties_error': np.abs(plug_in - half),
    'strict_bias': plug_in - strict,
    'half_ties_bias': plug_in - half,
    'known below': strict < bound,
    'known margin': strict - bound,
  }
  for name, values in expected.items():
    assert summary[name]['mean'] == pytest.approx(values.mean()), name
  counts_QN = np.concatenate(list(resample.draw_counts(30, _CFG)))
  weights = [[count_N[n] for n, _ in rows] for count_N in counts_QN]
  draws = [np.average(strict - bound, weights=w) for w in weights]
  lo, hi = np.quantile(draws, [0.025, 0.975])
  leaf = summary['known margin']
  assert (leaf['lo'], leaf['hi']) == pytest.approx((lo, hi))


def test_groups_hold_like_gaps_and_every_prompt_once():
  found = proposition.rates(_evidence(num=50), 'known')
  groups = proposition.groups(found, 5, _CFG)
  assert [group['rows'] for group in groups] == [30] * 5
  order = np.argsort(found.gap_NI.ravel())
  errors = []
  for group, part in zip(groups, np.array_split(order, 5), strict=True):
    for name, array in (
      ('gap', found.gap_NI),
      ('strict', found.strict_NI),
      ('plug_in', found.plug_in_NI),
      ('known', found.bounds['known']),
    ):
      expected = array.ravel()[part].mean()
      assert group[name]['mean'] == pytest.approx(expected)
    off = found.plug_in_NI - found.half_ties_NI
    errors.append(abs(off.ravel()[part].mean()))
  found_error = proposition.binned_error(groups, 'half_ties')
  assert found_error == pytest.approx(np.mean(errors))


def test_equal_gaps_stay_in_one_group():
  evidence = _evidence()
  evidence.prediction_NM[:] = [0.0, 0.0, 1.0]
  found = proposition.rates(evidence, 'predicted')
  groups = proposition.groups(found, 6, _CFG)
  assert [(g['gap']['mean'], g['rows']) for g in groups] == [(0, 30), (1, 60)]


def test_what_is_missing_has_a_reason():
  evidence = _evidence(size=1, er_NM=np.full((30, 3), np.nan))
  assert 'simulated' in evidence.missing('known')
  assert 'K = 1' in evidence.missing('samples')
  assert 'K = 1' in evidence.missing('other_half')
  assert not evidence.missing('predicted')
  with pytest.raises(ValueError, match='K = 1'):
    proposition.rates(evidence, 'samples')
  found = proposition.rates(evidence, 'predicted')
  assert 'K = 1' in found.reason and not found.bounds
  assert np.isin(found.strict_NI, (0.0, 1.0)).all()
  summary = proposition.summarise(found, _CFG)
  assert summary['strict_error'] == resample.undefined()
  assert summary['tied']['mean'] == 0
  groups = proposition.groups(found, 3, _CFG)
  assert np.isnan(proposition.binned_error(groups, 'strict'))
  empty = _evidence(reward_NKM=np.full((30, 2, 3), np.nan))
  found = proposition.rates(empty, 'known')
  assert proposition.groups(found, 3, _CFG) == []
  assert proposition.summarise(found, _CFG)['tied'] == resample.undefined()
  assert np.isnan(proposition.binned_error([], 'strict'))
