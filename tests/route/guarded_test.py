import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.probe import contrast
from erp_jax.route import baselines, evaluate, guarded, path, policy
from erp_jax.route import split as split_lib

_CFG = guarded.GuardedConfig()
_COST_M = np.array([1.0, 3.0, 10.0])


def _table(num=400, signal=1.0, seed=0, num_models=3, noise=0.3, width=12):
  """Rewards with arm means, a part common to all arms, and contrasts."""
  rng = np.random.default_rng(seed)
  emb_NE = rng.normal(size=(num, width))
  x_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  theta_EM = np.random.default_rng(99).normal(size=(width, num_models))
  reward_NM = 0.2 * np.arange(num_models) + signal * 0.5 * (x_NE @ theta_EM)
  reward_NM += 2 * x_NE[:, [0]] + noise * rng.normal(size=reward_NM.shape)
  return emb_NE, reward_NM


def _choices(fitted, emb_NE, cost_M):
  lam_path = path.trace(fitted.predict(emb_NE), cost_M)
  return lam_path.start_N, lam_path.event_prompt, lam_path.event_arm


def test_what_prompts_tell_is_used():
  emb_NE, reward_NM = _table()
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  assert fitted.reads_prompts and fitted.margin == 0
  assert fitted.evidence.num_prompts == 400
  assert fitted.evidence.gain[1.0] > 3 * fitted.evidence.se[1.0]
  plain = contrast.fit(emb_NE, reward_NM, _CFG.contrast)
  new_NE, _ = _table(seed=1)
  np.testing.assert_allclose(
    fitted.predict(new_NE), plain.predict(new_NE), atol=1e-12
  )


def test_the_evidence_is_regret_against_the_static_mixture_fold_by_fold():
  emb_NE, reward_NM = _table(num=103, signal=0.3)
  reward_NM[5, 1] = np.nan  # Trains every fold, is held out of none.
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  complete = np.flatnonzero(np.isfinite(reward_NM).all(axis=1))
  fold_N = np.random.default_rng(0).permutation(102) % 5
  best = int(np.argmax(np.nanmean(reward_NM[complete], axis=0)))
  total = {name: 0.0 for name in evaluate.BUDGETS}
  for fold in range(5):
    held = complete[fold_N == fold]
    rest = np.delete(np.arange(103), held)
    probe = contrast.fit(emb_NE[rest], reward_NM[rest], _CFG.contrast)
    split = split_lib.Split(
      models=('a', 'b', 'c'),
      cost_M=_COST_M,
      prediction_NM=probe.predict(emb_NE[held]),
      reward_NM=reward_NM[held],
      spent_NM=np.full((len(held), 3), np.nan),
      category_N=np.full(len(held), 'x'),
      train_reward_NM=reward_NM[rest],
      train_category_N=np.full(len(rest), 'x'),
    )
    assert split.best_arm == best
    curves = baselines.curves(split)
    regret = evaluate.evaluate(split, curves)['regret_at_budget']
    for name in total:
      gain = regret['static_mixture'][name] - regret['erp'][name]
      total[name] += gain * len(held) / 102
  for name, budget in evaluate.BUDGETS.items():
    assert fitted.evidence.gain[budget] == pytest.approx(total[name], abs=1e-12)
  assert fitted.evidence.below == pytest.approx(
    np.mean([total['0.25'], total['0.5'], total['0.75']])
  )


@pytest.mark.parametrize('num_models', [2, 3])
def test_without_proof_the_best_arm_keeps_all_prompts_at_full_budget(
  num_models,
):
  cost_M = _COST_M[:num_models]
  shifted = 0
  for seed in range(6):
    emb_NE, reward_NM = _table(300, 0.35, seed, num_models, noise=1.0)
    fitted = guarded.fit(emb_NE, reward_NM, cost_M, _CFG)
    if not fitted.margin:
      continue
    shifted += 1
    lam_path = path.trace(fitted.predict(emb_NE), cost_M)
    assert (lam_path.start_N == fitted.best_arm).all()
    plain = contrast.fit(emb_NE, reward_NM, _CFG.contrast)
    moved_NM = fitted.predict(emb_NE) - plain.predict(emb_NE)
    expected_M = fitted.margin * (np.arange(num_models) == fitted.best_arm)
    np.testing.assert_allclose(moved_NM - expected_M, 0, atol=1e-12)
    if num_models == 2:  # Who is the first to go does not change.
      before = path.trace(plain.predict(emb_NE), cost_M).event_prompt
      after = lam_path.event_prompt
      np.testing.assert_array_equal(after[len(after) - len(before) :], before)
  assert shifted >= 2


def test_proof_is_z_standard_errors():
  emb_NE, reward_NM = _table()
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  ratio = fitted.evidence.gain[1.0] / fitted.evidence.se[1.0]
  for z, guards in ((0.99 * ratio, False), (1.01 * ratio, True)):
    cfg = guarded.GuardedConfig(z=z)
    assert (guarded.fit(emb_NE, reward_NM, _COST_M, cfg).margin > 0) == guards


def test_noise_is_the_static_mixture_but_for_chance():
  """Bounds: 4 standard errors of the mean of 24 tables of 300 test prompts."""
  difference = {name: [] for name in evaluate.BUDGETS}
  for seed in range(24):
    emb_NE, reward_NM = _table(600, 0.0, seed, noise=1.0)
    fitted = guarded.fit(emb_NE[:300], reward_NM[:300], _COST_M, _CFG)
    split = split_lib.Split(
      models=('a', 'b', 'c'),
      cost_M=_COST_M,
      prediction_NM=fitted.predict(emb_NE[300:]),
      reward_NM=reward_NM[300:],
      spent_NM=np.full((300, 3), np.nan),
      category_N=np.full(300, 'x'),
      train_reward_NM=reward_NM[:300],
      train_category_N=np.full(300, 'x'),
    )
    curves = baselines.curves(split)
    regret = evaluate.evaluate(split, curves)['regret_at_budget']
    for name, values in difference.items():
      values.append(regret['erp'][name] - regret['static_mixture'][name])
  for name, values in difference.items():
    bound = 4 * np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) <= bound + 1e-12, name
  # At full budget one arm takes (nearly) all: what is left to chance is small.
  assert np.abs(difference['1.0']).max() < 0.02


@pytest.mark.parametrize('value', [0.0, 0.3, -7e5])
def test_equal_rewards_are_the_static_mixture(value):
  emb_NE, _ = _table()
  fitted = guarded.fit(emb_NE, np.full((400, 3), value), _COST_M, _CFG)
  assert not fitted.reads_prompts
  np.testing.assert_allclose(
    fitted.predict(emb_NE), np.full((400, 3), value), rtol=1e-12
  )
  assert (path.trace(fitted.predict(emb_NE), _COST_M).start_N == 0).all()


def test_one_arm_is_that_arm():
  emb_NE, reward_NM = _table()
  fitted = guarded.fit(emb_NE, reward_NM[:, :1], _COST_M[:1], _CFG)
  assert not fitted.reads_prompts and fitted.best_arm == 0
  np.testing.assert_allclose(fitted.predict(emb_NE), reward_NM[:, 0].mean())
  std_NM, ood_N = fitted.std(emb_NE)
  assert std_NM.shape == (400, 1) and ood_N.shape == (400,)


def test_too_few_complete_prompts_are_no_evidence():
  emb_NE, reward_NM = _table()
  reward_NM[9:, 2] = np.nan
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  assert fitted.evidence.num_prompts == 0 and not fitted.reads_prompts
  np.testing.assert_allclose(
    fitted.predict(emb_NE), np.tile(reward_NM[:9].mean(axis=0), (400, 1))
  )


def test_units_and_what_arms_share_change_no_decision():
  emb_NE, reward_NM = _table(signal=0.4, noise=0.6)
  reward_NM[np.random.default_rng(1).random(reward_NM.shape) < 0.05] = np.nan
  category_N = np.repeat(['a', 'b'], 200)
  common_N = 50 * np.random.default_rng(2).normal(size=400)
  fits = [
    guarded.fit(emb_NE, changed_NM, _COST_M, _CFG, category_N)
    for changed_NM in (
      reward_NM,
      1e3 * reward_NM,
      reward_NM + common_N[:, None],
    )
  ]
  assert fits[0].reads_prompts
  np.testing.assert_allclose(
    fits[1].predict(emb_NE), 1e3 * fits[0].predict(emb_NE), rtol=1e-7
  )
  for other in fits[1:]:
    for before, after in zip(
      _choices(fits[0], emb_NE, _COST_M),
      _choices(other, emb_NE, _COST_M),
      strict=True,
    ):
      np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(('signal', 'reads'), [(0.0, False), (1.0, True)])
def test_without_budgets_below_1_the_full_one_decides(signal, reads):
  emb_NE, reward_NM = _table(signal=signal)
  cost_M = np.full(3, 5.0)
  fitted = guarded.fit(emb_NE, reward_NM, cost_M, _CFG)
  assert np.isnan(fitted.evidence.below) and fitted.reads_prompts == reads
  start_N = path.trace(fitted.predict(emb_NE), cost_M).start_N
  assert (start_N == fitted.best_arm).all() != reads


def test_it_is_served_as_any_policy():
  emb_NE, reward_NM = _table()
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  new_NE, _ = _table(seed=1)
  served = policy.calibrate(
    name='erp_guarded',
    arms=('a', 'b', 'c'),
    cost_M=_COST_M,
    mean_M=fitted.mean_M,
    bias_M=fitted.bias_M,
    parts=(fitted.part,),
    emb_NE=new_NE,
  )
  decision = served.decide(new_NE, lam=0.02)
  np.testing.assert_array_equal(decision.reward_NM, fitted.predict(new_NE))
  np.testing.assert_array_equal(
    decision.choice_N,
    np.argmax(fitted.predict(new_NE) - 0.02 * _COST_M, axis=1),
  )
  assert decision.std_NM.min() > 0


def test_the_standard_deviation_is_that_of_the_contrasts_ridge():
  emb_NE, reward_NM = _table()
  fitted = guarded.fit(emb_NE, reward_NM, _COST_M, _CFG)
  x_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  centred_NE = x_NE - x_NE.mean(axis=0)
  inverse_EE = np.linalg.inv(
    centred_NE.T @ centred_NE + fitted.beta * np.eye(12)
  )
  leverage_N = 1 / 400 + (centred_NE @ inverse_EE * centred_NE).sum(axis=1)
  target_NM = reward_NM - reward_NM.mean(axis=1, keepdims=True)
  residual_NM = target_NM - (
    fitted.predict(emb_NE) - fitted.predict(emb_NE).mean(axis=1, keepdims=True)
  )
  noise_M = (residual_NM**2 / (1 - leverage_N)[:, None]).mean(axis=0)
  np.testing.assert_allclose(
    fitted.std(emb_NE)[0],
    np.sqrt(leverage_N[:, None] * noise_M),
    rtol=1e-4,  # The triangle is kept in float32.
  )
  assert 0 < fitted.std(emb_NE)[1].mean() <= 0.05


@pytest.mark.parametrize(
  'wrong',
  [{'folds': 1}, {'seed': -1}, {'z': -1.0}, {'leverage_quantile': 0.0}],
)
def test_wrong_settings_are_refused(wrong):
  with pytest.raises(errors.UserError, match=f'guarded.{next(iter(wrong))}'):
    guarded.GuardedConfig(**wrong)


def test_the_penalties_of_the_contrasts_are_the_config_s():
  emb_NE, reward_NM = _table()
  for betas in ((0.5,), (70.0,)):
    cfg = guarded.GuardedConfig(contrast=contrast.ContrastConfig(betas=betas))
    assert guarded.fit(emb_NE, reward_NM, _COST_M, cfg).beta == betas[0]
