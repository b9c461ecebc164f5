import base64
import re

import numpy as np
import pytest
from matplotlib import image

from erp_jax.core import errors
from erp_jax.data import prompts
from erp_jax.report import page, runs

BUDGETS = ('0.25', '0.5', '0.75', '1.0')
JUDGE = 'judge (scored by the model that answered)'


def _build(inputs, replays=('Records',), **kwargs):
  path = inputs.write()
  return page.build(
    path, inputs.rewards, {name: path / 'replay' for name in replays}, **kwargs
  )


@pytest.fixture(scope='module')
def inputs(make_inputs):
  inputs = make_inputs()
  inputs.make_infeasible('replay', '0.25')
  inputs.set_difference('replay', '0.5', -0.0312, 0.02, -0.025)
  return inputs


@pytest.fixture(scope='module')
def path(inputs):
  return _build(inputs)


@pytest.fixture(scope='module')
def shown(path, read_page):
  return read_page(path)


def _text(value):
  return f'{value:.3f}'.replace('-', '−')


def test_budget_table_shows_the_metrics(inputs, shown):
  rows = shown.table('budgets')
  for label, policy in (
    ('ERP router', 'erp'),
    ('Static mixture (ignores the prompt)', 'static_mixture'),
    ('ERP shuffled (same cost, ignores the prompt)', 'permuted'),
    ('Random arm', 'random'),
    ('Always terse', 'same:terse'),
    ('Per-category best (oracle; test labels)', 'per_category'),
  ):
    assert rows[label][0] == '–'
    for cell, budget in zip(rows[label][1:], BUDGETS[1:], strict=True):
      regret, cost = (
        inputs.metrics['replay'][what][policy][budget]['mean']
        for what in ('regret_at_budget', 'cost_at_budget')
      )
      bounds = inputs.intervals['replay']['regret_at_budget'][policy][budget]
      lo, hi = (_text(bounds[key]) for key in ('lo', 'hi'))
      assert cell.startswith(f'{_text(regret)} split 1: [{lo}, {hi}]')
      assert float(cell.split()[-1]) == pytest.approx(cost, abs=5e-3)


def test_r2_and_auroc_tables_show_the_metrics(inputs, shown):
  for index, name in enumerate(('replay', 'verify', 'judge')):
    rows = shown.table('r2', index)
    for column, model in enumerate(inputs.models):
      r2 = inputs.intervals[name]['r2'][model]
      for label, leaf in (
        ('all prompts', r2['aggregate']),
        ('math', r2['by_category']['math']),
      ):
        mean, lo, hi = (_text(leaf[key]) for key in ('mean', 'lo', 'hi'))
        assert rows[label][column] == f'{mean} [{lo}, {hi}]'
      mean = inputs.metrics[name]['r2'][model]['aggregate']['mean']
      assert rows['all prompts, mean of 2 splits'][column] == _text(mean)
    auroc = inputs.metrics[name]['auroc']['plain|terse']['erp']['mean']
    row = shown.table('auroc', index)['plain or terse']
    assert row == [_text(auroc), '12.5 %']
    wins = shown.table('wins', index)['math']
    assert wins == ['predicted', '50.0 %', '33.3 %', '16.7 %']


def test_verdict_comes_first_with_its_numbers(shown):
  row = shown.table('paired')['50 %']
  assert row == ['pays', '−0.0312', '[−0.0512, −0.0112]', '−0.0250']
  assert shown.table('paired')['25 %'] == ['infeasible', *'–––']
  start = shown.text.index('Does routing pay?')
  said = 'Routing pays at a budget of 50 %; we can’t tell whether routing pays'
  assert start < shown.text.index(said) < shown.text.index('How to read')
  assert 'That claim rests on the replay alone.' in shown.text


def test_what_was_run_is_counted(shown):
  sampling = shown.table('sampling')
  # 24 prompts × 3 responses of 10, 11 and 12 tokens; the first was cut.
  for what, text in (
    ('responses per prompt (K)', '3'),
    ('temperature', '1'),
    ('limit on tokens', '64'),
    ('seed', '7'),
    ('responses', '72'),
    ('tokens sampled', '792'),
    ('mean tokens of a response', '11.0'),
    ('mean tokens of a prompt', '20.0'),
    ('slots busy', '50.0 %'),
    ('cut at the limit', '33.3 %'),
  ):
    assert sampling[what] == [text] * 3
  arms = shown.table('arms')['teacher']
  assert arms == [
    *('package:tiny', 'Be teacher.', '134\u202f515\u202f008', '9')
  ]
  rewards = shown.table('rewards')
  assert rewards[JUDGE][-3:] == ['48', '1\u202f234', '24']
  assert rewards['verify'][1] == 'a program'
  made = shown.table('provenance')
  assert made['code revision'] == ['abc123+']
  assert made['jax'] == ['0.10.2']
  assert made['Records'] == ['split seeds 0 and 1; prompts 24']


def test_self_scored_reward_is_marked_wherever_it_is_named(shown):
  named = len(re.findall(r'\bjudge\b', shown.text))
  marked = shown.text.count(JUDGE)
  # The bare word is its kind in the table of reward models, once per arm.
  assert marked > 10
  assert named == marked + 3
  assert 'verify (scored' not in shown.text


def test_rewards_not_scored_or_not_finite_are_said(shown):
  for response in (
    f'1 · 10 tokens · cut at the length limit · verify 0.000 · {JUDGE} 0.000',
    f'2 · 11 tokens · stopped by itself · verify no reward · {JUDGE} no reward',
    f'3 · 12 tokens · stopped by itself · verify 0.500 · {JUDGE} not scored',
  ):
    assert f'response {response}' in shown.text


def test_file_stands_alone(path, shown):
  assert all(a.startswith('data:image/png') for a in shown.addresses)
  assert {'link', 'script', 'iframe', 'base'}.isdisjoint(shown.tags)
  without_figures = re.sub('data:image/png[^"]*', '', path.read_text())
  assert not re.search(r'https?:|//|url\(|@import', without_figures)
  files = sorted(path.parent.glob('*.png'))
  assert len(files) == len(shown.addresses) == 9  # 3 evaluations × 3 figures.
  embedded = {
    base64.b64decode(a.removeprefix('data:image/png;base64,'))
    for a in shown.addresses
  }
  assert embedded == {file.read_bytes() for file in files}
  for file in files:
    pixels = image.imread(file)
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels[..., 0])) > 20  # Lines and letters.
    assert 0.02 < (pixels[..., :3].min(axis=-1) < 0.9).mean() < 0.9


def test_text_of_models_and_users_is_escaped(make_inputs, read_page):
  hostile = '</div><script>alert(1)</script>{{ 7 * 7 }}{% if %}<img src=x>'
  inputs = make_inputs()
  inputs.rewards = ('verify',)
  inputs.text = hostile
  asked = [prompts.Prompt(f'p{n:03d}', hostile, 'chat') for n in range(24)]
  shown = read_page(_build(inputs, ('<script>bad</script>',), prompts=asked))
  assert 'script' not in shown.tags
  assert shown.tags.count('img') == 6
  # Three prompts, of three arms three responses each.
  assert shown.text.count(hostile) == 3 + 3 * 3 * 3
  assert '<script>bad</script>' in shown.text


def test_page_without_replay_makes_no_claim(make_inputs, read_page):
  inputs = make_inputs()
  inputs.rewards = ('verify',)
  for model in inputs.models:
    for leaf in (
      inputs.intervals['verify']['r2'][model]['aggregate'],
      inputs.metrics['verify']['r2'][model]['aggregate'],
    ):
      leaf.update({key: None for key in leaf if key != 'n_splits'})
  path = _build(inputs, ())
  shown = read_page(path)
  assert 'This report can’t say. No replay of recorded outcomes' in shown.text
  assert 'rests on the replay' not in shown.text
  assert 'R² is undefined for every arm' in shown.text
  assert shown.table('r2')['all prompts'] == ['–'] * 3
  first = path.read_bytes()
  assert page.build(inputs.path, inputs.rewards, {}).read_bytes() == first


def test_one_arm_is_said(make_inputs, read_page):
  inputs = make_inputs(('only',))
  inputs.rewards = ('verify',)
  shown = read_page(_build(inputs))
  assert shown.text.count('There is only one arm') == 4
  kinds = {kind for kind, _ in shown.tables}
  assert kinds == {'r2', 'arms', 'sampling', 'rewards', 'provenance'}


def test_a_vendors_settings_are_shown(make_inputs, read_page, shown):
  inputs = make_inputs()
  inputs.generation['terse'] = {
    'temperature': 0.7, 'top_k': 20, 'top_p': 0.8,
    'not_applied': {'repetition_penalty': 1.05},
  }  # fmt: skip
  sampling = read_page(_build(inputs)).table('sampling')
  assert sampling['temperature'] == ['1', '0.7', '1']
  assert sampling['top-k'] == ['all', '20', 'all']
  assert sampling['top-p'] == ['1', '0.8', '1']
  assert sampling['the vendor’s, not applied'] == [
    *('none', 'repetition_penalty 1.05', 'none')
  ]
  assert 'top-p' not in shown.table('sampling')


def test_prompts_without_a_check_are_counted(make_inputs, read_page):
  inputs = make_inputs()
  inputs.more_counts = {
    ('verify', 'plain'): {'not_checked': 7},
    ('verify', 'terse'): {'not_checked': 0},
  }
  rows = read_page(_build(inputs, ())).tables
  (rows,) = [rows for kind, rows in rows if kind == 'rewards']
  assert rows[0][-2:] == ['Not finite', 'No check for this prompt']
  assert [row[3] for row in rows[1:4]] == ['plain', 'terse', 'teacher']
  # The last artefact was made before these were counted.
  assert [row[-1] for row in rows[1:4]] == ['7', '0', '0']


def test_samples_are_picked_without_looking():
  ids = [f'p{n}' for n in range(40)]
  categories = [f'c{n % 8}' for n in range(40)]
  picked = runs.pick(ids, categories, limit=5)
  assert len(picked) == 5 == len(set(picked.values()))
  order = np.random.default_rng(0).permutation(40)
  assert picked == runs.pick(
    [ids[i] for i in order], [categories[i] for i in order], limit=5
  )


def test_missing_inputs_are_named(make_inputs):
  inputs = make_inputs()
  inputs.write()
  with pytest.raises(errors.UserError, match='at least one reward model'):
    page.build(inputs.path, (), {})
  (inputs.path / 'replay' / 'intervals.json').unlink()
  with pytest.raises(errors.UserError, match='replay/intervals.json'):
    page.build(inputs.path, inputs.rewards, {'R': inputs.path / 'replay'})
  shard = next((inputs.path / 'rewards/judge/terse').glob('part*.parquet'))
  shard.write_bytes(shard.read_bytes()[:-1])
  with pytest.raises(errors.UserError, match='is corrupt'):
    page.build(inputs.path, inputs.rewards, {})
