"""What a reader of E1 to E4 sees is what was measured."""

import csv
import io
import json
import math

import numpy as np
import pytest
from sklearn import linear_model, metrics

from erp_jax.core import resample
from erp_jax.probe import predictability as numbers
from erp_jax.probe import ridge
from erp_jax.report import cells, document, experiment, paper, predictability

_COMMON = experiment.ExperimentConfig(
  splits=2,
  ridge=ridge.RidgeConfig(beta=0.3),
  bootstrap=resample.BootstrapConfig(num_draws=100),
)
_ARMS = ('llama31-8b', 'gemma2-9b', 'gemma1-7b')


@pytest.fixture
def make_paper_records(make_records):
  """Records with names of the paper's arms, reward models and categories."""
  names = {
    'arms': _ARMS,
    'rewards': ('grm', 'judge'),
    'categories': ('chat', 'code', 'math'),
  }
  return lambda **changes: make_records(**names | changes)


def _build(records, **cfg):
  return predictability.build(
    [records], numbers.PredictabilityConfig(**cfg), _COMMON
  )


def _tables(result):
  page = document.Document(title='T', lead=[], sections=result.sections)
  return {t.kind: t for section in page.walk() for t in section.tables}


def _rows(table):
  return list(csv.reader(io.StringIO(cells.csv_text(table))))


def _expected(records, reward):
  """{category or None: R² of each arm} on the first split, by scikit-learn."""
  train_N = next(_COMMON.masks(records))
  mean_NM = records.reward_NKM[reward].mean(axis=1)
  fitted = linear_model.Ridge(alpha=0.3)
  fitted.fit(records.emb_NE[train_N], mean_NM[train_N])
  result = {}
  for category in (None, 'code', 'math', 'chat'):
    rows_N = ~train_N
    if category:
      rows_N = rows_N & (records.category_N == category)
    guess_NM = fitted.predict(records.emb_NE[rows_N])
    result[category] = metrics.r2_score(
      mean_NM[rows_N], guess_NM, multioutput='raw_values'
    )
  return result


def test_r2_is_in_the_papers_layout_and_in_the_metrics(make_paper_records):
  records = make_paper_records()
  result = _build(records)
  tables = _tables(result)
  for reward in ('grm', 'judge'):
    expected = _expected(records, reward)
    head, *rows = _rows(tables[f'made-{reward}-r2'])
    shown = ['aggregate', 'coding', 'math', 'general chat']
    assert [head[0], *head[1::3]] == ['Model', *shown]
    assert [row[0] for row in rows] == [*_ARMS, 'mean of the models']
    values = np.array([[float(x) for x in row[1::3]] for row in rows])
    r2_MC = np.stack(list(expected.values()), axis=1)
    np.testing.assert_allclose(values[:3], r2_MC)
    np.testing.assert_allclose(values[3], r2_MC.mean(axis=0))
    leaf = result.metrics['made'][reward]['r2']
    assert leaf['aggregate']['arms']['gemma2-9b']['mean'] == values[1, 0]
    chat = leaf['by_category']['chat']
    assert chat['mean']['mean'] == pytest.approx(values[3, 3])
    assert chat['arms']['gemma1-7b']['lo'] == float(rows[2][11])
  json.dumps(result.metrics, allow_nan=False)


def test_ceilings_and_splits_stand_beside(make_paper_records):
  result = _build(make_paper_records())
  tables = _tables(result)
  found = result.metrics['made']['grm']
  leaf = found['r2']['by_category']['code']['arms']['gemma2-9b']
  rows = {tuple(row[:2]): row for row in _rows(tables['made-grm-ceiling'])}
  ceiling = rows['gemma2-9b', 'ceiling']
  assert float(ceiling[5]) == leaf['ceiling']['mean']
  assert float(ceiling[6]) == leaf['ceiling']['lo'] > 0.05
  share = rows['gemma2-9b', 'R² / ceiling']
  assert float(share[5]) == pytest.approx(
    leaf['mean'] / leaf['ceiling']['mean']
  )
  splits = found['r2_over_splits']['by_category']['code']
  rows = {row[0]: row for row in _rows(tables['made-grm-r2-splits'])}
  for name, one in {
    **splits['arms'],
    'mean of the models': splits['mean'],
  }.items():
    assert float(rows[name][4]) == one['mean']
    assert float(rows[name][6]) == one['hi'] > one['mean']
  note = tables['made-grm-r2-splits'].rows[0][2].note
  assert f'± {splits["arms"]["llama31-8b"]["sd"]:.3f}' in note
  assert 'ceiling 0.' in tables['made-grm-r2'].rows[0][1].note
  off = _tables(_build(make_paper_records(), ceiling=False))
  assert 'made-grm-ceiling' not in off
  assert 'ceiling' not in off['made-grm-r2'].rows[0][1].note


def test_the_paper_stands_beside_what_it_has(make_paper_records):
  result = _build(make_paper_records())
  tables = _tables(result)
  assert 'made-judge-paper' not in tables
  rows = tables['made-grm-paper'].rows
  labels = [(row[0].text, row[1].text) for row in rows]
  names = (*_ARMS, 'mean of the models')
  assert labels == [(n, w) for n in names for w in ('here', 'paper')]
  by_label = dict(zip(labels, rows, strict=True))
  found = result.metrics['made']['grm']['r2_over_splits']
  here = by_label['llama31-8b', 'here']
  assert here[2].value == found['aggregate']['arms']['llama31-8b']['mean']
  there = by_label['llama31-8b', 'paper']
  assert [cell.text for cell in there[2:]] == ['0.45', '0.60', '−0.21', '0.24']
  assert by_label['mean of the models', 'paper'][2].value == pytest.approx(
    (0.45 + 0.37 + 0.29) / 3
  )
  assert 'SIMULATED' in tables['made-grm-paper'].title
  some = make_paper_records(arms=('gemma2-9b', 'other', 'third'))
  rows = _tables(_build(some))['made-grm-paper'].rows
  assert {row[0].text for row in rows} == {'gemma2-9b'}
  recorded = _tables(_build(make_paper_records(origin='recorded')))
  assert 'recorded outcomes' in recorded['made-grm-paper'].title


def test_contrasts_fits_and_variances_are_shown(make_paper_records):
  result = _build(make_paper_records())
  tables = _tables(result)
  found = result.metrics['made']['grm']
  rows = {row[0]: row for row in _rows(tables['made-grm-contrasts'])}
  together = found['contrasts']['first_split']['together']
  row = rows['all contrasts together']
  assert [float(row[i]) for i in (1, 4, 7)] == [
    together['mean'],
    together['ceiling']['mean'],
    together['of_ceiling']['mean'],
  ]
  assert float(row[10]) == found['contrasts']['over_splits']['together']['mean']
  rows = {row[0]: row for row in _rows(tables['made-grm-fits'])}
  assert len(rows) == 1 + 6
  shown = found['fits']['mean, unit']['by_category']['math']['mean']
  assert float(rows['mean, unit'][7]) == shown['mean']
  variance = tables['made-variance'].rows
  assert [row[1].text for row in variance] == ['rewards', 'known ER'] * 2
  assert variance[1][4].value == found['variance_of_er']['interaction']
  total = sum(cell.value for cell in variance[0][2:])
  for cell in variance[0][2:]:
    assert cell.note.endswith(f']\n{100 * cell.value / total:.1f} %')
  lo, hi = found['variance']['intervals']['interaction']
  assert (variance[0][4].lo, variance[0][4].hi) == (lo, hi)
  assert 'made-grm-fits' not in _tables(
    _build(make_paper_records(), compare_fits=False)
  )


def test_flags_known_or_not(make_paper_records):
  rng = np.random.default_rng(0)
  flag_NKM = {
    name: rng.random((120, 4, 3)) < 0.1 for name in ('cut', 'refusal')
  }
  result = _build(make_paper_records(flag_NKM=flag_NKM))
  table = _tables(result)['made-grm-without']
  rows = {row[0].text: row[1:] for row in table.rows}
  assert list(rows) == ['none', 'empty', 'refusal', 'cut', 'refusal and cut']
  assert {cell.note for cell in rows['empty']} == {'not known of these records'}
  share = flag_NKM['cut'][:, :, 1].mean()
  assert f'{100 * share:.1f} % of responses left out' in rows['cut'][1].note
  found = result.metrics['made']['grm']['without']
  cut = found['cut']['r2']['aggregate']
  assert rows['cut'][1].value == cut['arms']['gemma2-9b']['mean']
  assert found['empty'] == {'reason': 'not known of these records'}
  assert rows['none'][1].value != rows['cut'][1].value
  assert found['refusal+cut']['share']['gemma2-9b'] > share


def test_the_figure_has_a_panel_per_arm(make_paper_records):
  records = make_paper_records()
  (section,) = _build(records).sections
  figure = section.sections[0].figures[0]
  assert figure.name == 'made-grm-predicted'
  panels = [axes for axes in figure.figure.axes if axes.get_visible()]
  r2_M = _expected(records, 'grm')[None]
  for axes, arm, r2 in zip(panels, _ARMS, r2_M, strict=True):
    assert axes.get_title() == f'{arm} (R² {r2:.2f})'
  test_N = ~next(_COMMON.masks(records))
  drawn = {
    name: line.get_ydata()
    for name, line in zip(
      ['coding', 'math', 'general chat'], panels[1].lines, strict=False
    )
  }
  legend = [t.get_text() for t in figure.figure.legends[0].get_texts()]
  assert legend[:3] == list(drawn)
  mean_N = records.reward_NKM['grm'].mean(axis=1)[:, 1]
  for category, name in paper.CATEGORIES.items():
    if category != 'instruction_following':
      rows_N = test_N & (records.category_N == category)
      np.testing.assert_allclose(drawn[name.replace('_', ' ')], mean_N[rows_N])


def test_the_page_says_what_is_simulated_missing_and_undefined(
  make_paper_records,
):
  records = make_paper_records()
  reward_NKM = {'grm': records.reward_NKM['grm'][:, :1].copy()}
  reward_NKM['grm'][:, :, 1] = 0.5
  reward_NKM['grm'][:7, :, 2] = np.nan
  records = make_paper_records(reward_NKM=reward_NKM, er_NM={})
  result = _build(records)
  text = ' '.join(result.sections[0].sections[0].text)
  test_N = ~next(_COMMON.masks(records))
  assert f'of 60: gemma1-7b {test_N[7:].sum()}.' in text
  assert 'No noise ceilings: K = 1' in text
  assert 'which responses are refusal, empty and cut.' in text
  assert 'undefined for gemma2-9b, aggregate: all mean rewards are' in text
  tables = _tables(result)
  assert 'made-grm-without' not in tables
  assert 'Ceiling' not in tables['made-grm-contrasts'].head
  row = tables['made-grm-r2'].rows[1]
  assert row[1].text == 'undefined' and math.isnan(row[1].value)
  assert 'equal' in row[1].note
  assert tables['made-grm-r2'].rows[3][1].text == 'undefined'
  variance = tables['made-variance'].rows[0]
  assert 'at most' in variance[2].note and 'K = 1' in variance[5].note
  found = result.metrics['made']['grm']
  leaf = found['r2']['aggregate']['arms']['gemma2-9b']
  assert leaf['mean'] is None and 'equal' in leaf['reason']
  json.dumps(result.metrics, allow_nan=False)
  page = document.Document(title='T', lead=[], sections=result.sections)
  html = document.files(page)['report.html'].decode()
  assert 'SIMULATED rewards' in html
