"""Factors that are remembered are those that are made."""

import numpy as np

from erp_jax.probe import contrast, factor


def test_fits_of_several_reward_models_share_factors_to_the_bit(monkeypatch):
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(40, 6))
  category_N = np.array(['a', 'b'])[np.arange(40) % 2]
  rewards = [rng.normal(size=(40, 3)) for _ in range(3)]
  cfg = contrast.ContrastConfig()
  alone = [contrast.fit(emb_NE, r, cfg, category_N) for r in rewards]
  made = []
  factorise = factor.factorise
  monkeypatch.setattr(
    factor, 'factorise', lambda *args: made.append(1) or factorise(*args)
  )
  recall = factor.remember()
  shared = [contrast.fit(emb_NE, r, cfg, category_N, recall) for r in rewards]
  assert len(made) == 2  # Of the categories, and of all features.
  for one, other in zip(alone, shared, strict=True):
    np.testing.assert_array_equal(one.theta_EM, other.theta_EM)
    np.testing.assert_array_equal(one.loo_mse_A, other.loo_mse_A)


def test_other_rows_weights_and_centres_are_other_factors():
  x_NE = np.random.default_rng(1).normal(size=(9, 3))
  recall = factor.remember()
  one = recall(x_NE, np.ones(9), True)
  assert recall(x_NE.copy(), np.ones(9), True) is one
  for other in (
    recall(x_NE[:8], np.ones(8), True),
    recall(x_NE, np.full(9, 2.0), True),
    recall(x_NE, np.ones(9), False),
    recall(x_NE.reshape(3, 9), np.ones(3), True),
  ):
    assert other is not one
