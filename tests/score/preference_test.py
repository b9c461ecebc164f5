"""Preference pairs: reading, splitting, and the accuracy on them."""

import gzip
import json
import logging

import numpy as np
import pytest
from scipy import stats

from erp_jax.core import errors
from erp_jax.score import preference

_ROWS = [
  {'prompt': f'p{i % 5}', 'chosen': f'good {i}', 'rejected': f'bad {i}'}
  for i in range(12)
]


def _write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return preference.PairsConfig(path=str(path))


def test_pairs_are_read_in_any_order_and_once(tmp_path):
  cfg = _write(tmp_path / 'a.jsonl', _ROWS)
  pairs = preference.load(cfg)
  assert {(p.prompt, p.chosen, p.rejected) for p in pairs} == {
    tuple(row.values()) for row in _ROWS
  }
  cfg = _write(tmp_path / 'b.jsonl', [*_ROWS[::-1], _ROWS[3]])
  assert preference.load(cfg) == pairs
  limited = preference.PairsConfig(path=cfg.path, limit=9)
  assert preference.load(limited) == pairs[:9]
  assert preference.digest(pairs) != preference.digest(pairs[:9])


def _dialogue(*turns):
  names = ('Human', 'Assistant')
  return ''.join(f'\n\n{names[i % 2]}: {t}' for i, t in enumerate(turns))


def test_dialogues_are_split_before_the_last_answer(tmp_path, caplog):
  rows = [
    {'chosen': _dialogue(f'q{i}', 'yes'), 'rejected': _dialogue(f'q{i}', 'no')}
    for i in range(4)
  ]
  long = 'q', 'a\n\nb', 'r'
  rows += [
    {'chosen': _dialogue(*long, 'yes'), 'rejected': _dialogue(*long, 'no')},
    {'chosen': _dialogue('q', 'yes'), 'rejected': _dialogue('other', 'no')},
    {'chosen': _dialogue('q', 'same'), 'rejected': _dialogue('q', 'same ')},
  ]
  path = tmp_path / 'hh.jsonl.gz'
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  path.write_bytes(gzip.compress(lines.encode()))
  with caplog.at_level(logging.WARNING, 'erp_jax'):
    pairs = preference.load(preference.PairsConfig(path=str(path)))
  assert sorted(pair.prompt for pair in pairs) == [
    'Human: q\n\nAssistant: a\n\nb\n\nHuman: r',
    *(f'q{i}' for i in range(4)),
  ]
  assert {(pair.chosen, pair.rejected) for pair in pairs} == {('yes', 'no')}
  assert any('1 rows that part' in message for message in caplog.messages)
  assert any('1 rows that have equal' in m for m in caplog.messages)


@pytest.mark.parametrize(
  'row, expected',
  [
    ({'prompt': 'p', 'chosen': 'a'}, 'line 13: rejected is None'),
    ({'prompt': '', 'chosen': 'a', 'rejected': 'b'}, "line 13: prompt is ''"),
    ({'chosen': 'a', 'rejected': 'b'}, 'line 13 has no prompt and is no pair'),
    ([1], 'line 13 is .1., but must be an object'),
  ],
)
def test_unusable_rows_are_named(tmp_path, row, expected):
  cfg = _write(tmp_path / 'a.jsonl', [*_ROWS, row])
  with pytest.raises(errors.UserError, match=expected):
    preference.load(cfg)


def test_unusable_files_are_named(tmp_path):
  path = tmp_path / 'a.jsonl'
  cfg = preference.PairsConfig(path=str(path))
  with pytest.raises(errors.UserError, match='a.jsonl.*cannot be read'):
    preference.load(cfg)
  path.write_text('{"prompt"\n')
  with pytest.raises(errors.UserError, match='line 1 is not JSON'):
    preference.load(cfg)
  _write(path, _ROWS[:3])
  with pytest.raises(errors.UserError, match='pairs of 3 prompts, at least 4'):
    preference.load(cfg)
  with pytest.raises(errors.UserError, match='held_out_frac'):
    preference.PairsConfig(path='x', held_out_frac=1.0)


def test_a_prompt_is_on_one_side_of_the_split():
  prompts = [f'p{i % 20}' for i in range(70)]
  train_I = preference.train_mask(prompts, seed=0, held_out_frac=0.25)
  sides = {
    p: {t for q, t in zip(prompts, train_I, strict=True) if q == p}
    for p in prompts
  }
  assert all(len(side) == 1 for side in sides.values())
  assert sum(side == {False} for side in sides.values()) == 5
  other_I = preference.train_mask(prompts, seed=1, held_out_frac=0.25)
  assert (train_I != other_I).any()


def test_accuracy_of_one_pair_a_prompt_has_wilsons_interval():
  margin_I = np.array([2.0] * 29 + [-1.0] * 11)
  found = preference.accuracy(margin_I, [f'p{i}' for i in range(40)])
  expected = stats.binomtest(29, 40).proportion_ci(method='wilson')
  assert found['accuracy'] == 29 / 40 and found['effective_pairs'] == 40
  np.testing.assert_allclose((found['lo'], found['hi']), expected, atol=1e-7)


def test_ties_are_half_right_and_counted():
  found = preference.accuracy(np.array([1.0, 0, 0, -1, 0]), list('abcde'))
  assert found['accuracy'] == 0.5 and found['ties'] == 3


def test_pairs_of_one_prompt_are_not_taken_for_independent():
  """Against a bootstrap over prompts; their sizes differ, pairs half agree."""
  rng = np.random.default_rng(0)
  num_N = rng.integers(1, 9, 200)
  easy_N = rng.random(200) < 0.6
  prompt_I = np.repeat(np.arange(200), num_N)
  right_I = np.where(rng.random(num_N.sum()) < 0.5, easy_N[prompt_I], 1)
  found = preference.accuracy(right_I - 0.5, [f'p{n}' for n in prompt_I])
  assert found['prompts'] == 200 and found['pairs'] == num_N.sum()
  right_N = np.bincount(prompt_I, right_I)
  draw_QN = rng.integers(200, size=(4000, 200))
  share_Q = right_N[draw_QN].sum(1) / num_N[draw_QN].sum(1)
  lo, hi = np.quantile(share_Q, (0.025, 0.975))
  np.testing.assert_allclose((found['lo'], found['hi']), (lo, hi), atol=0.006)
  naive = stats.binomtest(int(right_I.sum()), len(right_I)).proportion_ci()
  assert found['hi'] - found['lo'] > 1.3 * (naive.high - naive.low)


def test_equal_pairs_of_a_prompt_count_once():
  right_N = np.random.default_rng(0).random(60) < 0.7
  prompts = np.repeat([f'p{n}' for n in range(60)], 5)
  found = preference.accuracy(np.repeat(right_N - 0.5, 5), prompts)
  np.testing.assert_allclose(found['effective_pairs'], 59)
  perfect = preference.accuracy(np.ones(300), prompts)
  expected = stats.binomtest(60, 60).proportion_ci(method='wilson')
  assert perfect['hi'] == 1
  np.testing.assert_allclose(perfect['lo'], expected.low, atol=1e-7)
