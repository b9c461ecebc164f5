"""Learning curves agree with fits made one by one, by other means."""

import dataclasses

import numpy as np
import pytest
from sklearn import linear_model, metrics

from erp_jax.core import errors
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge
from erp_jax.route import baselines, evaluate, learning
from erp_jax.route import split as split_lib

_COST_M = np.array([1.0, 5.0, 2.0])


@pytest.fixture
def make_six(make_records):
  """Records of 6 samples and one reward model; categories differ in size."""
  fields = {
    'k': 6,
    'noise': 0.5,
    'arms': ('x', 'y', 'z'),
    'rewards': ('r',),
    'category_N': np.repeat(['a', 'b', 'c'], [60, 40, 20]),
    'cost_NM': np.tile(_COST_M, (120, 1)),
  }
  return lambda **changes: make_records(**fields | changes)


_TRAIN_N = np.arange(120) % 2 == 0
_CFG = learning.LearningConfig(
  num_prompts=(20, 60),
  num_samples=(1, 2, 6),
  repeats=3,
  ridge=ridge.RidgeConfig(beta=0.3),
)


def test_every_cell_is_a_fit_of_its_own(make_six):
  """scikit-learn's ridge on the first n prompts and k samples of a repeat."""
  records = make_six()
  curve = learning.of_records(records, _TRAIN_N, _CFG)['r']
  training = learning.Training(
    *(records.emb_NE[_TRAIN_N], records.category_N[_TRAIN_N]),
    {'r': records.reward_NKM['r'][_TRAIN_N]},
  )
  truth_NM = records.er_NM['r'][~_TRAIN_N]
  rows = np.arange(len(truth_NM))
  best_N = truth_NM.max(axis=1)
  assert curve.knows_er and curve.num_test == 60
  for j, repeat in enumerate(learning.subsamples(training, _CFG)):
    for n, num in enumerate(_CFG.num_prompts):
      for k, size in enumerate(_CFG.num_samples):
        mean_NM = repeat.reward_NKM['r'][:num, :size].mean(axis=1)
        model = linear_model.Ridge(alpha=0.3).fit(repeat.emb_NE[:num], mean_NM)
        guess_NM = model.predict(records.emb_NE[~_TRAIN_N])
        np.testing.assert_allclose(
          curve.r2_JNK[j, n, k], metrics.r2_score(truth_NM, guess_NM)
        )
        centred = [
          value - value.mean(axis=1, keepdims=True)
          for value in (truth_NM, guess_NM)
        ]
        centred = [value - centred[0].mean(axis=0) for value in centred]
        np.testing.assert_allclose(
          curve.contrast_r2_JNK[j, n, k],
          metrics.r2_score(centred[0].ravel(), centred[1].ravel()),
        )
        chosen_N = truth_NM[rows, guess_NM.argmax(axis=1)]
        np.testing.assert_allclose(
          curve.regret_JNKP['erp'][j, n, k, -1], (best_N - chosen_N).mean()
        )
        single_N = truth_NM[:, mean_NM.mean(axis=0).argmax()]
        np.testing.assert_allclose(
          curve.regret_JNKP['static_mixture'][j, n, k, -1],
          (best_N - single_N).mean(),
        )
  np.testing.assert_allclose(
    curve.advantage_JNKP,
    curve.regret_JNKP['static_mixture'] - curve.regret_JNKP['erp'],
  )
  # The oracle gives up nothing, unless it must save.
  assert curve.oracle_regret_P[-1] == 0 < curve.oracle_regret_P[0]
  for regret_JNKP in curve.regret_JNKP.values():
    assert (regret_JNKP >= curve.oracle_regret_P - 1e-12).all()


def test_the_whole_training_set_is_the_plain_evaluation(make_six):
  """Also where the truth is the means: then regret is plug-in regret."""
  records = make_six(er_NM={}, origin=records_lib.RECORDED)
  curve = learning.of_records(records, _TRAIN_N, _CFG)['r']
  table = records.outcomes('r')
  probe = ridge.fit(
    records.emb_NE[_TRAIN_N], table.reward_NM[_TRAIN_N], _CFG.ridge
  )
  split = split_lib.from_outcomes(
    table, _TRAIN_N, ridge.predict(probe, records.emb_NE)
  )
  expected = evaluate.evaluate(split, baselines.curves(split))
  r2 = [expected['r2'][arm]['aggregate'] for arm in records.arms]
  for repeat in range(3):
    np.testing.assert_allclose(curve.r2_JNK[repeat, -1, -1], np.mean(r2))
    for name in learning.POLICIES:
      at = expected['regret_at_budget'][name]
      np.testing.assert_allclose(
        curve.regret_JNKP[name][repeat, -1, -1, :-1],
        [at[budget] for budget in evaluate.BUDGETS],
      )
  assert not curve.knows_er


def test_a_larger_grid_leaves_the_other_cells(make_six):
  """Subsamples are nested, and a cell does not depend on the grid."""
  records = make_six()
  large = learning.of_records(records, _TRAIN_N, _CFG)['r']
  few = dataclasses.replace(_CFG, num_prompts=(20,), num_samples=(2,))
  small = learning.of_records(records, _TRAIN_N, few)['r']
  np.testing.assert_array_equal(small.r2_JNK[:, 0, 0], large.r2_JNK[:, 0, 1])
  np.testing.assert_array_equal(
    small.regret_JNKP['erp'][:, 0, 0], large.regret_JNKP['erp'][:, 0, 1]
  )
  other = dataclasses.replace(few, seed=1)
  changed = learning.of_records(records, _TRAIN_N, other)['r']
  assert (changed.r2_JNK != small.r2_JNK).all()
  assert len(set(small.r2_JNK.ravel())) == 3


def test_a_cell_takes_the_samples_that_are_there():
  """NaN between the samples of a cell changes nothing."""
  rng = np.random.default_rng(0)
  reward_NKM = rng.normal(size=(40, 4, 3))
  holey_NKM = np.full((40, 9, 3), np.nan)
  for n in range(40):
    for m in range(3):
      places = np.sort(rng.permutation(9)[:4])
      holey_NKM[n, places, m] = reward_NKM[n, :, m]
  emb_NE = rng.normal(size=(40, 3))
  cfg = learning.LearningConfig(num_prompts=(15, 40), num_samples=(1, 2, 4))
  test = learning.Test(
    models=('x', 'y', 'z'),
    cost_M=_COST_M,
    spent_NM=np.tile(_COST_M, (40, 1)),
    emb_NE=emb_NE,
    truth_NM={'r': rng.normal(size=(40, 3))},
    budget_1={'r': 5.0},
    knows_er=True,
  )
  category_N = np.zeros(40)
  full, holey = (
    learning.curves(
      [learning.Training(emb_NE, category_N, {'r': values})], test, cfg
    )['r']
    for values in (reward_NKM, holey_NKM)
  )
  np.testing.assert_array_equal(full.r2_JNK, holey.r2_JNK)
  for name in learning.POLICIES:
    np.testing.assert_array_equal(
      full.regret_JNKP[name], holey.regret_JNKP[name]
    )


def test_known_er_is_the_truth(make_six):
  """Test samples do not count then, training samples do."""
  records = make_six()
  expected = learning.of_records(records, _TRAIN_N, _CFG)['r']
  reward_NKM = records.reward_NKM['r'].copy()
  reward_NKM[~_TRAIN_N] += 7 * np.arange(3)
  moved = make_six(reward_NKM={'r': reward_NKM})
  found = learning.of_records(moved, _TRAIN_N, _CFG)['r']
  np.testing.assert_array_equal(found.r2_JNK, expected.r2_JNK)
  np.testing.assert_array_equal(
    found.regret_JNKP['erp'], expected.regret_JNKP['erp']
  )


def test_more_is_better(make_six):
  curve = learning.of_records(make_six(), _TRAIN_N, _CFG)['r']
  r2_NK, _ = learning.mean_se(curve.r2_JNK)
  assert (np.diff(r2_NK, axis=0) > 0).all()
  assert (np.diff(r2_NK, axis=1) > 0).all()


def test_subsamples_hold_every_prompt_and_sample_once():
  rng = np.random.default_rng(0)
  category_N = rng.permutation(np.repeat(['a', 'b', 'c'], [50, 30, 20]))
  training = learning.Training(
    np.arange(100.0)[:, None],
    category_N,
    {'r': np.arange(300.0).reshape(100, 3, 1)},
  )
  orders, firsts = [], []
  for repeat in learning.subsamples(training, _CFG):
    rows = repeat.emb_NE[:, 0].astype(int)
    orders.append(rows)
    firsts.append(repeat.reward_NKM['r'][np.argsort(rows), 0, 0])
    np.testing.assert_array_equal(np.sort(rows), np.arange(100))
    np.testing.assert_array_equal(repeat.category_N, category_N[rows])
    np.testing.assert_array_equal(
      np.sort(repeat.reward_NKM['r'], axis=1), training.reward_NKM['r'][rows]
    )
    for num in (10, 20, 50):  # Even shares of the categories.
      for category, share in (('a', 0.5), ('b', 0.3), ('c', 0.2)):
        held = (repeat.category_N[:num] == category).sum()
        assert abs(held - share * num) <= 1
  for a, b in ((0, 1), (0, 2), (1, 2)):  # Other prompts, and other samples.
    assert len(set(orders[a][:20]) & set(orders[b][:20])) < 12
  assert any((firsts[0] != other).all() for other in firsts[1:])


def test_the_standard_error_is_that_of_a_mean():
  value_JN = np.random.default_rng(0).normal(size=(7, 3))
  mean, se = learning.mean_se(value_JN)
  for n in range(3):
    values = list(value_JN[:, n])
    middle = sum(values) / 7
    np.testing.assert_allclose(mean[n], middle)
    variance = sum((v - middle) ** 2 for v in values) / 6
    np.testing.assert_allclose(se[n], (variance / 7) ** 0.5)
  assert np.isnan(learning.mean_se(value_JN[:1])[1]).all()


@pytest.mark.parametrize(
  'fields, expected',
  [
    ({'num_prompts': (1, 5)}, 'num_prompts must ascend from 2'),
    ({'num_samples': (4, 2)}, 'num_samples must ascend'),
    ({'num_samples': ()}, 'num_samples'),
    ({'repeats': 0}, 'repeats'),
    ({'num_prompts': (20, 61)}, 'goes up to 61, but there are 60'),
    ({'num_samples': (7,)}, 'goes up to 7, but r scored 6'),
  ],
)
def test_mistakes_are_named(fields, expected, make_six):
  with pytest.raises(errors.UserError, match=expected):
    cfg = dataclasses.replace(_CFG, **fields)
    learning.of_records(make_six(), _TRAIN_N, cfg)
