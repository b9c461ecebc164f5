import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.probe import ridge
from erp_jax.route import path, policy

_COST_M = np.array([8.0, 70.0, 27.0])


@pytest.fixture(scope='module')
def fitted():
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(400, 6))
  reward_NM = emb_NE @ rng.normal(size=(6, 3)) * 0.2 + [0.0, 0.5, 0.3]
  reward_NM += 0.1 * rng.normal(size=reward_NM.shape)
  probe = ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig())
  test_NE = rng.normal(size=(3000, 6))
  made = policy.calibrate(
    probe,
    ['a', 'b', 'c'],
    _COST_M,
    reward_NM.mean(axis=0),
    ridge.predict(probe, test_NE),
  )
  return made, test_NE


def test_at_a_price_it_is_the_argmax(fitted):
  made, emb_NE = fitted
  decision = made.decide(emb_NE, lam=0.004)
  unit_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  reward_NM = unit_NE @ made.probe.theta_EM + made.probe.bias_M
  np.testing.assert_allclose(decision.reward_NM, reward_NM, atol=1e-12)
  expected_N = np.argmax(reward_NM - 0.004 * _COST_M, axis=1)
  np.testing.assert_array_equal(decision.choice_N, expected_N)
  np.testing.assert_array_equal(decision.cost_N, _COST_M[expected_N])
  assert set(expected_N) == {0, 1, 2}


@pytest.mark.parametrize('budget', [0.2, 0.5, 0.75, 1.0])
def test_a_budget_is_kept_on_the_prompts_calibrated_on(fitted, budget):
  made, emb_NE = fitted
  assert made.best_arm == 1
  ceiling = min(budget * 70, made.cost_P[0])
  # One prompt in 3000 is the lottery's; its two outcomes bracket the ceiling.
  cost_N = made.decide(emb_NE, budget=budget).cost_N
  assert cost_N.mean() == pytest.approx(ceiling, abs=62 / 3000)


def _constant_probe(bias_M):
  """Predicts the same rewards for every prompt."""
  num = len(bias_M)
  return ridge.Probe(
    theta_EM=np.zeros((2, num)),
    bias_M=np.array(bias_M),
    beta_M=np.ones(num),
    num_prompts_M=np.full(num, 2),
    betas_A=np.ones(1),
    loo_mse_AM=np.ones((1, num)),
    embedding='unit',
  )


def test_a_lottery_has_its_probability_and_follows_the_prompt_id():
  # Two points only, so a budget half way is a coin for every prompt.
  made = policy.calibrate(
    _constant_probe([0.0, 1.0]),
    ['a', 'b'],
    np.array([1.0, 5.0]),
    np.array([0.0, 1.0]),
    np.array([[0.0, 1.0]]),
  )
  emb_NE = np.random.default_rng(0).normal(size=(4000, 2))
  ids = [f'prompt {i}' for i in range(4000)]
  chosen_N = made.decide(emb_NE, budget=0.4, prompt_ids=ids).choice_N
  # A ceiling of 2 out of 1 and 5: a quarter; standard error .007.
  assert abs((chosen_N == 1).mean() - 0.25) < 0.03
  order = np.random.default_rng(1).permutation(4000)
  again_N = made.decide(
    emb_NE[order], budget=0.4, prompt_ids=[ids[i] for i in order]
  ).choice_N
  np.testing.assert_array_equal(again_N, chosen_N[order])
  blind_N = made.decide(emb_NE, budget=0.4).choice_N
  assert abs((blind_N == 1).mean() - 0.25) < 0.03
  np.testing.assert_array_equal(
    made.decide(emb_NE[:5], budget=0.4).choice_N, blind_N[:5]
  )
  with pytest.raises(ValueError, match='2 prompt ids, 4000 embeddings'):
    made.decide(emb_NE, budget=0.4, prompt_ids=['a', 'b'])


def test_the_cheapest_budget_is_the_cheapest_arm_and_nothing_is_below(fitted):
  made, emb_NE = fitted
  other_NE = -3 * emb_NE[:200]
  assert set(made.decide(other_NE, budget=8 / 70).choice_N) == {0}
  with pytest.raises(errors.UserError, match='7.7 a prompt is infeasible'):
    made.decide(emb_NE, budget=0.11)


def test_the_cheapest_budget_holds_for_prompts_unlike_the_calibration():
  # Calibrated on an advantage of .1, asked about one of 1.
  made = policy.calibrate(
    _constant_probe([0.0, 1.0]),
    ['a', 'b'],
    np.array([1.0, 5.0]),
    np.array([0.0, 1.0]),
    np.array([[0.0, 0.1]]),
  )
  assert made.decide(np.ones((1, 2)), budget=0.2).choice_N.tolist() == [0]


def test_what_it_refuses(fitted):
  made, emb_NE = fitted
  for kwargs in ({}, {'budget': 0.5, 'lam': 0.1}):
    with pytest.raises(errors.UserError, match='either a budget or lam'):
      made.decide(emb_NE, **kwargs)
  for lam in (-1.0, np.nan, np.inf):
    with pytest.raises(errors.UserError, match='give a price of 0 or more'):
      made.decide(emb_NE, lam=lam)
  with pytest.raises(errors.UserError, match='the budget is nan'):
    made.decide(emb_NE, budget=np.nan)
  with pytest.raises(errors.UserError, match='prompts 1 .* not finite'):
    made.decide(np.array([np.ones(6), np.full(6, np.nan)]), lam=0.0)
  with pytest.raises(errors.UserError, match='fitted on 6'):
    made.decide(np.ones((1, 7)), lam=0.0)


def test_ties_for_best_single_go_to_the_cheaper():
  costs = np.array([9.0, 8.0, 8.0])
  assert policy.best_single(np.array([1.0, 1.0, 1.0]), costs) == 1
  assert policy.best_single(np.array([1.0, 0.5, 0.5]), costs) == 0


def test_deciding_agrees_with_the_path_point_by_point(fitted):
  made, emb_NE = fitted
  reward_NM = ridge.predict(made.probe, emb_NE)
  traced = path.trace(reward_NM, _COST_M)
  for point in (0, 1, 700, len(traced.lam_P) - 2, len(traced.lam_P) - 1):
    budget = traced.cost_P[point] / 70
    decided_N = made.decide(emb_NE, budget=budget).choice_N
    differs = (decided_N != traced.choice(point)).sum()
    assert differs <= 1  # Rounding of the budget may start a lottery.
