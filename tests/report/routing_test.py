"""Routing's tables against a loop over prompts and splits."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import linear_model

from erp_jax.core import errors, resample
from erp_jax.report import experiment
from erp_jax.report import routing as report
from erp_jax.route import baselines, guarded, routing

_QUICK = routing.RoutingConfig(policies=('erp', 'erp_loo'), refit_draws=0)


def _common(splits=3):
  return experiment.ExperimentConfig(
    splits=splits, bootstrap=resample.BootstrapConfig(num_draws=200)
  )


def _build(records, cfg=_QUICK, splits=3):
  return report.build([records], cfg, _common(splits))


def _leaf(result, *keys):
  node = result.metrics['made']['first']
  for key in keys:
    node = node[key]
  return node


def test_full_budget_is_a_loop_over_prompts(make_records):
  """ERP at 100 % where the best arm is the dearest: argmax of scikit-learn."""
  records = make_records()
  result = _build(records)
  mean_NM = records.reward_NKM['first'].mean(axis=1)
  regrets, static = [], []
  for train_N in _common().masks(records):
    model = linear_model.Ridge(alpha=1.0)
    model.fit(records.emb_NE[train_N], mean_NM[train_N])
    predicted_NM = model.predict(records.emb_NE[~train_N])
    test_NM = mean_NM[~train_N]
    rows = np.arange(len(test_NM))
    best_N = test_NM.max(axis=1)
    regrets.append((best_N - test_NM[rows, predicted_NM.argmax(axis=1)]).mean())
    best = int(mean_NM[train_N].mean(axis=0).argmax())
    assert records.arms[best] == 'large'
    static.append((best_N - test_NM[:, best]).mean())
  leaf = _leaf(result, 'over_splits', 'regret', 'erp', '1.0')
  assert leaf['mean'] == pytest.approx(np.mean(regrets))
  difference = np.array(regrets) - static
  leaf = _leaf(result, 'over_splits', 'minus_static', 'erp', '1.0')
  assert leaf['mean'] == pytest.approx(difference.mean())
  # Nadeau and Bengio: as many test as training prompts, three splits.
  scale = math.sqrt((1 / 3 + 1) * difference.var(ddof=1))
  assert leaf['hi'] == pytest.approx(
    difference.mean() + stats.t.ppf(0.975, 2) * scale
  )


def test_half_the_calls_recover_what_a_loop_says(make_records):
  """PGR at 50 %: the half of the highest margins goes to the strong arm."""
  records = make_records()
  mean_NM = records.reward_NKM['first'].mean(axis=1)
  train_N = next(_common().masks(records))
  model = linear_model.Ridge(alpha=1.0)
  model.fit(records.emb_NE[train_N], mean_NM[train_N])
  predicted_NM = model.predict(records.emb_NE[~train_N])
  weak_N, strong_N = mean_NM[~train_N][:, [0, 1]].T  # small and large
  called = np.argsort(predicted_NM[:, 0] - predicted_NM[:, 1])[:30]
  quality = np.where(np.isin(np.arange(60), called), strong_N, weak_N).mean()
  recovered = (quality - weak_N.mean()) / (strong_N.mean() - weak_N.mean())
  found = _leaf(_build(records, splits=1), 'over_splits', 'benchmarks', 'erp')
  assert found['pgr50']['mean'] == pytest.approx(recovered)


def test_truth_lies_between_the_two_bounds(make_records):
  records = make_records(num=900, noise=1.5)
  result = _build(records, splits=1)
  shrinking = dataclasses.replace(_QUICK, shrinkage=True)
  shrunken = _leaf(_build(records, shrinking, 1), 'oracle', 'shrunken')
  assert 'shrunken' not in _leaf(result, 'oracle')
  for policy in ('erp', 'static_mixture'):
    low, true, high = (
      _leaf(result, 'oracle', kind, policy, '1.0')['mean']
      for kind in ('split_half', 'true', 'plug_in')
    )
    assert low < true < high
    # Chosen on all samples, not on half of them, and not taken at its word.
    assert low < shrunken[policy]['1.0']['mean'] < high


@pytest.mark.parametrize(
  'change, where',
  [
    ({'calibrate': 'out_of_fold'}, ('spent', 'erp', '0.5')),
    ({'cost_weight': 0.05}, ('regret', 'erp', '0.75')),
    ({'curve': baselines.CurveConfig(blind='draws')}, ('area', 'random')),
    (
      {'curve': baselines.CurveConfig(prices='log_grid', num_prices=3)},
      ('regret', 'erp', '0.5'),
    ),
  ],
)
def test_every_switch_matters(make_records, change, where):
  records = make_records()
  plain = _build(records, splits=2)
  changed = _build(records, dataclasses.replace(_QUICK, **change), 2)
  if where[-1] == 'random':
    where = ('regret', 'random', '1.0')
  assert _leaf(changed, 'over_splits', *where)['mean'] != pytest.approx(
    _leaf(plain, 'over_splits', *where)['mean'], abs=1e-6
  )


def test_the_hull_is_below_the_polyline(make_records):
  records = make_records()
  plain = _build(records, splits=1)
  hull = _build(records, dataclasses.replace(_QUICK, frontier='hull'), 1)
  values = [
    np.array(
      [leaf['mean'] for leaf in _leaf(r, 'over_splits', 'frontier', 'erp')]
    )
    for r in (plain, hull)
  ]
  assert (values[1] <= values[0] + 1e-12).all()
  assert (values[1] < values[0] - 1e-6).any()


def test_refits_are_wider_than_the_bootstrap_of_one_router(make_records):
  records = make_records(noise=3.0)
  assert not _leaf(_build(records, splits=1), 'refit')
  result = _build(records, dataclasses.replace(_QUICK, refit_draws=100), 1)
  again = _leaf(result, 'refit', 'regret_at_budget', 'erp', '1.0')
  once = _leaf(result, 'first_split', 'regret_at_budget', 'erp', '1.0')
  assert again['mean'] == pytest.approx(once['mean'])
  assert again['hi'] - again['lo'] > once['hi'] - once['lo']
  kinds = [t.kind for t in result.sections[0].sections[0].tables]
  assert 'made-first-refits' in kinds


def test_folds_and_policies_matter(make_records):
  records = make_records()
  folds = [
    _build(
      records,
      dataclasses.replace(_QUICK, calibrate='out_of_fold', folds=folds),
      1,
    )
    for folds in (2, 5)
  ]
  spent = [_leaf(r, 'over_splits', 'spent', 'erp', '0.5') for r in folds]
  assert spent[0]['mean'] != spent[1]['mean']
  assert 'erp_loo' not in _leaf(
    _build(records, dataclasses.replace(_QUICK, policies=('erp',)), 1),
    *('over_splits', 'regret'),
  )


def test_the_guarded_policy_is_guarded_s_own(make_records):
  records = make_records()
  cfg = routing.RoutingConfig(policies=('erp', 'erp_guarded'), refit_draws=0)
  train_N = next(_common().masks(records))
  mean_NM = records.mean_NM('first')
  fitted = guarded.fit(
    records.emb_NE[train_N],
    mean_NM[train_N],
    np.array([1.0, 9.0, 4.0]),
    cfg.guarded,
    records.category_N[train_N],
  )
  test_NM = mean_NM[~train_N]
  choice_N = fitted.predict(records.emb_NE[~train_N]).argmax(axis=1)
  regret = (test_NM.max(axis=1) - test_NM[np.arange(60), choice_N]).mean()
  leaf = _leaf(_build(records, cfg, 1), 'over_splits', 'regret')
  assert leaf['erp_guarded']['1.0']['mean'] == pytest.approx(regret)


def test_zooter_routes_too(make_records):
  result = _build(
    make_records(), dataclasses.replace(_QUICK, policies=('erp', 'zooter')), 1
  )
  random = _leaf(result, 'over_splits', 'regret', 'random', '1.0')['mean']
  assert (
    _leaf(result, 'over_splits', 'regret', 'zooter', '1.0')['mean'] < random
  )


def test_the_best_possible_policy_is_said_to_contain_the_others(make_records):
  result = _build(make_records(num=600, noise=0.05), splits=2)
  section = result.sections[0].sections[0]
  verdicts = next(t for t in section.tables if t.kind.endswith('verdicts'))
  found = {(row[0].text, row[1].text): row[2].text for row in verdicts.rows}
  assert found['ERP router', 'Random arm'] == 'contains it'
  assert (
    found['ERP router', 'Static mixture (ignores the prompt)'] == 'contains it'
  )


def test_one_sample_says_why_there_is_no_lower_bound(make_records):
  result = _build(make_records(k=1), splits=1)
  section = result.sections[0].sections[0]
  oracle = next(t for t in section.tables if t.kind.endswith('oracle'))
  assert 'K = 1' in oracle.title
  assert _leaf(result, 'oracle', 'split_half', 'erp', '1.0')['mean'] is None


def test_one_arm_is_said_so(make_records):
  one = make_records(arms=('small',))
  result = _build(one, routing.RoutingConfig(), splits=1)  # Zooter too.
  assert 'nothing to route' in result.sections[0].sections[0].text[0]


def test_missing_rewards_train_where_they_are_and_are_counted(make_records):
  records = make_records()
  reward_NKM = {n: v.copy() for n, v in records.reward_NKM.items()}
  reward_NKM['first'][::5, :, 0] = np.nan
  result = _build(make_records(reward_NKM=reward_NKM), splits=1)
  assert _leaf(result, 'over_splits', 'regret', 'erp', '1.0')['mean'] > 0
  assert _leaf(result, 'oracle', 'num_left_out') == 0
  json.dumps(result.metrics, allow_nan=False)


def test_equal_costs_leave_one_point_per_policy(make_records):
  records = make_records(cost_NM=np.full((120, 3), 2.0))
  result = _build(records, splits=1)
  assert _leaf(result, 'over_splits', 'regret', 'erp', '0.5')['mean'] is None
  assert _leaf(result, 'over_splits', 'regret', 'erp', '1.0')['mean'] > 0
  free = _build(make_records(cost_NM=np.zeros((120, 3))), splits=1)
  assert _leaf(free, 'over_splits', 'regret', 'erp', '0.5')['mean'] > 0


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'policies': ('zooter',)}, 'erp always among them'),
    ({'policies': ('erp', 'best')}, 'allowed: erp, erp_loo'),
    ({'calibrate': 'train'}, 'test, out_of_fold'),
    ({'frontier': 'line'}, 'polyline, hull'),
    ({'folds': 1}, 'folds must be >= 2'),
    ({'refit_draws': 10}, 'refit_draws must be 0 or >= 100'),
    ({'cost_weight': -1.0}, 'cost_weight must be >= 0'),
  ],
)
def test_config_mistakes(fields, message):
  with pytest.raises(errors.UserError, match=message):
    routing.RoutingConfig(**fields)
