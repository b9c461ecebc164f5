"""The win-rate experiment: its numbers by counting, its switches, its text."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from erp_jax.core import errors, resample
from erp_jax.probe import records as records_lib
from erp_jax.report import document, experiment, winrates, words
from erp_jax.route import winrates as winrates_lib

_COMMON = experiment.ExperimentConfig(
  splits=2, bootstrap=resample.BootstrapConfig(num_draws=100)
)
_ARMS = ('small', 'large', 'middle')


def _build(records, **settings):
  cfg = winrates_lib.WinRatesConfig(**settings)
  result = winrates.build([records], cfg, _COMMON)
  json.dumps(result.metrics, allow_nan=False)
  return result


def _page(result):
  return document.Document(title='T', lead=[], sections=result.sections).walk()


def _tables(result):
  return {t.kind: t for s in _page(result) for t in s.tables}


def _figures(result):
  return {f.name: f.figure for s in _page(result) for f in s.figures}


def _text(result):
  return ' '.join(' '.join(s.text) for s in _page(result))


def _first(records):
  """Test mask and predictions of the first split."""
  train_N = next(_COMMON.masks(records))
  return ~train_N, records_lib.predict_rewards(records, train_N, _COMMON.ridge)


def test_shares_are_counts_of_the_best(make_records):
  records = make_records()
  found = _build(records).metrics['made']['second']
  test_N, prediction_NM = _first(records)
  values = {
    'true': records.reward_NKM['second'].mean(axis=1),
    'predicted': prediction_NM['second'],
    'known': records.er_NM['second'],
  }
  groups = {'aggregate': test_N}
  groups |= {c: test_N & (records.category_N == c) for c in 'abc'}
  for category, rows_N in groups.items():
    shares = found['win_share']['by_category'].get(category)
    shares = shares or found['win_share']['aggregate']
    for m, arm in enumerate(_ARMS):
      counted = {
        kind: np.mean(value_NM[rows_N].argmax(axis=1) == m)
        for kind, value_NM in values.items()
      }
      counted['difference'] = counted['predicted'] - counted['true']
      for kind, share in counted.items():
        leaf = shares[kind][arm]
        assert leaf['mean'] == pytest.approx(share)
        assert leaf['lo'] <= leaf['mean'] <= leaf['hi']
  over = found['over_splits']
  assert over['true']['small']['n_splits'] == 2
  per_split = []
  for train_N in _COMMON.masks(records):
    best_N = values['true'][~train_N].argmax(axis=1)
    per_split.append(np.mean(best_N == 0))
  assert over['true']['small']['mean'] == pytest.approx(np.mean(per_split))


def test_tables_and_bars_show_the_same(make_records):
  result = _build(make_records())
  shares = result.metrics['made']['first']['win_share']
  rows = _tables(result)['made-first-wins'].rows
  assert [row[1].text for row in rows[:4]] == [
    'true',
    'predicted',
    'predicted − true',
    'true, by the known ER',
  ]
  cells = dict(zip(_ARMS, rows[1][2:], strict=True))
  for arm, leaf in shares['aggregate']['predicted'].items():
    cell = cells[arm]
    assert (cell.value, cell.lo, cell.hi) == tuple(leaf.values())
  (axes,) = _figures(result)['made-first-wins'].axes
  labels = [tick.get_text() for tick in axes.get_yticklabels()]
  assert labels == [
    f'{category}, {kind}'
    for category in ('all prompts', 'a', 'b', 'c')
    for kind in ('true', 'predicted')
  ]
  width = {}
  for bar in axes.patches:
    width.setdefault(round(bar.get_y(), 6), []).append(bar.get_width())
  expected = [leaf['mean'] for leaf in shares['aggregate']['true'].values()]
  np.testing.assert_allclose(width[min(width)], np.multiply(expected, 100))


def test_samples_share_wins_by_chance(make_records):
  records = make_records(noise=1.0)
  result = _build(records, win_share='samples')
  found = result.metrics['made']['first']['win_share']['aggregate']
  test_N, prediction_NM = _first(records)
  reward_NKM = records.reward_NKM['first']
  true_NM = winrates_lib.best_of_samples(reward_NKM[test_N])
  sd_M = np.sqrt(reward_NKM[~test_N].var(axis=1, ddof=1).mean(axis=0))
  rng = np.random.default_rng(0)
  size = (4000, test_N.sum(), 3)
  drawn = prediction_NM['first'][test_N] + sd_M * rng.normal(size=size)
  predicted_M = np.bincount(drawn.argmax(axis=2).ravel()) / drawn[..., 0].size
  for m, arm in enumerate(_ARMS):
    true, predicted = (
      found[kind][arm]['mean'] for kind in ('true', 'predicted')
    )
    assert true == pytest.approx(true_NM[:, m].mean())
    assert predicted == pytest.approx(predicted_M[m], abs=4e-3)
  means = _build(records).metrics['made']['first']['win_share']['aggregate']
  assert found['true'] != means['true']


@pytest.mark.parametrize(
  'setting',
  [
    {'win_share': 'samples'},
    {'bounds': {'first': (-9.0, 9.0)}},
    {'pair': ('large', 'middle')},
    {'groups': 5},
  ],
)
def test_every_switch_changes_the_result(make_records, setting):
  records = make_records()
  plain = _build(records).metrics
  assert _build(records).metrics == plain
  assert _build(records, **setting).metrics != plain


@pytest.mark.parametrize('gap', winrates_lib.GAPS)
def test_the_figure_shows_the_gap_that_is_asked_for(make_records, gap):
  result = _build(make_records(), gap=gap)
  figure = _figures(result)['made-first-proposition']
  titles = [axes.get_title() for axes in figure.axes]
  assert titles == ['small or large', 'all pairs']
  label = figure.axes[0].get_xlabel()
  words_of = {
    'samples': 'same samples',
    'other_half': 'other half',
    'known': 'known ER',
    'predicted': 'predicted rewards',
  }
  assert words_of[gap] in label
  groups = result.metrics['made']['first']['proposition']['by_gap'][gap]
  expected = [g['strict']['mean'] for g in groups['all pairs']['groups']]
  (container,) = figure.axes[1].containers
  np.testing.assert_allclose(container.lines[0].get_ydata(), expected)
  if gap == 'known':
    default = _build(make_records())
    assert (
      label == _figures(default)['made-first-proposition'].axes[0].get_xlabel()
    )


def test_bounds_are_named_for_what_they_are(make_records):
  records = make_records()
  test_N, _ = _first(records)
  noise_sd_N = {'first': np.full(120, 0.3), 'second': np.full(120, 0.3)}
  records = dataclasses.replace(records, noise_sd_N=noise_sd_N)
  result = _build(records, bounds={'second': (-9.0, 9.0)})

  def legend(reward):
    figure = _figures(result)[f'made-{reward}-proposition']
    return [text.get_text() for text in figure.legends[0].get_texts()]

  bound = 'bound, σ² of the simulated noise'
  hoeffding = 'bound, σ² by Hoeffding’s lemma'
  variance = 'if σ² were the sample variance (no bound)'
  assert {bound, f'{bound}, however dependent', variance} < set(legend('first'))
  assert {bound, hoeffding, f'{hoeffding}, however dependent'} < set(
    legend('second')
  )
  assert variance not in legend('second') and hoeffding not in legend('first')
  assert 'no guarantee' in _text(result) and 'Hoeffding' in _text(result)
  # The true bound, from the true gap and noise.
  found = result.metrics['made']['first']['proposition']
  er_NM = records.er_NM['first'][test_N]
  z_N = np.abs(er_NM[:, 0] - er_NM[:, 1]) / 0.3
  groups = found['by_gap']['known']['small or large']['groups']
  mean = np.average(
    [g['known']['mean'] for g in groups], weights=[g['rows'] for g in groups]
  )
  assert mean == pytest.approx(np.mean(1 - np.exp(-(z_N**2) / 4)))
  rows = _tables(result)['made-first-bounds'].rows
  known = [row for row in rows if row[2].text == bound]
  assert [row[0].text for row in known] == ['small or large', 'all pairs']
  summary = found['by_gap']['known']['all pairs']['summary']
  assert known[1][4].value == summary['known below']['mean'] < 0.05


def test_the_plug_in_is_judged_strictly_and_with_half_ties(make_records):
  records = make_records(noise=1.0)
  reward_NKM = {'first': np.round(records.reward_NKM['first'])}
  records = dataclasses.replace(records, reward_NKM=reward_NKM)
  result = _build(records, pair=('large', 'middle'))
  test_N, _ = _first(records)
  reward_NKM = reward_NKM['first'][test_N][:, :, 1:]
  gap_N = np.diff(records.er_NM['first'][test_N][:, 1:], axis=1)[:, 0]
  strict_N, half_N = np.zeros((2, test_N.sum()))
  for n, reward_KM in enumerate(reward_NKM):
    low, high = reward_KM.T if gap_N[n] > 0 else reward_KM.T[::-1]
    strict_N[n] = (high[:, None] > low).mean()
    half_N[n] = strict_N[n] + (high[:, None] == low).mean() / 2
  var_N = reward_NKM.var(axis=1, ddof=1).sum(axis=1)
  known_N = var_N > 0
  assert known_N.all()
  phi_N = stats.norm.cdf(np.abs(gap_N) / np.sqrt(var_N))
  rows = _tables(result)['made-first-plug-in'].rows
  (row,) = [
    row for row in rows if (row[0].text, row[1].text)
    == ('large or middle', 'known ER')
  ]  # fmt: skip
  values = [row[i].value for i in (2, 3, 5, 6, 8)]
  assert values == pytest.approx(
    [
      np.abs(phi_N - strict_N).mean(),
      (phi_N - strict_N).mean(),
      np.abs(phi_N - half_N).mean(),
      (phi_N - half_N).mean(),
      2 * (half_N - strict_N).mean(),
    ]
  )
  (axes, _) = _figures(result)['made-first-proposition'].axes
  assert len(axes.containers) == 2  # Half ties are drawn where there are any.


def test_one_sample_says_what_is_not_available(make_records):
  records = dataclasses.replace(make_records(k=1), er_NM={})
  result = _build(records)
  text = _text(result)
  assert 'd of means of the same samples: K = 1' in text
  assert 'd of known ER: ER is known of simulated rewards alone' in text
  rows = _tables(result)['made-first-plug-in'].rows
  assert {row[1].text for row in rows} == {'predicted rewards'}
  assert rows[0][2].text == words.DASH and 'K = 1' in rows[0][2].note
  figure = _figures(result)['made-first-proposition']
  assert 'predicted rewards' in figure.axes[0].get_xlabel()
  assert _build(records, gap='samples').metrics == result.metrics
  assert 'made-first-proposition' not in _figures(
    _build(records, gap='samples')
  )
  samples = _build(records, win_share='samples')
  assert 'K = 1: one sample has no variance' in _text(samples)
  shares = samples.metrics['made']['first']['win_share']['aggregate']
  assert set(shares) == {'true'}
  assert (
    shares['true']
    == (result.metrics['made']['first']['win_share']['aggregate']['true'])
  )


def test_one_arm_always_wins(make_records):
  alone = make_records(arms=('small',), er_NM={})
  result = _build(alone)
  assert 'small is the only arm: it always wins' in _text(result)
  leaf = result.metrics['made']['first']['win_share']['aggregate']['true']
  assert leaf['small'] == {'mean': 1, 'lo': 1, 'hi': 1}
  assert 'proposition' not in result.metrics['made']['first']


def test_equal_rewards_are_ties_and_said_so(make_records):
  """Also where means of other numbers of samples differ by rounding."""
  reward_NKM = np.full((120, 3, 3), 0.1)
  reward_NKM[:, 1:, 1] = np.nan
  records = dataclasses.replace(
    make_records(), reward_NKM={'first': reward_NKM}, er_NM={}
  )
  _, prediction_NM = _first(records)
  assert 0 < np.ptp(prediction_NM['first'], axis=1).max() < 1e-12
  result = _build(records)
  assert 'All rewards are equal' in _text(result)
  shares = result.metrics['made']['first']['win_share']['aggregate']
  for kind in ('true', 'predicted'):
    for leaf in shares[kind].values():
      assert leaf['mean'] == pytest.approx(1 / 3)
  same = result.metrics['made']['first']['proposition']['by_gap']['samples']
  assert same['all pairs']['summary']['tied']['mean'] == 1


def test_prompts_without_all_rewards_are_left_out_and_counted(make_records):
  records = make_records()
  reward_NKM = records.reward_NKM['first'].copy()
  reward_NKM[::4, :, 1] = np.nan
  records = dataclasses.replace(records, reward_NKM={'first': reward_NKM})
  result = _build(records)
  test_N, _ = _first(records)
  complete_N = test_N & (np.arange(120) % 4 > 0)
  found = result.metrics['made']['first']
  assert found['num_prompts'] == complete_N.sum()
  assert found['num_incomplete'] == test_N.sum() - complete_N.sum()
  assert f'{complete_N.sum()} of {test_N.sum()} test prompts' in _text(result)
  best_N = reward_NKM[complete_N].mean(axis=1).argmax(axis=1)
  share = found['win_share']['aggregate']['true']['large']['mean']
  assert share == pytest.approx(np.mean(best_N == 1))
  summary = found['proposition']['by_gap']['known']['all pairs']
  assert summary['rows'] == test_N.sum() + 2 * complete_N.sum()


def test_wrong_arms_and_bounds_are_refused(make_records):
  with pytest.raises(errors.UserError, match="pair names 'larger'; did you"):
    _build(make_records(), pair=('small', 'larger'))
  with pytest.raises(errors.UserError, match='bounds.first is'):
    _build(make_records(), bounds={'first': (0.0, 0.1)})
