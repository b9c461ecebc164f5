import dataclasses
import itertools

import numpy as np
import pytest

from erp_jax.core import errors, resample
from erp_jax.probe import pool_shrinkage, records, ridge
from erp_jax.route import enlarged, learning, newcomer

_DRAWS = resample.BootstrapConfig(num_draws=100)
_RIDGE = ridge.RidgeConfig()


def _known(pool_NM, value_NM, cost_M, budget_1):
  """A setting whose pool predicts `pool_NM` for the test prompts."""
  num_pool = pool_NM.shape[1]
  probe = ridge.Probe(
    theta_EM=np.eye(num_pool),
    bias_M=np.zeros(num_pool),
    beta_M=np.ones(num_pool),
    num_prompts_M=np.full(num_pool, 9),
    betas_A=np.ones(1),
    loo_mse_AM=np.ones((1, num_pool)),
    embedding='raw',
  )
  return newcomer.Setting(
    arms=tuple('abcdef'[: num_pool + 1]),
    cost_M=np.asarray(cost_M, float),
    budget_1=budget_1,
    best_arm='a',
    pool=probe,
    train_emb_NE=np.zeros((0, num_pool)),
    train_category_N=np.zeros(0),
    train_reward_N=np.zeros(0),
    test_emb_NE=pool_NM,
    test_value_NM=value_NM,
    counts={},
  )


def _points(prediction_NM, cost_M):
  """choice_N after each breakpoint of λ, by looking at all of them."""
  lams = {0.0}
  for row in prediction_NM:
    for i, j in itertools.permutations(range(len(cost_M)), 2):
      if cost_M[i] > cost_M[j]:
        lams.add((row[i] - row[j]) / (cost_M[i] - cost_M[j]))
  lams = sorted(lam for lam in lams if lam >= 0)
  between = [(a + b) / 2 for a, b in itertools.pairwise(lams)]
  choices = [
    np.argmax(prediction_NM - lam * cost_M, axis=1)
    for lam in [0.0, *between, lams[-1] + 1]
  ]
  kept = [choices[0]]
  for choice in choices[1:]:
    if (choice != kept[-1]).any():
      kept.append(choice)
  return kept


class _Brute:
  """A router over some arms, looked at one prompt at a time."""

  def __init__(self, known, prediction_NM):
    self._cost_M = known.cost_M[: prediction_NM.shape[1]]
    self._value_NM = known.test_value_NM
    self._points = _points(prediction_NM, self._cost_M)[::-1]  # Cheapest first.

  def at(self, rows, budget):
    """(traffic of the last arm, regret): means over `rows`.

    Which lottery it is, is decided on all prompts.
    """
    cost = [self._cost_M[choice].mean() for choice in self._points]
    last = len(self._cost_M) - 1
    traffic = [np.mean(choice[rows] == last) for choice in self._points]
    return np.interp(budget, cost, traffic), np.interp(
      budget, cost, self._regrets(rows)
    )

  def least(self, rows, target):
    """The least cost at which the regret is no more than the target."""
    cost = [self._cost_M[choice[rows]].mean() for choice in self._points]
    place = np.linspace(0, len(cost) - 1, 500 * (len(cost) - 1) + 1)
    index = np.arange(len(cost))
    cost = np.interp(place, index, cost)
    regret = np.interp(place, index, self._regrets(rows))
    enough = np.flatnonzero(regret <= target + 1e-6)
    return cost[enough[0]] if len(enough) else np.nan

  def _regrets(self, rows):
    return [
      np.mean([max(self._value_NM[n]) - self._value_NM[n][c[n]] for n in rows])
      for c in self._points
    ]


@pytest.fixture(scope='module')
def small():
  rng = np.random.default_rng(3)
  value_NM = rng.normal(size=(14, 4))
  value_NM[:, 3] += 0.8
  prediction_NM = value_NM + rng.normal(size=(14, 4))
  known = _known(prediction_NM[:, :3], value_NM, [1.0, 2.0, 5.0, 3.0], 5.0)
  return known, prediction_NM


def _expected(known, prediction_NM, rows, budget):
  old, new = (_Brute(known, prediction_NM[:, :m]) for m in (3, 4))
  target = old.at(rows, budget)[1]
  traffic, regret = new.at(rows, budget)
  old_cost, new_cost = old.least(rows, target), new.least(rows, target)
  return {
    'traffic': traffic,
    'old': target,
    'enlarged': regret,
    'change': regret - target,
    'old_cost': old_cost,
    'enlarged_cost': new_cost,
    'saved': old_cost - new_cost,
    'saved_frac': 1 - new_cost / old_cost,
  }


def test_traffic_and_saved_cost_agree_with_brute_force(small):
  known, prediction_NM = small
  found = enlarged.compare(known, prediction_NM[:, 3], _DRAWS)
  for name, budget in (('0.25', 1.25), ('0.5', 2.5), ('1.0', 5.0)):
    expected = _expected(known, prediction_NM, np.arange(14), budget)
    for key, value in expected.items():
      assert found[name][key]['mean'] == pytest.approx(value, abs=3e-3), key
  assert found['0.5']['saved']['mean'] > 0.1


def test_intervals_are_those_of_repeated_prompts(small):
  """Decisions stay, both curves and the target are drawn again."""
  known, prediction_NM = small
  found = enlarged.compare(known, prediction_NM[:, 3], _DRAWS)['0.5']
  (counts_QN,) = resample.draw_counts(14, _DRAWS)
  draws = [
    _expected(
      known, prediction_NM, np.repeat(np.arange(14), n.astype(int)), 2.5
    )
    for n in counts_QN
  ]
  for name in ('traffic', 'old', 'enlarged', 'change', 'old_cost'):
    lo, hi = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
    assert found[name]['lo'] == pytest.approx(lo, abs=3e-3), name
    assert found[name]['hi'] == pytest.approx(hi, abs=3e-3), name
  saved = np.array([draw['saved'] for draw in draws])
  reached = np.isfinite(saved)
  assert found['reached'] == pytest.approx(reached.mean())
  assert reached.all()
  lo, hi = np.quantile(saved, [0.025, 0.975])
  assert found['saved']['lo'] == pytest.approx(lo, abs=3e-3)
  assert found['saved']['hi'] == pytest.approx(hi, abs=3e-3)


def test_a_useless_newcomer_gets_nothing_and_saves_nothing(small):
  known, prediction_NM = small
  dear = dataclasses.replace(known, cost_M=np.array([1.0, 2.0, 5.0, 9.0]))
  found = enlarged.compare(dear, np.full(14, -10.0), _DRAWS)
  for values in found.values():
    for name in ('traffic', 'change', 'saved', 'saved_frac'):
      assert values[name] == pytest.approx({'mean': 0, 'lo': 0, 'hi': 0})
    assert values['reached'] == 1


def test_a_dominating_newcomer_takes_all(small):
  known, _ = small
  value_NM = known.test_value_NM.copy()
  value_NM[:, 3] = 9
  best = dataclasses.replace(
    known, test_value_NM=value_NM, cost_M=np.array([1.0, 2.0, 5.0, 0.5])
  )
  found = enlarged.compare(best, np.full(14, 9.0), _DRAWS)
  for values in found.values():
    assert values['traffic'] == {'mean': 1, 'lo': 1, 'hi': 1}
    assert values['enlarged']['mean'] == pytest.approx(0)
    assert values['enlarged_cost']['mean'] == pytest.approx(0.5)
    assert values['saved']['mean'] == pytest.approx(
      values['old_cost']['mean'] - 0.5
    )


def test_regret_that_is_never_reached_is_said(small):
  """The newcomer looks best to the router, and is worst."""
  known, _ = small
  value_NM = known.test_value_NM.copy()
  value_NM[:, 3] = value_NM.min() - 1
  worst = dataclasses.replace(
    known, test_value_NM=value_NM, cost_M=np.array([1.0, 2.0, 5.0, 0.5])
  )
  values = enlarged.compare(worst, np.full(14, 99.0), _DRAWS)['1.0']
  assert values['reached'] == 0
  assert values['saved'] == values['enlarged_cost'] == resample.undefined()
  assert values['change']['lo'] > 0


def test_a_bound_that_is_not_reached_in_many_draws_is_left_out(small):
  """On some prompts the newcomer is a little worse than all others."""
  known, _ = small
  value_NM = known.test_value_NM.copy()
  value_NM[:, 3] = known.test_value_NM[:, :3].max(axis=1) + np.where(
    np.arange(14) % 3, 0.1, -0.3
  )
  odd = dataclasses.replace(
    known, test_value_NM=value_NM, cost_M=np.array([1.0, 2.0, 5.0, 0.5])
  )
  values = enlarged.compare(odd, np.full(14, 99.0), _DRAWS)['0.5']
  assert 0.025 < values['reached'] < 0.9
  assert values['enlarged_cost'] == {'mean': 0.5, 'lo': 0.5, 'hi': None}
  assert values['saved']['lo'] is None
  assert 1 < values['saved']['mean'] < values['saved']['hi'] < 3


def test_an_infeasible_budget_of_the_old_pool(small):
  """Where only the newcomer can be had, its traffic is known."""
  known, prediction_NM = small
  cheap = dataclasses.replace(
    known, budget_1=2.0, cost_M=np.array([1.0, 2.0, 5.0, 0.5])
  )
  values = enlarged.compare(cheap, prediction_NM[:, 3], _DRAWS)['0.25']
  assert values['traffic']['mean'] == 1
  assert values['old'] == values['saved'] == resample.undefined()
  assert values['reached'] is None


def _records(newcomer_N, num=300):
  """Three arms; the third one is the newcomer, in the middle."""
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(num, 8))
  emb_NE /= np.linalg.norm(emb_NE, axis=1, keepdims=True)
  hard_N = 4 * emb_NE[:, 0]
  reward_NM = np.stack([hard_N, newcomer_N(hard_N, rng), hard_N + 0.2], axis=1)
  reward_NM += 0.5 * rng.normal(size=reward_NM.shape)
  return records.Records(
    name='made',
    title='Made up',
    origin=records.SIMULATED,
    prompt_ids=tuple(f'p{n}' for n in range(num)),
    category_N=np.array(['x', 'y'])[np.arange(num) % 2],
    arms=('a', 'new', 'b'),
    emb_NE=emb_NE,
    reward_NKM={'judge': reward_NM[:, None, :]},
    cost_NM=np.tile([1.0, 2.0, 4.0], (num, 1)),
    cost_source='given',
    cost_unit='billions',
  )


def _like_the_others(hard_N, rng):
  del rng
  return hard_N + 0.1


_TRAIN_N = np.arange(300) < 200


def test_the_setting_is_that_of_the_records():
  made = _records(_like_the_others)
  known = newcomer.setting(made, 'judge', 'new', _TRAIN_N, _RIDGE)
  assert known.arms == ('a', 'b', 'new')
  np.testing.assert_array_equal(known.cost_M, [1, 4, 2])
  assert (known.best_arm, known.budget_1) == ('b', 4.0)
  np.testing.assert_array_equal(
    known.test_value_NM, made.mean_NM('judge')[200:][:, [0, 2, 1]]
  )
  every = np.arange(200)
  probe, share = newcomer.fit(
    known, every, newcomer.PLAIN, _RIDGE, pool_shrinkage.PoolConfig()
  )
  together = ridge.fit(made.emb_NE[:200], made.mean_NM('judge')[:200], _RIDGE)
  assert share == 0
  np.testing.assert_array_equal(probe.theta_EM[:, 0], together.theta_EM[:, 1])
  np.testing.assert_array_equal(
    known.pool.theta_EM[:, 1], together.theta_EM[:, 2]
  )


def test_missing_rewards_are_used_where_present():
  made = _records(_like_the_others)
  reward_NKM = made.reward_NKM['judge'].copy()
  reward_NKM[:150, 0, 1] = np.nan  # The newcomer's, of training prompts.
  reward_NKM[200:230, 0, 1] = np.nan
  reward_NKM[230:240, 0, 0] = np.nan
  made = dataclasses.replace(made, reward_NKM={'judge': reward_NKM})
  known = newcomer.setting(made, 'judge', 'new', _TRAIN_N, _RIDGE)
  assert known.counts == {
    'train': 200,
    'train_scored': 50,
    'test': 100,
    'test_complete': 60,
  }
  assert known.pool.num_prompts_M.tolist() == [200, 200]
  np.testing.assert_array_equal(known.train_reward_N, reward_NKM[150:200, 0, 1])


def test_shrinking_helps_where_there_are_few_prompts_like_the_others():
  made = _records(_like_the_others)
  known = newcomer.setting(made, 'judge', 'new', _TRAIN_N, _RIDGE)
  cfg = newcomer.NewcomerConfig(num_prompts=(10, 100), repeats=8)
  curves = newcomer.learn(known, _RIDGE, cfg)
  assert {num for _, num in curves} == {10, 100, 200}
  few = {variant: curves[variant, 10] for variant in newcomer.VARIANTS}
  assert few['pooled'].r2_J.mean() > few['alone'].r2_J.mean() + 0.1
  assert few['pooled'].share_J.mean() > 0.5
  assert (few['alone'].share_J == 0).all() and (few['plain'].share_J == 0).all()
  assert few['pooled'].saved_JP.shape == (8, len(learning.BUDGETS))
  assert len(curves['pooled', 200].r2_J) == 1


def test_a_cell_of_the_curve_agrees_with_a_comparison():
  """Regret saved and traffic, each computed apart."""
  made = _records(_like_the_others)
  known = newcomer.setting(made, 'judge', 'new', _TRAIN_N, _RIDGE)
  cfg = newcomer.NewcomerConfig(num_prompts=(10,), repeats=2)
  curve = newcomer.learn(known, _RIDGE, cfg)['pooled', 200]
  probe, _ = newcomer.fit(known, np.arange(200), 'pooled', _RIDGE, cfg.pool)
  prediction_N = ridge.predict(probe, known.test_emb_NE)[:, 0]
  found = enlarged.compare(known, prediction_N, _DRAWS)
  for p, name in enumerate(learning.BUDGETS):
    assert curve.saved_JP[0, p] == pytest.approx(-found[name]['change']['mean'])
    assert curve.traffic_JP[0, p] == pytest.approx(
      found[name]['traffic']['mean']
    )


@pytest.mark.parametrize(
  'change',
  [
    {'num_prompts': (12,)},
    {'repeats': 3},
    {'seed': 1},
    {'pool': pool_shrinkage.PoolConfig(shares=(0.0,))},
  ],
)
def test_every_field_matters(change):
  known = newcomer.setting(
    _records(_like_the_others), 'judge', 'new', _TRAIN_N, _RIDGE
  )
  base = newcomer.NewcomerConfig(num_prompts=(10,), repeats=2)
  one, other = (
    {
      key: curve.saved_JP.tolist()
      for key, curve in newcomer.learn(known, _RIDGE, cfg).items()
    }
    for cfg in (base, dataclasses.replace(base, **change))
  )
  assert one != other


@pytest.mark.parametrize(
  'change, expected',
  [
    ({'num_prompts': ()}, 'newcomer.num_prompts must ascend'),
    ({'num_prompts': (1, 5)}, 'from 2 or more'),
    ({'num_prompts': (5, 5)}, 'must ascend'),
    ({'repeats': 1}, 'newcomer.repeats must be >= 2'),
  ],
)
def test_a_wrong_config_is_refused(change, expected):
  with pytest.raises(errors.UserError, match=expected):
    newcomer.NewcomerConfig(**change)


@pytest.mark.parametrize(
  'arm, missing, expected',
  [
    ('other', (), "the newcomer 'other' must be one of them"),
    ('new', (slice(0, 199), 1), "'judge/new' has 1 training prompts"),
    ('new', (slice(200, 300), 1), 'no test prompt has judge of all of a, b'),
    ('new', (slice(0, 200), 0), 'no training prompt has judge of all of a, b'),
  ],
)
def test_what_can_not_be_compared_is_refused(arm, missing, expected):
  made = _records(_like_the_others)
  reward_NKM = made.reward_NKM['judge'].copy()
  if missing:
    reward_NKM[missing[0], 0, missing[1]] = np.nan
  made = dataclasses.replace(made, reward_NKM={'judge': reward_NKM})
  with pytest.raises(errors.UserError, match=expected):
    newcomer.setting(made, 'judge', arm, _TRAIN_N, _RIDGE)
