import csv
import dataclasses
import io

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.data import outcomes, splits
from erp_jax.probe import contrast, ridge
from erp_jax.report import candidates as tables
from erp_jax.report import cells
from erp_jax.route import baselines, candidates, evaluate, guarded
from erp_jax.route import split as split_lib

_CFG = candidates.CandidatesConfig(splits=3, num_fourier=16)


@pytest.fixture(scope='module')
def table():
  """120 prompts of two categories, three arms, and their embeddings."""
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(120, 8))
  emb_NE /= np.linalg.norm(emb_NE, axis=1, keepdims=True)
  reward_NM = emb_NE @ rng.normal(size=(8, 3)) + [0.0, 0.1, 0.4]
  reward_NM += 0.2 * rng.normal(size=(120, 3))
  names = tuple(f'p{n:03}' for n in range(120))
  return (
    outcomes.Outcomes(
      prompt_ids=names,
      prompts=names,
      category_N=np.where(emb_NE[:, 0] > 0, 'a', 'b'),
      models=('x', 'y', 'z'),
      reward_NM=reward_NM,
      cost_NM=np.tile([1.0, 4.0, 10.0], (120, 1)),
      cost_source='given',
      reward_kind='simulated',
      counts={},
    ),
    emb_NE,
  )


@pytest.fixture(scope='module')
def rows(table):
  found = candidates.compare(*table, _CFG)
  return {(row['candidate'], row['budget']): row for row in found}


def test_test_results_are_the_repositorys_own_regret(table, rows):
  outcome, emb_NE = table
  difference = []
  for seed in range(3):
    train_N = splits.train_mask(
      outcome.prompt_ids, outcome.category_N.tolist(), seed
    )
    probe = ridge.fit(
      emb_NE[train_N],
      outcome.reward_NM[train_N],
      ridge.RidgeConfig(selection='leave_one_out'),
    )
    split = split_lib.from_outcomes(
      outcome, train_N, ridge.predict(probe, emb_NE)
    )
    found = evaluate.evaluate(split, baselines.curves(split))
    regret = found['regret_at_budget']
    difference.append(regret['erp']['0.5'] - regret['static_mixture']['0.5'])
  row = rows['erp_loo', '0.5']
  assert row['regret'] == pytest.approx(np.mean(difference))
  assert row['lo'] < row['regret'] < row['hi'] and row['share'] == 1


def test_every_candidate_is_scored_on_training_prompts_but_the_guard(rows):
  names = {name for name, _ in rows}
  assert names == {*candidates.build(_CFG), candidates.GUARDED}
  for (name, _), row in rows.items():
    assert (row['held_out'] is None) == (name == candidates.GUARDED)
  # What is easy to learn is learnt by all, and held-out prompts show it.
  for name in candidates.build(_CFG):
    assert rows[name, '0.5']['held_out'] > 2 * rows[name, '0.5']['held_out_se']
    assert rows[name, '0.5']['regret'] < 0
  assert len({row['regret'] for (_, b), row in rows.items() if b == '0.5'}) >= 5


def test_the_table_has_a_row_per_candidate_and_both_scores(rows):
  made = tables.table('t', 'Simulated', list(rows.values()))
  read = list(csv.DictReader(io.StringIO(cells.csv_text(made))))
  assert [line['Candidate'] for line in read] == [
    *candidates.build(_CFG),
    candidates.GUARDED,
  ]
  key = next(key for key in read[0] if key.endswith(', test'))
  assert float(read[0][key]) == rows['erp', '0.25']['regret']
  held = key.replace(', test', ', held out')
  assert float(read[0][held]) == -rows['erp', '0.25']['held_out']


@pytest.mark.parametrize(
  'wrong', [{'splits': 0}, {'num_fourier': 7}, {'fourier_scale': 0.0}]
)
def test_wrong_settings_are_refused(wrong):
  with pytest.raises(errors.UserError, match=next(iter(wrong))):
    candidates.CandidatesConfig(**wrong)


@pytest.mark.parametrize(
  'change, touched',
  [
    ({'fourier_scale': 5.0}, {'fourier'}),
    (
      {
        'guarded': guarded.GuardedConfig(
          contrast=contrast.ContrastConfig(betas=(1e4,))
        )
      },
      {'contrast', 'contrast_categories', 'fourier', candidates.GUARDED},
    ),
    (
      {'train_frac': 0.25},
      {*candidates.build(_CFG), candidates.GUARDED},
    ),
  ],
)
def test_every_setting_matters_to_its_candidates(table, change, touched):
  once = dataclasses.replace(_CFG, splits=1)
  results = []
  for cfg in (once, dataclasses.replace(once, **change)):
    rows = candidates.compare(*table, cfg)
    results.append(
      {
        row['candidate']: row['regret']
        for row in rows
        if row['budget'] == '0.5'
      }
    )
  before, after = results
  assert {name for name in before if before[name] != after[name]} == touched
