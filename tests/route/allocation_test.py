"""The best cell of a made-up grid, and how sure that is."""

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import allocation, learning


@pytest.fixture
def curve():
  """Two repeats; of 40 samples, 20 × 2 has the least regret, 40 × 1 most R²."""
  r2_JNK = np.zeros((2, 3, 3))
  r2_JNK[:, 2, 0] = [0.5, 0.7]  # 40 × 1
  r2_JNK[:, 1, 1] = [0.4, 0.5]  # 20 × 2
  r2_JNK[:, 0, 2] = [0.3, 0.3]  # 10 × 4
  regret_JNKP = np.full((2, 3, 3, 5), 9.0)
  regret_JNKP[..., 0] = np.nan  # Infeasible everywhere.
  regret_JNKP[:, 2, 0, 1:4] = [[0.3, 0.2, 0.1], [0.6, 0.3, 0.0]]
  regret_JNKP[:, 1, 1, 1:4] = [[0.2, 0.1, 0.0], [0.2, 0.2, 0.2]]
  return learning.LearningCurve(
    num_prompts_N=np.array([10, 20, 40]),
    num_samples_K=np.array([1, 2, 4]),
    r2_JNK=r2_JNK,
    contrast_r2_JNK=-r2_JNK,
    regret_JNKP={'erp': regret_JNKP, 'static_mixture': regret_JNKP},
    oracle_regret_P=np.zeros(5),
    num_test=1,
    knows_er=True,
  )


def test_the_best_of_equal_totals(curve):
  assert allocation.totals(curve) == [20, 40, 80]
  found = allocation.best_allocation(curve, 40)
  assert (found.num_prompts, found.num_samples) == (20, 2)
  # Means over the feasible budgets: .1 and .2; of the second best: .2 and .3.
  np.testing.assert_allclose((found.value, found.se), (0.15, 0.05))
  assert found.runner_up == (40, 1)
  np.testing.assert_allclose((found.lead, found.lead_se), (0.1, 0), atol=1e-12)


def test_other_criteria_choose_otherwise(curve):
  found = allocation.best_allocation(curve, 40, 'r2')
  assert (found.num_prompts, found.num_samples) == (40, 1)
  np.testing.assert_allclose((found.value, found.se), (0.6, 0.1))
  assert found.runner_up == (20, 2)
  np.testing.assert_allclose((found.lead, found.lead_se), (0.15, 0.05))
  found = allocation.best_allocation(curve, 40, 'contrast_r2')
  assert (found.num_prompts, found.num_samples) == (10, 4)


def test_a_cell_alone_has_no_runner_up(curve):
  found = allocation.best_allocation(curve, 160, 'r2')
  assert (found.num_prompts, found.num_samples) == (40, 4)
  assert found.runner_up == (0, 0) and np.isnan(found.lead)


def test_mistakes_are_named(curve):
  with pytest.raises(errors.UserError, match='10, 20, 40, 80, 160'):
    allocation.best_allocation(curve, 30)
  with pytest.raises(errors.UserError, match='contrast_r2'):
    allocation.best_allocation(curve, 40, 'auroc')
