import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from scipy import stats
from sklearn import metrics as sklearn_metrics

from erp_jax.core import errors, resample
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import simulate_config
from erp_jax.route import baselines, coverage, path

_CFG = coverage.CoverageConfig(
  simulation=simulate_config.SimulationConfig(
    prompts_per_category=60, width=8, k=4
  ),
  population_per_category=500,
  sizes=(60,),
  sets=20,
  bootstrap=resample.BootstrapConfig(num_draws=200),
)


@pytest.fixture(scope='module')
def population():
  return coverage.draw_population(_CFG)


def _by_hand(population, test, curves, rows):
  """All statistics of these rows of a test set, whose λ are as they are."""
  prediction_NM, reward_NM = test.prediction_NM[rows], test.reward_NM[rows]
  result = [
    sklearn_metrics.r2_score(reward_NM[:, m], prediction_NM[:, m])
    for m in range(reward_NM.shape[1])
  ]
  i, j = population.pair
  result.append(
    sklearn_metrics.roc_auc_score(
      reward_NM[:, i] > reward_NM[:, j],
      prediction_NM[:, i] - prediction_NM[:, j],
    )
  )
  cost_M = test.cost_M
  for at_budget in (True, False):
    regrets = []
    for curve in curves.values():
      if at_budget:
        share_NM = curve.path.share(
          path.mix_at(curve.path.cost_P, population.budget)
        )
      else:
        share_NM = curve.mean_share(cost_M.min(), cost_M[test.best_arm])
      value_N = reward_NM.max(1) - (share_NM[rows] * reward_NM).sum(1)
      regrets.append(value_N.mean())
    result += [*regrets, regrets[0] - regrets[1]]
  return np.array(result)


def test_values_are_those_of_copies_and_of_prompts_left_out(population):
  test = coverage._test_set(population.split, np.arange(0, 1800, 30))
  curves = coverage._curves(test)
  counts = coverage._counts(60, _CFG.bootstrap)
  value_QS = coverage._values(population, test, curves, counts)
  all_rows = np.arange(60)
  assert value_QS.shape == (1 + 200 + 60, len(coverage.names(population)))
  np.testing.assert_allclose(
    value_QS[0], _by_hand(population, test, curves, all_rows)
  )
  drawn_QN = np.concatenate([*resample.draw_counts(60, _CFG.bootstrap)])
  for q in (0, 150):
    rows = np.repeat(all_rows, drawn_QN[q].astype(int))
    np.testing.assert_allclose(
      value_QS[1 + q], _by_hand(population, test, curves, rows)
    )
  for n in (0, 59):
    rows = np.delete(all_rows, n)
    np.testing.assert_allclose(
      value_QS[201 + n], _by_hand(population, test, curves, rows)
    )


def test_the_truth_is_the_populations(population):
  split = population.split
  found = dict(
    zip(coverage.names(population), coverage.truths(population), strict=True)
  )
  assert len(split.reward_NM) == 2000
  for m, model in enumerate(split.models):
    assert found[f'r2:{model}'] == pytest.approx(
      sklearn_metrics.r2_score(split.reward_NM[:, m], split.prediction_NM[:, m])
    )
  lo, hi = split.cost_M.min(), split.cost_M[split.best_arm]
  curves = baselines.curves(split)
  for name in ('erp', 'static_mixture'):
    curve = curves[name]
    at = curve.path.cost_P, curve.regret_P, np.array([0.5 * hi])
    assert found[f'regret:{name}'] == pytest.approx(path.value_at(*at)[0])
    # Every corner is one of the costs: trapezia have no error.
    costs = np.clip(np.sort(np.append(curve.path.cost_P, [lo, hi])), lo, hi)
    value = path.value_at(curve.path.cost_P, curve.regret_P, costs)
    area = np.trapezoid(value, costs)
    assert found[f'area:{name}'] == pytest.approx(area / (hi - lo))
  for what in ('regret', 'area'):
    assert found[f'{what}:erp-static_mixture'] == pytest.approx(
      found[f'{what}:erp'] - found[f'{what}:static_mixture']
    )


def test_other_prices_have_the_populations_regret_at_them(population):
  test = coverage._test_set(population.split, np.arange(40))
  curves = coverage._curves(test)
  found = coverage._at_prices(population, curves)
  erp = curves['erp']
  mix = path.mix_at(erp.path.cost_P, population.budget)
  assert 0 < mix.next_frac < 1
  prices_P = path.inner_prices(erp.path.lam_P)
  split = population.split
  value = 0.0
  for point, prob in ((mix.point, 1 - mix.next_frac),) + (
    (mix.point + 1, mix.next_frac),
  ):
    choice_N = path.choose(
      split.prediction_NM, split.cost_M, np.full(2000, prices_P[point])
    )
    chosen_N = split.reward_NM[np.arange(2000), choice_N]
    value += prob * (split.reward_NM.max(axis=1) - chosen_N).mean()
  assert found[0] == pytest.approx(value)
  assert found[1] == coverage.truths(population)[7]  # The mixture is blind.
  assert found[0] != pytest.approx(coverage.truths(population)[6])


def test_bca_is_scipys():
  row_N = np.random.default_rng(3).exponential(size=30)
  result = stats.bootstrap(
    (row_N,), np.mean, n_resamples=999, method='BCa', rng=4
  )
  left_out_N = (row_N.sum() - row_N) / 29
  value_Q = np.concatenate(
    [[row_N.mean()], result.bootstrap_distribution, left_out_N]
  )
  found = coverage.bounds(value_Q, 999, coverage.BCA)
  np.testing.assert_allclose(found, result.confidence_interval, rtol=2e-3)
  plain = coverage.bounds(value_Q, 999, coverage.PERCENTILE)
  assert not np.allclose(found, plain, rtol=2e-3)
  lo, hi = plain
  np.testing.assert_allclose(
    coverage.bounds(value_Q, 999, coverage.BASIC),
    (2 * row_N.mean() - hi, 2 * row_N.mean() - lo),
  )


def test_counts_of_how_many_hold_the_truth(population, monkeypatch):
  # Intervals from 0 hold all truths at or below their upper bound alone.
  def bounds(value_Q, num_draws, method):
    return -np.inf, value_Q[0]

  monkeypatch.setattr(coverage, 'bounds', bounds)
  found = coverage.cover(population, 60, _CFG)
  truth_S = coverage.truths(population)
  rng = np.random.default_rng([0, 60])
  above_S = np.zeros(len(truth_S))
  for _ in range(20):
    rows = rng.integers(2000, size=60)
    test = coverage._test_set(population.split, rows)
    curves = coverage._curves(test)
    above_S += truth_S <= _by_hand(population, test, curves, np.arange(60))
  for s, by_method in enumerate(found.values()):
    leaf = by_method[coverage.BASIC][coverage.BUDGET]
    assert leaf['share'] == above_S[s] / 20
    assert leaf['error'] == pytest.approx(
      np.sqrt(leaf['share'] * (1 - leaf['share']) / 20)
    )


def test_the_artefact_says_that_it_is_simulated(tmp_path):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  content = coverage.run(workdir, _CFG)
  assert content['simulated'] is True
  assert content == json.loads((tmp_path / 'coverage.json').read_text())
  assert content['population'] == 2000 and content['sets'] == 20
  assert list(content['sizes']) == ['60']
  leaf = content['sizes']['60']['area:erp-static_mixture']['percentile']
  assert leaf['width'] > 0
  assert 0 <= leaf['same_budget']['share'] <= 1
  assert coverage.run(workdir, _CFG) == content
  with pytest.raises(errors.UserError, match='coverage.sets = 20, now .* 21'):
    coverage.run(workdir, dataclasses.replace(_CFG, sets=21))


@pytest.mark.slow
def test_intervals_cover_on_simulated_test_sets():
  cfg = dataclasses.replace(
    _CFG, sets=300, population_per_category=5000, sizes=(200,)
  )
  population = coverage.draw_population(cfg)
  found = coverage.cover(population, 200, cfg)
  for key, by_method in found.items():
    used = by_method[coverage.methods(key)[0]]
    # Of 300, .95 has a standard error of .013.
    assert 0.9 <= used[coverage.BUDGET]['share'] <= 0.99, key
    assert 0.9 <= used[coverage.PRICES]['share'] <= 0.99, key


@pytest.mark.parametrize(
  'changes, match',
  [
    ({'reward': 'oast'}, "'oast' is not in .* did you mean 'oasst'"),
    ({'pair': ('gemma2-9b', 'gemma2-9b')}, 'pair is .*gemma2-9b'),
    ({'pair': ('gemma2-9b', 'other')}, 'pair is .*other'),
    ({'budget': '0.6'}, "budget is '0.6'; allowed: 0.25"),
    ({'sizes': ()}, 'sizes are'),
    ({'sizes': (1,)}, 'sizes are'),
    ({'sets': 0}, 'sets must be >= 1, got 0'),
  ],
)
def test_config_errors_name_the_value(changes, match):
  with pytest.raises(errors.UserError, match=match):
    coverage.CoverageConfig(**changes)


def test_a_budget_below_the_cheapest_arm_is_refused():
  arms = {
    'a': simulate_config.SimulatedArm(nominal_b=1.0, quality=3.0),
    'b': simulate_config.SimulatedArm(nominal_b=2.0, quality=-3.0),
  }
  simulation = dataclasses.replace(_CFG.simulation, arms=arms)
  cfg = dataclasses.replace(_CFG, simulation=simulation, pair=('a', 'b'))
  with pytest.raises(errors.UserError, match='best single arm is a: a budget'):
    coverage.draw_population(cfg)
