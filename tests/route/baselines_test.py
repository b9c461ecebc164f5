import numpy as np
import pytest
from scipy import optimize

from erp_jax.core import errors
from erp_jax.route import baselines, path


def _at(curve, value_P, budget):
  return path.value_at(curve.path.cost_P, value_P, np.array([budget]))[0]


def test_same_model_is_one_point(make_split):
  split = make_split()
  curve = baselines.curves(split)['same:x']
  oracle = split.reward_NM.max(axis=1).mean()
  assert curve.path.cost_P.tolist() == [20.0]
  assert curve.regret_P[0] == pytest.approx(
    oracle - split.reward_NM[:, 1].mean()
  )
  assert curve.spent_P[0] == pytest.approx(split.spent_NM[:, 1].mean())


@pytest.mark.parametrize('budget', [2.0, 3.5, 8.0, 15.0, 20.0, 40.0])
def test_static_mixture_is_the_linear_programs_lottery(make_split, budget):
  split = make_split()
  best = optimize.linprog(
    -split.train_mean_M,
    A_ub=split.cost_M[None],
    b_ub=[budget],
    A_eq=np.ones((1, 4)),
    b_eq=[1.0],
  )
  curve = baselines.curves(split)['static_mixture']
  assert _at(curve, curve.predicted_P, budget) == pytest.approx(-best.fun)
  oracle = split.reward_NM.max(axis=1).mean()
  assert _at(curve, curve.regret_P, budget) == pytest.approx(
    oracle - split.reward_NM.mean(axis=0) @ best.x
  )
  assert _at(curve, curve.spent_P, budget) == pytest.approx(
    split.spent_NM.mean(axis=0) @ best.x
  )


@pytest.mark.parametrize('budget', [2.5, 6.0, 12.0])
def test_per_category_is_the_linear_programs_table(make_split, budget):
  split = make_split()
  names, count = np.unique(split.category_N, return_counts=True)
  mean = np.array(
    [
      split.train_reward_NM[split.train_category_N == name].mean(axis=0)
      for name in names
    ]
  )
  weight = (count / count.sum())[:, None]
  best = optimize.linprog(
    -(weight * mean).ravel(),
    A_ub=(weight * split.cost_M).ravel()[None],
    b_ub=[budget],
    A_eq=np.kron(np.eye(3), np.ones(4)),
    b_eq=np.ones(3),
  )
  curve = baselines.curves(split)['per_category']
  assert _at(curve, curve.predicted_P, budget) == pytest.approx(-best.fun)
  assert len(curve.regret_P) <= 3 * 3 + 1


def test_random_and_permuted_are_means_of_draws(make_split):
  split = make_split()
  curves = baselines.curves(split)
  rng = np.random.default_rng(5)
  rows = np.arange(len(split.reward_NM))
  oracle = split.reward_NM.max(axis=1).mean()
  erp, permuted, random = (curves[k] for k in ('erp', 'permuted', 'random'))
  point = len(erp.regret_P) // 2
  choice_N = erp.path.choice(point)
  regrets, spent, uniform = [], [], []
  for _ in range(4000):
    dealt_N = rng.permutation(choice_N)
    regrets.append(oracle - split.reward_NM[rows, dealt_N].mean())
    spent.append(split.spent_NM[rows, dealt_N].mean())
    drawn_N = rng.integers(4, size=len(rows))
    uniform.append(oracle - split.reward_NM[rows, drawn_N].mean())
  for expected, drawn in (
    (permuted.regret_P[point], regrets),
    (permuted.spent_P[point], spent),
    (random.regret_P[0], uniform),
  ):
    standard_error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(expected - np.mean(drawn)) < 4 * standard_error
  np.testing.assert_array_equal(permuted.path.cost_P, erp.path.cost_P)
  assert random.path.cost_P[0] == pytest.approx(split.cost_M.mean())


def test_costs_not_recorded_are_the_arms_mean(make_split):
  split = make_split()
  spent_NM = split.spent_NM.copy()
  spent_NM[3, 2] = np.nan
  assert make_split(spent_NM=spent_NM).paid_NM[3, 2] == 5.0


def test_incomplete_prompts_do_not_route(make_split):
  split = make_split()
  reward_NM = split.reward_NM.copy()
  reward_NM[:10, 1] = np.nan
  train_NM = split.train_reward_NM.copy()
  train_NM[:7, 0] = np.nan
  fewer = make_split(reward_NM=reward_NM, train_reward_NM=train_NM)
  np.testing.assert_allclose(fewer.train_mean_M, train_NM[7:].mean(axis=0))
  curve = baselines.curves(fewer)['erp']
  assert len(curve.path.start_N) == 140
  assert curve.regret_P[0] == pytest.approx(
    np.mean(
      [
        r.max() - r[np.argmax(p)]
        for r, p in zip(reward_NM[10:], split.prediction_NM[10:], strict=True)
      ]
    )
  )


def test_a_category_without_training_prompts_is_named(make_split):
  split = make_split()
  category_N = np.where(
    split.train_category_N == 'b', 'a', split.train_category_N
  )
  with pytest.raises(errors.UserError, match="category 'b' is in test, but no"):
    baselines.curves(make_split(train_category_N=category_N))


@pytest.mark.parametrize('cost', [-1.0, np.nan, np.inf])
def test_a_bad_cost_is_named(make_split, cost):
  with pytest.raises(errors.UserError, match='the cost of y is'):
    make_split(cost_M=np.array([2.0, 20.0, cost, 11.0]))


@pytest.mark.parametrize('part', ['reward_NM', 'train_reward_NM'])
def test_an_arm_without_rewards_is_refused(make_split, part):
  reward_NM = getattr(make_split(), part).copy()
  reward_NM[:, 2] = np.nan
  with pytest.raises(errors.UserError, match='prompt has rewards of all'):
    make_split(**{part: reward_NM})
