import numpy as np
import pytest

from erp_jax.route import split as split_lib


@pytest.fixture
def make_split():
  """Splits with four arms, three categories, and recorded costs."""

  def make(seed=0, num=150, **changes):
    rng = np.random.default_rng(seed)
    category_N = np.array(['a', 'b', 'c'])[rng.integers(3, size=2 * num)]
    skill = {'a': [0.2, 0.9, 0.5, 0.6], 'b': [0.5, 0.6, 0.7, 0.5]}
    skill['c'] = [0.3, 0.5, 0.4, 0.9]
    mean_NM = np.array([skill[c] for c in category_N])
    mean_NM += rng.normal(size=mean_NM.shape) * 0.3
    reward_NM = (mean_NM + rng.normal(size=mean_NM.shape) * 0.3 > 0.5) * 1.0
    cost_M = np.array([2.0, 20.0, 5.0, 11.0])
    test = {
      'prediction_NM': mean_NM[:num] + 0.1 * rng.normal(size=(num, 4)),
      'reward_NM': reward_NM[:num],
      'spent_NM': cost_M * rng.uniform(0.5, 1.5, (num, 4)),
      'category_N': category_N[:num],
    }
    train = {
      'train_reward_NM': reward_NM[num:],
      'train_category_N': category_N[num:],
    }
    fields = {'models': ('w', 'x', 'y', 'z'), 'cost_M': cost_M} | test | train
    return split_lib.Split(**fields | changes)

  return make
