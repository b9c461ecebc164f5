import numpy as np
import pytest

import erp_jax.route
from erp_jax.core import errors
from erp_jax.probe import ridge
from erp_jax.route import feature_map, ladder, path, policy, posterior

_COST_M = np.array([8.0, 70.0, 27.0])


@pytest.fixture(scope='module')
def train():
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(400, 6))
  reward_NM = emb_NE @ rng.normal(size=(6, 3)) * 0.2 + [0.0, 0.5, 0.3]
  return emb_NE, reward_NM + 0.1 * rng.normal(size=reward_NM.shape)


def _fit(train, test_NE, cfg=None, **changes):
  cfg = cfg or ridge.RidgeConfig()
  probe = ridge.fit(*train, cfg)
  return policy.calibrate(
    **{
      'name': policy.ERP,
      'arms': ['a', 'b', 'c'],
      'cost_M': _COST_M,
      'mean_M': train[1].mean(axis=0),
      'bias_M': probe.bias_M,
      'parts': [policy.ridge_part(probe, *train, cfg, 0.99)],
      'emb_NE': test_NE,
      'max_points': 100_000,
    }
    | changes
  )


@pytest.fixture(scope='module')
def fitted(train):
  test_NE = np.random.default_rng(1).normal(size=(3000, 6))
  return _fit(train, test_NE), test_NE


def test_the_package_exports_it():
  assert erp_jax.route.Policy is policy.Policy


def test_at_a_price_it_is_the_argmax(fitted):
  made, emb_NE = fitted
  decision = made.decide(emb_NE, lam=0.004)
  unit_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  reward_NM = unit_NE @ made.parts[0].theta_EM + made.bias_M
  np.testing.assert_allclose(decision.reward_NM, reward_NM, atol=1e-12)
  expected_N = np.argmax(reward_NM - 0.004 * _COST_M, axis=1)
  np.testing.assert_array_equal(decision.choice_N, expected_N)
  np.testing.assert_array_equal(decision.cost_N, _COST_M[expected_N])
  assert set(expected_N) == {0, 1, 2}
  assert decision.arm_N == ['abc'[m] for m in expected_N]
  assert len(decision) == 3000


@pytest.mark.parametrize('budget', [0.2, 0.5, 0.75, 1.0])
def test_a_budget_is_kept_on_the_prompts_calibrated_on(fitted, budget):
  made, emb_NE = fitted
  assert made.best_arm == 1
  ceiling = min(budget * 70, made.ladder.cost_P[0])
  # One prompt in 3000 is the lottery's; its two outcomes bracket the ceiling.
  cost_N = made.decide(emb_NE, budget=budget).cost_N
  assert cost_N.mean() == pytest.approx(ceiling, abs=62 / 3000)


def _constant(bias_M, calibrated_NM):
  """Predicts the same rewards for every prompt, with the ladder of others."""
  num, cost_M = len(bias_M), np.array([1.0, 5.0])
  return policy.Policy(
    name=policy.ERP,
    arms=('a', 'b'),
    cost_M=cost_M,
    mean_M=np.array([0.0, 1.0]),
    bias_M=np.array(bias_M),
    parts=(
      policy.Part(
        features=feature_map.FeatureMap(width=2),
        theta_EM=np.zeros((2, num)),
        posterior=posterior.fit(
          np.eye(2), np.eye(2), np.zeros((2, 2)), np.ones(num), True, 0.99
        ),
      ),
    ),
    margin_M=np.zeros(2),
    ladder=ladder.build(np.array(calibrated_NM), cost_M, 10),
  )


def test_a_lottery_has_its_probability_and_follows_the_prompt_id():
  # Two points only, so a budget half way is a coin for every prompt.
  made = _constant([0.0, 1.0], [[0.0, 1.0]])
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
  # 8 of 70 is 0.11428…; what it says to give must do.
  with pytest.raises(errors.UserError, match='0.11 of .* give 0.1143 or more'):
    made.decide(emb_NE, budget=0.11)
  assert set(made.decide(other_NE, budget=0.1143).choice_N) == {0}


def test_the_cheapest_budget_holds_for_prompts_unlike_the_calibration():
  # Calibrated on an advantage of .1, asked about one of 1.
  made = _constant([0.0, 1.0], [[0.0, 0.1]])
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
  with pytest.raises(errors.UserError, match="prompts 'y' are not finite"):
    made.decide(
      np.array([np.ones(6), np.full(6, np.nan)]), lam=0.0, prompt_ids='xy'
    )
  with pytest.raises(errors.UserError, match='fitted on 6'):
    made.decide(np.ones((1, 7)), lam=0.0)


def test_ties_for_best_single_go_to_the_cheaper():
  costs = np.array([9.0, 8.0, 8.0])
  assert policy.best_single(np.array([1.0, 1.0, 1.0]), costs) == 1
  assert policy.best_single(np.array([1.0, 0.5, 0.5]), costs) == 0


def test_deciding_agrees_with_the_path_point_by_point(fitted):
  made, emb_NE = fitted
  reward_NM = made.decide(emb_NE, lam=0.0).reward_NM
  traced = path.trace(reward_NM, _COST_M)
  for point in (0, 1, 700, len(traced.lam_P) - 2, len(traced.lam_P) - 1):
    budget = traced.cost_P[point] / 70
    decided_N = made.decide(emb_NE, budget=budget).choice_N
    differs = (decided_N != traced.choice(point)).sum()
    assert differs <= 1  # Rounding of the budget may start a lottery.


def test_it_predicts_what_the_probe_does(train):
  cfg = ridge.RidgeConfig(selection='leave_one_out', embedding='raw')
  probe = ridge.fit(*train, cfg)
  made = _fit(train, train[0], cfg)
  decision = made.decide(train[0], lam=0.1)
  np.testing.assert_allclose(
    decision.reward_NM, ridge.predict(probe, train[0]), rtol=0, atol=1e-12
  )


def test_a_batch_of_8_is_8_of_1(fitted):
  made, emb_NE = fitted
  batch = made.decide(emb_NE[:8], budget=0.5)
  for n in range(8):
    alone = made.decide(emb_NE[n : n + 1], budget=0.5)
    assert alone.choice_N[0] == batch.choice_N[n]
    for name in ('reward_NM', 'std_NM', 'win_NM'):
      np.testing.assert_allclose(
        getattr(alone, name)[0], getattr(batch, name)[n], rtol=0, atol=1e-12
      )


def test_two_parts_add_up(train):
  """The same fit in two halves: as one, deviations included."""
  emb_NE, reward_NM = train
  cfg = ridge.RidgeConfig()
  one = _fit(train, emb_NE)
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  part = policy.ridge_part(probe, emb_NE, reward_NM, cfg, 0.99)
  half = policy.Part(
    features=part.features,
    theta_EM=part.theta_EM / 2,
    posterior=posterior.Posterior(
      **{
        name: getattr(part.posterior, name)
        for name in (
          *('mean_E', 'triangle_U', 'floor', 'penalty_M', 'share', 'limit'),
        )
      },
      noise_M=part.posterior.noise_M / 4,
    ),
  )
  two = _fit(train, emb_NE, parts=[half, half])
  expected, found = (made.decide(emb_NE, budget=0.5) for made in (one, two))
  for name in ('choice_N', 'reward_NM', 'std_NM', 'ood_N'):
    np.testing.assert_allclose(
      getattr(found, name), getattr(expected, name), rtol=1e-12
    )


def test_strange_prompts_fall_back_on_the_static_mixture(train):
  rng = np.random.default_rng(3)
  usual_NE = rng.normal(size=(4000, 6))
  cfg = ridge.RidgeConfig(embedding='raw')
  strange_NE = 8 * usual_NE
  flagging, falling = (
    _fit(train, usual_NE, cfg, out_of_distribution=what)
    for what in (policy.FLAG, policy.STATIC_MIXTURE)
  )
  # 1 % of prompts like the training prompts; four standard errors are .006.
  assert abs(flagging.decide(usual_NE, lam=0.0).ood_N.mean() - 0.01) < 0.01
  decision = falling.decide(strange_NE, budget=0.5)
  assert decision.ood_N.mean() > 0.99
  assert len(set(flagging.decide(strange_NE, budget=0.5).choice_N)) == 3
  # The hull of training means .0, .3, .5 at cost 8, 27, 70, at cost 35.
  share_M = np.bincount(decision.choice_N[decision.ood_N], minlength=3) / 4000
  np.testing.assert_allclose(share_M, [0, 8 / 43, 35 / 43], atol=0.03)
  # At a price it is the best training mean less cost.
  decision = falling.decide(strange_NE, lam=0.01)
  assert set(decision.choice_N[decision.ood_N]) == {2}
  usual = falling.decide(usual_NE, budget=0.5)
  assert usual.cost_N[~usual.ood_N].mean() == pytest.approx(35, abs=62 / 3900)


def test_no_budgets_without_prompts_of_the_distribution(train):
  cfg = ridge.RidgeConfig(embedding='raw')
  with pytest.raises(errors.UserError, match='all 400 prompts'):
    _fit(train, 100 * train[0], cfg, out_of_distribution=policy.STATIC_MIXTURE)
  with pytest.raises(errors.UserError, match="'no'; allowed: flag, static_mix"):
    _fit(train, train[0], out_of_distribution='no')


def test_one_arm(train):
  emb_NE, reward_NM = train
  made = _fit(
    (emb_NE, reward_NM[:, :1]), emb_NE, arms=['a'], cost_M=np.array([3.0])
  )
  for decision in (
    made.decide(emb_NE, budget=1.0),
    made.decide(emb_NE, lam=2.0),
  ):
    assert set(decision.choice_N) == {0}
    assert (decision.win_NM == 1).all()
  with pytest.raises(errors.UserError, match='infeasible'):
    made.decide(emb_NE, budget=0.9)


@pytest.mark.parametrize('cost', [0.0, 4.0])
def test_equal_costs_leave_the_best_arm(train, cost):
  made = _fit(train, train[0], cost_M=np.full(3, cost))
  decision = made.decide(train[0], budget=1.0)
  best_N = decision.reward_NM.argmax(axis=1)
  np.testing.assert_array_equal(decision.choice_N, best_N)
  np.testing.assert_array_equal(made.decide(train[0], lam=3.0).choice_N, best_N)


def test_a_free_arm_is_what_no_money_buys(train):
  made = _fit(train, train[0], cost_M=np.array([0.0, 70.0, 27.0]))
  assert set(made.decide(train[0], budget=0.0).choice_N) == {0}
  assert made.decide(train[0], budget=0.5).cost_N.mean() == pytest.approx(
    35, abs=70 / 400
  )


@pytest.mark.parametrize('cost', [-1.0, np.nan, np.inf])
def test_costs_that_are_none(train, cost):
  with pytest.raises(errors.UserError, match='the cost of b is'):
    _fit(train, train[0], cost_M=np.array([1.0, cost, 2.0]))


def test_a_margin_moves_choices_and_budgets_but_no_prediction(train):
  plain = _fit(train, train[0])
  raised = _fit(train, train[0], margin_M=np.array([0.0, 0.3, 0.0]))
  expected, found = (made.decide(train[0], lam=0.0) for made in (plain, raised))
  np.testing.assert_array_equal(found.reward_NM, expected.reward_NM)
  np.testing.assert_array_equal(found.win_NM, expected.win_NM)
  score_NM = expected.reward_NM + [0.0, 0.3, 0.0]
  np.testing.assert_array_equal(found.choice_N, score_NM.argmax(axis=1))
  assert (found.choice_N != expected.choice_N).any()
  cost_N = raised.decide(train[0], budget=0.5).cost_N
  assert cost_N.mean() == pytest.approx(35, abs=62 / 400)
