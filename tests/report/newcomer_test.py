import dataclasses
import json

import numpy as np
import pytest

from erp_jax.core import resample
from erp_jax.probe import ridge
from erp_jax.report import cells, document, terminal
from erp_jax.report import newcomer as report
from erp_jax.route import enlarged, learning, newcomer

_TRAIN_N = np.arange(120) < 70
_CFG = newcomer.NewcomerConfig(num_prompts=(5, 30), repeats=4)
_BOOTSTRAP = resample.BootstrapConfig(num_draws=100)
_RIDGE = ridge.RidgeConfig()


def _measure(records, arm='middle', cfg=_CFG):
  return report.measure(records, arm, _TRAIN_N, _RIDGE, cfg, _BOOTSTRAP)


@pytest.fixture
def make_one(make_records):
  """Records of a single reward model: figures take their time."""

  def make():
    records = make_records()
    first = {'first': records.reward_NKM['first']}
    return dataclasses.replace(records, reward_NKM=first, er_NM={})

  return make


@pytest.fixture
def measured(make_one):
  return _measure(make_one())


def test_metrics_are_those_of_the_library(make_one, measured):
  records = make_one()
  json.dumps(measured, allow_nan=False)
  assert measured['origin'] == 'simulated'
  known = newcomer.setting(records, 'first', 'middle', _TRAIN_N, _RIDGE)
  found = measured['rewards']['first']
  together = ridge.fit(
    records.emb_NE[:70], records.mean_NM('first')[:70], _RIDGE
  )
  prediction_N = ridge.predict(together, records.emb_NE[70:])[:, 2]
  assert found['compared']['plain'] == enlarged.compare(
    known, prediction_N, _BOOTSTRAP
  )
  curve = newcomer.learn(known, _RIDGE, _CFG)['pooled', 30]
  (row,) = (
    row
    for row in found['curve']
    if (row['variant'], row['prompts']) == ('pooled', 30)
  )
  value_J = curve.saved_JP[:, learning.BUDGETS.index('0.5')]
  assert row['saved']['0.5']['mean'] == pytest.approx(value_J.mean())
  assert row['saved']['0.5']['se'] == pytest.approx(value_J.std(ddof=1) / 2)
  over_J = curve.saved_JP[:, :4][:, np.isfinite(curve.saved_JP[0, :4])].mean(1)
  assert row['saved_mean']['mean'] == pytest.approx(over_J.mean())
  every = found['curve'][-1]
  assert every['prompts'] == 70 and every['r2']['se'] is None


def test_tables_say_what_the_metrics_do(measured):
  compared, _, curve = report.tables(measured, 'first')
  values = measured['rewards']['first']['compared']['plain']
  by_budget = {row[0].text: row for row in compared.rows}
  row = by_budget['no limit']
  for i, name in ((1, 'traffic'), (2, 'old'), (4, 'change'), (5, 'old_cost')):
    leaf = values[learning.UNLIMITED][name]
    assert (row[i].value, row[i].lo, row[i].hi) == (
      *(leaf['mean'], leaf['lo'], leaf['hi']),
    )
  assert len(curve.rows) == 9
  assert 'new cost' in cells.markdown(compared)
  for table in report.tables(measured, 'first'):
    assert table.title.startswith('Simulated first: ')
  real = report.tables(measured | {'origin': 'run'}, 'first')
  assert all(table.title.startswith('first: ') for table in real)


def test_what_is_not_reached_is_said(measured):
  values = measured['rewards']['first']['compared']['plain']['1.0']
  values['enlarged_cost'] = values['saved_frac'] = resample.undefined()
  values['reached'] = 0.125
  row = report.tables(measured, 'first')[0].rows[3]
  assert row[6].text == 'not reached'
  assert row[6].note == 'reached in 12.5 % of draws'
  assert row[7].text == '–'


@pytest.mark.parametrize(
  'value, text', [(-0.125, '−12.5 %'), (-1e-9, '0.0 %'), (0.1, '10.0 %')]
)
def test_a_share_that_is_saved_may_be_negative(value, text, measured):
  values = measured['rewards']['first']['compared']['plain']['1.0']
  values['saved_frac'] = {'mean': value, 'lo': value, 'hi': value}
  row = report.tables(measured, 'first')[0].rows[3]
  assert (row[7].text, row[7].note) == (text, f'[{text}, {text}]')


def test_an_infeasible_budget_is_a_dash_and_no_panel(make_one):
  """Without the cheapest arm a quarter of the best one's cost is too little."""
  found = _measure(make_one(), 'small')['rewards']['first']
  assert found['compared']['plain']['0.25']['old']['mean'] is None
  drawn = report.draw(found['curve'])
  titles = [a.get_title() for a in drawn.axes if a.get_visible()]
  assert 'budget 25 %' not in titles and 'no limit' in titles


def test_the_page_holds_all_and_is_marked(measured):
  page = document.Document(
    title='One more arm', lead=[], sections=[report.section(measured)]
  )
  files = document.files(page)
  assert 'figures/made-first-newcomer.pdf' in files
  assert 'tables/made-first-compared-pooled.csv' in files
  text = files[document.PAGE].decode()
  assert 'SIMULATED' in text and 'of 70 training prompts' in text


def test_the_advice_names_the_fewest_prompts_that_are_enough(measured):
  found = measured['rewards']['first']
  rows = {
    row['prompts']: row for row in found['curve'] if row['variant'] == 'pooled'
  }
  rows[5]['saved_mean'] = {'mean': 0.1, 'se': 0.06}
  rows[30]['saved_mean'] = {'mean': 0.1, 'se': 0.04}
  text = report.section(measured).sections[0].text[-1]
  assert text.startswith('With 30 scored prompts')
  rows[30]['saved_mean'] = {'mean': 0.1, 'se': 0.06}
  text = report.section(measured).sections[0].text[-1]
  assert text.startswith('With none of 5, 30 scored prompts')


def test_too_few_prompts_for_a_curve(make_one):
  cfg = dataclasses.replace(_CFG, num_prompts=(100,))
  measured = _measure(make_one(), cfg=cfg)
  assert len(measured['rewards']['first']['curve']) == 3
  text = report.section(measured).sections[0].text[-1]
  assert 'too few scored prompts' in text


def test_a_table_on_the_terminal_has_all_its_numbers(measured):
  table = report.tables(measured, 'first')[0]
  shown = terminal.of_table(table)
  assert shown.row_count == len(table.rows)
  cell = list(shown.columns[1].cells)[-1].plain
  assert cell == f'{table.rows[-1][1].text}\n{table.rows[-1][1].note}'
