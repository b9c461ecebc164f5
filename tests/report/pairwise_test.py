"""The pairwise experiment: numbers by scikit-learn, switches, text."""

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn import linear_model, metrics

from erp_jax.core import resample
from erp_jax.probe import pairwise as pairwise_lib
from erp_jax.probe import records as records_lib
from erp_jax.report import (
  document,
  experiment,
  pairwise,
  pairwise_figure,
  words,
)

_COMMON = experiment.ExperimentConfig(
  splits=3, bootstrap=resample.BootstrapConfig(num_draws=100)
)


def _build(records, common=_COMMON, **settings):
  cfg = pairwise_lib.PairwiseConfig(**settings)
  result = pairwise.build([records], cfg, common)
  json.dumps(result.metrics, allow_nan=False)
  return result


def _tables(result):
  page = document.Document(title='T', lead=[], sections=result.sections)
  return {t.kind: t for s in page.walk() for t in s.tables}


def _text(result):
  page = document.Document(title='T', lead=[], sections=result.sections)
  return ' '.join(' '.join(s.text) for s in page.walk())


def _auroc(reward_NKM, i, j, score_N):
  """Of the k-th against the k-th sample, by single rows."""
  margin_NK = reward_NKM[:, :, i] - reward_NKM[:, :, j]
  n, k = np.nonzero(margin_NK)
  return metrics.roc_auc_score(margin_NK[n, k] > 0, score_N[n])


def test_aurocs_are_scikit_learns_on_every_split(make_records):
  records = make_records()
  found = _build(records).metrics['made']['second']
  reward_NKM = records.reward_NKM['second']
  pairs = [
    ('small|large', 0, 1),
    ('small|middle', 0, 2),
    ('large|middle', 1, 2),
  ]
  values = {name: [] for name, _, _ in pairs}
  for seed, train_N in enumerate(_COMMON.masks(records)):
    prediction_NM = records_lib.predict_rewards(
      records, train_N, _COMMON.ridge
    )['second']
    for name, i, j in pairs:
      margin_NK = (reward_NKM[:, :, i] - reward_NKM[:, :, j])[train_N]
      rows = np.repeat(records.emb_NE[train_N], 4, axis=0)
      model = linear_model.LogisticRegression(tol=1e-10, max_iter=1000)
      model.fit(rows, margin_NK.ravel() > 0)
      scores = (
        (prediction_NM[:, i] - prediction_NM[:, j])[~train_N],
        model.decision_function(records.emb_NE[~train_N]),
      )
      erp, logistic = (
        _auroc(reward_NKM[~train_N], i, j, score_N) for score_N in scores
      )
      values[name].append((erp, logistic, logistic - erp))
      if not seed:
        leaf = found['by_label']['matched']['pairs'][name]
        for kind, value in zip(
          ('erp', 'logistic', 'difference'), values[name][0], strict=True
        ):
          assert leaf[kind]['mean'] == pytest.approx(value, abs=1e-4)
          assert leaf[kind]['lo'] <= leaf[kind]['hi']
  for index, kind in enumerate(('erp', 'logistic', 'difference')):
    columns = {
      name: [value[index] for value in rows] for name, rows in values.items()
    }
    columns['over_pairs'] = np.mean(list(columns.values()), axis=0)
    for name, value_J in columns.items():
      expected = resample.split_corrected(np.array(value_J), 1.0)
      got = found['over_splits'][kind][name]
      assert got == pytest.approx(expected, abs=1e-3), (kind, name)


def test_each_label_has_its_rows_and_the_configs_comes_first(make_records):
  result = _build(make_records(), label='soft')
  rows = _tables(result)['made-first-pairs'].rows
  assert len(rows) == 3 * (3 + 1)
  assert [row[0].text for row in rows[::4]] == [
    'all pairs of samples',
    'k-th against k-th sample',
    'means of the samples',
  ]
  assert rows[3][1].text == 'average over pairs'
  assert rows[0][6].text != words.DASH == rows[4][6].text
  by_label = result.metrics['made']['first']['by_label']
  for label, start in (('soft', 0), ('matched', 4), ('means', 8)):
    leaf = by_label[label]['pairs']['small|large']['logistic']
    assert rows[start][3].value == leaf['mean']
    assert (rows[start][3].lo, rows[start][3].hi) == (leaf['lo'], leaf['hi'])
    alone = _build(make_records(), label=label).metrics['made']['first']
    found = alone['by_label'][label]['pairs']['small|large']['logistic']
    assert found == pytest.approx(leaf, rel=1e-6)
  means = [by_label[name]['over_pairs']['erp']['mean'] for name in by_label]
  assert len(set(means)) == 3


@pytest.mark.parametrize(
  'setting',
  [
    {'c': 0.01},
    {'penalty': 'none'},
    {'penalty': 'cross_validated', 'cs': (0.01, 0.1)},
    {'penalty': 'cross_validated', 'cs': (10.0, 100.0), 'folds': 3},
    {'embedding': 'raw'},
    {'label': 'means'},
    {'splits': 1},
    {'margin': 0.3},
  ],
)
def test_every_switch_changes_the_result(make_records, setting):
  records = make_records()
  scale_N = np.random.default_rng(0).uniform(0.2, 5, 120)
  records = dataclasses.replace(
    records, emb_NE=records.emb_NE * scale_N[:, None]
  )
  plain = _build(records).metrics
  assert _build(records).metrics == plain
  assert _build(records, **setting).metrics != plain


def test_the_regression_may_have_fewer_splits_than_erp(make_records):
  records = make_records()
  counts = {}
  for splits in (0, 1, 2):
    over = _build(records, splits=splits).metrics['made']['first'][
      'over_splits'
    ]
    counts[splits] = [
      over[kind]['over_pairs']['n_splits']
      for kind in ('erp', 'logistic', 'difference')
    ]
  assert counts == {0: [3, 3, 3], 1: [3, 1, 1], 2: [3, 2, 2]}


@pytest.mark.parametrize(
  'lo, hi, margin, expected',
  [
    (-0.02, 0.009, 0.01, 'confirmed'),
    (0.001, 0.009, 0.01, 'confirmed'),
    (0.001, 0.009, 0.005, 'refuted'),
    (-0.02, 0.01, 0.01, 'undecided'),
    (0.001, 0.03, 0.01, 'refuted'),
    (None, None, 0.01, 'not measured'),
  ],
)
def test_the_claim_follows_from_the_interval(lo, hi, margin, expected):
  assert pairwise.no_better(lo, hi, margin) == expected


def test_the_claim_is_in_the_table_and_the_metrics(make_records):
  result = _build(make_records())
  (claims,) = [
    table for kind, table in _tables(result).items() if 'claim' in kind
  ]
  assert [row[0].text for row in claims.rows] == ['first', 'second']
  for row in claims.rows:
    found = result.metrics['made'][row[0].text]
    first = found['by_label']['matched']['over_pairs']['difference']
    assert (row[2].value, row[2].lo, row[2].hi) == tuple(first.values())
    assert row[3].text == pairwise.no_better(first['lo'], first['hi'], 0.01)
    assert row[5].text == found['claim']['over_splits']


def test_figures_show_both_predictors_with_their_intervals(make_records):
  result = _build(make_records())
  page = document.Document(title='T', lead=[], sections=result.sections)
  drawn = {f.name: f.figure for s in page.walk() for f in s.figures}
  assert set(drawn) == {'made-first-pairs', 'made-second-pairs'}
  (axes,) = drawn['made-first-pairs'].axes
  labels = [tick.get_text() for tick in axes.get_yticklabels()]
  assert labels == ['small or large', 'small or middle', 'large or middle',
                    'average over pairs']  # fmt: skip
  found = result.metrics['made']['first']['by_label']['matched']
  leaves = [leaf['erp'] for leaf in found['pairs'].values()]
  leaves.append(found['over_pairs']['erp'])
  shown = axes.containers[: len(leaves)]
  for leaf, container in zip(leaves, shown, strict=True):
    assert container.lines[0].get_xdata()[0] == leaf['mean']
    (bar,) = container.lines[2]
    (ends,) = bar.get_segments()
    assert sorted(ends[:, 0]) == pytest.approx([leaf['lo'], leaf['hi']])
  assert len(axes.containers) == 8
  assert len(drawn['made-first-pairs'].legends[0].get_texts()) == 2


def test_long_names_of_pairs_take_two_lines():
  assert pairwise_figure.wrap('small or large') == 'small or large'
  name = 'Meta-Llama-3.1-8B-Instruct or Meta-Llama-3.1-70B-Instruct'
  assert pairwise_figure.wrap(name).split('\n') == [name[:29], name[30:]]


def test_one_arm_has_no_pairs(make_records):
  alone = make_records(arms=('small',), er_NM={})
  result = _build(alone)
  assert 'small is the only arm' in _text(result)
  assert result.metrics == {'made': {}} and not _tables(result)


def test_equal_rewards_are_said_so(make_records):
  records = make_records()
  result = _build(
    dataclasses.replace(
      records, reward_NKM={'first': np.full((120, 2, 3), 0.3)}
    )
  )
  assert 'All rewards of a prompt are equal' in _text(result)
  row = _tables(result)['made-first-pairs'].rows[0]
  assert row[2].text == words.DASH and 'no untied' in row[2].note
  assert row[5].text == '100.0 %'
  claim = result.metrics['made']['first']['claim']
  assert claim['first_split'] == claim['over_splits'] == 'not measured'
  assert not any(s.figures for s in result.sections[0].sections)


def test_one_sample_makes_all_labels_the_same_and_missing_ones_are_left(
  make_records,
):
  records = make_records(k=1)
  reward_NKM = records.reward_NKM['first'].copy()
  reward_NKM[::5, :, 2] = np.nan
  result = _build(
    dataclasses.replace(records, reward_NKM={'first': reward_NKM})
  )
  assert 'wins from matched samples' in _text(result)
  found = result.metrics['made']['first']['by_label']
  assert list(found) == ['matched']
  test_N = ~next(_COMMON.masks(records))
  num = found['matched']['pairs']['small|middle']['num_untied']
  assert num == np.isfinite(reward_NKM[test_N, 0, 2]).sum() < test_N.sum()
  assert math.isclose(
    found['matched']['pairs']['small|large']['num_untied'], test_N.sum()
  )
