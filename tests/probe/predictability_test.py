"""R² of records, each number against scikit-learn fitted and scored apart."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn import linear_model, metrics

from erp_jax.core import errors, resample
from erp_jax.probe import decomposition, predictability, ridge
from erp_jax.report import experiment

_COMMON = experiment.ExperimentConfig(
  splits=3,
  ridge=ridge.RidgeConfig(beta=0.3),
  bootstrap=resample.BootstrapConfig(num_draws=100),
)


def _evaluate(records, common=_COMMON, **cfg):
  return predictability.evaluate(
    records,
    common.masks(records),
    common.ridge,
    common.bootstrap,
    predictability.PredictabilityConfig(**cfg),
  )


def _mean(reward_NKM):
  """Of the finite samples, one cell at a time."""
  num, _, arms = reward_NKM.shape
  mean_NM = np.full((num, arms), np.nan)
  for n in range(num):
    for m in range(arms):
      kept = [x for x in reward_NKM[n, :, m] if math.isfinite(x)]
      if kept:
        mean_NM[n, m] = math.fsum(kept) / len(kept)
  return mean_NM


def _r2(records, reward_NKM, train_N, alpha=0.3, unit=True, intercept=True):
  """{category or None: r2_M} of scikit-learn's ridge and score."""
  emb_NE = records.emb_NE
  if unit:
    emb_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  mean_NM = _mean(reward_NKM)
  result = {}
  for m in range(mean_NM.shape[1]):
    known_N = np.isfinite(mean_NM[:, m])
    fitted = linear_model.Ridge(alpha=alpha, fit_intercept=intercept)
    fitted.fit(emb_NE[train_N & known_N], mean_NM[train_N & known_N, m])
    for category in (None, 'chat', 'code', 'math'):
      rows_N = ~train_N & known_N
      if category:
        rows_N &= records.category_N == category
      value = metrics.r2_score(
        mean_NM[rows_N, m], fitted.predict(emb_NE[rows_N])
      )
      result.setdefault(category, []).append(value)
  return result


def _values(table):
  return {
    category: [score.r2['mean'] for score in row]
    for category, row in table.items()
  }


def _assert_close(found, expected):
  assert set(found) == set(expected)
  for category, r2_M in expected.items():
    np.testing.assert_allclose(found[category], r2_M, atol=1e-9)


def test_first_split_and_all_splits_are_scikit_learns(make_flagged):
  records = make_flagged()
  found = _evaluate(records)
  assert list(found) == ['judge', 'grm']
  for reward, one in found.items():
    reward_NKM = records.reward_NKM[reward]
    splits = [
      _r2(records, reward_NKM, train_N) for train_N in _COMMON.masks(records)
    ]
    _assert_close(_values(one.scores), splits[0])
    for category in splits[0]:
      value_JM = np.array([split[category] for split in splits])
      value_JM = np.column_stack([value_JM, value_JM.mean(axis=1)])
      for leaf, value_J in zip(
        one.over_splits[category], value_JM.T, strict=True
      ):
        assert leaf['mean'] == pytest.approx(value_J.mean())
        assert leaf['sd'] == pytest.approx(value_J.std(ddof=1))
        # Of 4.3027 standard errors with 2 degrees of freedom; test prompts
        # are as many as training prompts, but for odd categories.
        half = 4.302653 * value_J.std(ddof=1) * math.sqrt(1 / 3 + 1)
        assert leaf['hi'] - leaf['mean'] == pytest.approx(half, rel=0.02)


def test_contrasts_of_all_splits(make_flagged):
  records = make_flagged()
  one = _evaluate(records)['grm']
  mean_NM = _mean(records.reward_NKM['grm'])
  emb_NE = records.emb_NE / 2  # They are of length 2.
  values = []
  for train_N in _COMMON.masks(records):
    fitted = linear_model.Ridge(alpha=0.3).fit(
      emb_NE[train_N], mean_NM[train_N]
    )
    guess_NM = fitted.predict(emb_NE[~train_N])
    r2_M, pooled = decomposition.contrast_r2(mean_NM[~train_N], guess_NM)
    values.append([*r2_M, pooled])
  arms, together = one.contrasts
  np.testing.assert_allclose(
    [s.r2['mean'] for s in [*arms, together]], values[0]
  )
  np.testing.assert_allclose(
    [leaf['mean'] for leaf in one.contrasts_over_splits], np.mean(values, 0)
  )


def test_without_flagged_responses_all_is_fitted_and_scored_again(make_flagged):
  records = make_flagged()
  train_N = next(_COMMON.masks(records))
  found = _evaluate(records, exclude=('cut', 'refusal'))['judge'].without
  sets = [('cut',), ('refusal',), ('cut', 'refusal')]
  assert [one.flags for one in found] == sets
  for one in found:
    reward_NKM = records.reward_NKM['judge'].copy()
    flagged_NKM = np.any([records.flag_NKM[f] for f in one.flags], axis=0)
    reward_NKM[flagged_NKM] = np.nan
    _assert_close(_values(one.scores), _r2(records, reward_NKM, train_N))
    np.testing.assert_allclose(one.share_M, flagged_NKM.mean(axis=(0, 1)))


def test_flags_that_are_not_known_are_said_so(make_flagged):
  flags = {'cut': make_flagged().flag_NKM['cut']}
  found = _evaluate(make_flagged(flag_NKM=flags))['judge'].without
  reasons = {one.flags: one.reason for one in found}
  assert reasons == {
    ('refusal',): 'not known of these records',
    ('empty',): 'not known of these records',
    ('cut',): '',
  }
  assert not _evaluate(make_flagged(), exclude=())['judge'].without


def test_an_arm_with_nothing_left_is_undefined_alone(make_flagged):
  flag_NKM = dict(make_flagged().flag_NKM)
  flag_NKM['cut'] = flag_NKM['cut'].copy()
  flag_NKM['cut'][:, :, 1] = True
  found = _evaluate(make_flagged(flag_NKM=flag_NKM), exclude=('cut',))
  (one,) = found['judge'].without
  assert one.share_M[1] == 1
  assert 'have a reward' in one.scores[None][1].reason
  assert not one.scores[None][0].reason and not one.scores[None][2].reason


def test_the_fits_are_the_readings_of_the_formula(make_flagged):
  records = make_flagged()
  train_N = next(_COMMON.masks(records))
  reward_NKM = records.reward_NKM['judge']
  found = _evaluate(records)['judge'].fits
  num = train_N.sum()
  expected = {
    'sum, unit': {},
    'sum, raw': {'unit': False},
    'mean, unit': {'alpha': 0.3 * num},
    'mean, raw': {'alpha': 0.3 * num, 'unit': False},
    'no intercept': {'intercept': False},
  }
  assert set(found) == set(expected) | {'leave-one-out'}
  for name, how in expected.items():
    values = _r2(records, reward_NKM, train_N, **how)
    _assert_close(_values(found[name]), values)
  loo = ridge.RidgeConfig(beta=0.3, selection='leave_one_out')
  chosen = _evaluate(
    records, dataclasses.replace(_COMMON, ridge=loo), compare_fits=False
  )['judge']
  _assert_close(_values(found['leave-one-out']), _values(chosen.scores))
  assert not chosen.fits
  distinct = {round(table[None][0].r2['mean'], 6) for table in found.values()}
  assert len(distinct) == len(found)


def test_baselines_and_ceilings_are_switches(make_flagged):
  records = make_flagged()
  plain, train, everyone = (
    _evaluate(records, baseline=baseline, exclude=(), compare_fits=False)
    for baseline in ('test_mean', 'train_mean', 'global_mean')
  )
  for table in ('scores', 'over_splits'):
    own, of_train, of_all = (
      getattr(found['grm'], table)['math'][0]
      for found in (plain, train, everyone)
    )
    if table == 'scores':
      own, of_train, of_all = own.r2, of_train.r2, of_all.r2
    # Squares about anything else than one's own mean are larger.
    assert own['mean'] < min(of_train['mean'], of_all['mean'])
    assert of_train['mean'] != of_all['mean']
  assert plain['grm'].scores[None][0].ceiling.value > 0.5
  off = _evaluate(records, ceiling=False)['grm']
  assert off.scores[None][0].ceiling.reason == 'switched off'
  assert off.contrasts[1].ceiling.reason == 'switched off'
  assert off.scores[None][0].r2 == plain['grm'].scores[None][0].r2


def test_what_is_common_to_the_arms_moves_the_prompts_part_alone(make_flagged):
  """Bradley-Terry does not identify it, and a router can do without."""
  records = make_flagged()
  shift_N = 3 * np.random.default_rng(1).normal(size=120)
  moved = make_flagged(
    reward_NKM={
      name: r_NKM + shift_N[:, None, None]
      for name, r_NKM in records.reward_NKM.items()
    },
    er_NM={n: er_NM + shift_N[:, None] for n, er_NM in records.er_NM.items()},
  )
  for reward in records.rewards:
    a, b = (_evaluate(one)[reward] for one in (records, moved))
    for x, y in zip(
      [*a.contrasts[0], a.contrasts[1]],
      [*b.contrasts[0], b.contrasts[1]],
      strict=True,
    ):
      np.testing.assert_allclose(x.draw_Q, y.draw_Q, atol=1e-8)
    for x, y in (
      (a.decomposition, b.decomposition),
      (a.true_decomposition, b.true_decomposition),
    ):
      assert x.interaction == pytest.approx(y.interaction)
      assert x.noise == pytest.approx(y.noise)
      assert x.arm == pytest.approx(y.arm)
      assert y.prompt > x.prompt + 5
    assert b.scores[None][0].r2['mean'] < a.scores[None][0].r2['mean'] - 0.2


def test_known_er_is_split_without_noise(make_flagged):
  records = make_flagged(length=1.0)
  found = _evaluate(records)['judge']
  er_NM = records.er_NM['judge']
  prompt_N, arm_M = er_NM.mean(axis=1), er_NM.mean(axis=0)
  rest_NM = er_NM - prompt_N[:, None] - arm_M + er_NM.mean()
  truth = found.true_decomposition
  interaction = (rest_NM**2).sum() / 119 / 3
  assert truth.prompt == pytest.approx(prompt_N.var(ddof=1))
  assert truth.interaction == pytest.approx(interaction)
  assert truth.arm == pytest.approx(arm_M.var() - interaction / 120)
  assert found.decomposition.interaction == pytest.approx(interaction, abs=0.05)
  assert found.decomposition.noise == pytest.approx(0.25, abs=0.03)
  for part in ('prompt', 'arm', 'interaction', 'noise'):
    lo, hi = found.decomposition.intervals[part]
    assert lo < getattr(found.decomposition, part) < hi
    assert part == 'noise' or lo < getattr(truth, part) < hi
  assert _evaluate(make_flagged(er_NM={}))['judge'].true_decomposition is None


def test_bad_input_is_said_so(make_flagged):
  records = make_flagged()
  one = {'judge': records.reward_NKM['judge'][:, :1, :1].copy()}
  fields = {'arms': ('only',), 'cost_NM': records.cost_NM[:, :1]}
  fields |= {'er_NM': {}, 'flag_NKM': {}}
  found = _evaluate(make_flagged(reward_NKM=one, **fields))['judge']
  assert 'K = 1' in found.scores[None][0].ceiling.reason
  assert found.scores[None][0].r2['mean'] is not None
  assert 'one arm' in found.contrasts[1].reason
  assert 'one arm' in found.decomposition.reason
  one['judge'][:] = 0.1
  found = _evaluate(make_flagged(reward_NKM=one, **fields))['judge']
  assert 'equal' in found.scores[None][0].reason
  assert found.over_splits[None][0]['mean'] is None
  one['judge'][:50:2] = 0.9
  one['judge'][records.category_N == 'math'] = np.nan
  found = _evaluate(make_flagged(reward_NKM=one, **fields))['judge']
  assert '0 prompts' in found.scores['math'][0].reason
  assert not found.scores[None][0].reason


def test_figures_show_the_first_splits_test_prompts(make_flagged):
  records = make_flagged()
  found = _evaluate(records)['grm']
  test_N = ~next(_COMMON.masks(records))
  np.testing.assert_array_equal(found.category_N, records.category_N[test_N])
  np.testing.assert_allclose(
    found.mean_NM, _mean(records.reward_NKM['grm'])[test_N]
  )
  for m in range(3):
    assert metrics.r2_score(
      found.mean_NM[:, m], found.prediction_NM[:, m]
    ) == pytest.approx(found.scores[None][m].r2['mean'])


@pytest.mark.parametrize(
  ('setting', 'expected'),
  [
    ({'baseline': 'mean'}, "'mean'; allowed: test_mean, train_mean"),
    ({'exclude': ('long',)}, "'long'; allowed: refusal, empty, cut"),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    predictability.PredictabilityConfig(**setting)
