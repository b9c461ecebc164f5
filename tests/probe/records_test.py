"""Records: what they refuse, and what they hand to the rest."""

import dataclasses

import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.core import errors
from erp_jax.data import outcomes, simulate, simulate_config
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge


@pytest.fixture
def simulated():
  cfg = simulate_config.SimulationConfig(prompts_per_category=10, k=3, width=8)
  return records_lib.from_simulation('s', 'S', simulate.draw(cfg), 'd')


def _recorded(**changes):
  table = outcomes.Outcomes(
    prompt_ids=('a', 'b', 'c'),
    prompts=('x', 'y', 'z'),
    category_N=np.array(['k', 'k', 'l']),
    models=('m', 'n'),
    reward_NM=np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 0.0]]),
    cost_NM=np.full((3, 2), 0.5),
    cost_source='recorded',
    reward_kind='right',
    counts={},
  )
  emb_NE = changes.get('emb_NE', np.eye(3))
  return records_lib.from_outcomes('r', 'R', table, emb_NE, 'd')


def test_simulated_records_know_their_expectation_and_say_what_they_are(
  simulated,
):
  assert simulated.origin == 'simulated'
  assert set(simulated.er_NM) == set(simulated.rewards)
  reward = simulated.rewards[0]
  assert simulated.reward_NKM[reward].shape == (40, 3, 5)
  np.testing.assert_allclose(
    simulated.mean_NM(reward), simulated.reward_NKM[reward].mean(axis=1)
  )


def test_recorded_records_are_one_sample_each_and_keep_what_is_missing():
  records = _recorded()
  assert (records.origin, records.cost_unit) == ('recorded', 'USD')
  assert records.reward_NKM['right'].shape == (3, 1, 2)
  table = records.outcomes('right')
  np.testing.assert_array_equal(table.reward_NM, [[1, 0], [np.nan, 1], [0, 0]])
  assert table.counts['prompts_incomplete'] == 1


def test_one_fit_for_all_reward_models_is_scikit_learns(simulated):
  train_N = np.arange(40) % 2 == 0
  found = records_lib.predict_rewards(simulated, train_N, ridge.RidgeConfig())
  for reward in simulated.rewards:
    model = linear_model.Ridge(alpha=1.0)
    model.fit(simulated.emb_NE[train_N], simulated.mean_NM(reward)[train_N])
    np.testing.assert_allclose(
      found[reward], model.predict(simulated.emb_NE), rtol=1e-4, atol=1e-5
    )


def test_embeddings_that_are_not_finite_are_refused_by_their_ids():
  emb_NE = np.eye(3)
  emb_NE[1, 2] = np.nan
  with pytest.raises(
    errors.UserError, match="R: the embeddings of prompts 'b'"
  ):
    _recorded(emb_NE=emb_NE)


def test_flags_that_are_not_known_are_named(simulated):
  with pytest.raises(
    errors.UserError, match="responses are 'cut'; known: noth"
  ):
    simulated.without(simulated.rewards[0], 'cut')


def test_flagged_responses_are_left_out(simulated):
  flag_NKM = np.zeros((40, 3, 5), bool)
  flag_NKM[0, :, 1] = True
  flag_NKM[1, 0, 2] = True
  flagged = dataclasses.replace(simulated, flag_NKM={'cut': flag_NKM})
  reward = simulated.rewards[0]
  kept_NKM = flagged.without(reward, 'cut')
  np.testing.assert_array_equal(np.isnan(kept_NKM), flag_NKM)
  assert not np.isnan(flagged.reward_NKM[reward]).any()


def test_no_reward_model_is_refused(simulated):
  with pytest.raises(errors.UserError, match='S has no reward model'):
    dataclasses.replace(simulated, reward_NKM={})


def test_rewards_beyond_what_can_be_squared_are_refused(simulated):
  reward_NKM = {n: v.copy() for n, v in simulated.reward_NKM.items()}
  reward_NKM[simulated.rewards[1]][0, 0, 0] = -1e200
  with pytest.raises(errors.UserError, match='a reward of size 1e.200, but'):
    dataclasses.replace(simulated, reward_NKM=reward_NKM)
