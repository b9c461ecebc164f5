"""The head against scikit-learn, known weights and its own curves."""

import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.core import errors
from erp_jax.score import bradley_terry

_WHOLE = {'patience': 0, 'batch': 0}


def _pairs(num, theta_E, seed=0, num_prompts=0):
  """Features whose better one is drawn with Eq. 2.1's probability."""
  rng = np.random.default_rng(seed)
  scale_E = np.linspace(0.3, 3, len(theta_E))
  first_IE, second_IE = (
    (rng.standard_normal((num, len(theta_E))) * scale_E + 5).astype(np.float32)
    for _ in range(2)
  )
  margin_I = (first_IE - second_IE) @ theta_E
  swap_I = rng.random(num) > 1 / (1 + np.exp(-margin_I))
  chosen_IE = np.where(swap_I[:, None], second_IE, first_IE)
  rejected_IE = np.where(swap_I[:, None], first_IE, second_IE)
  prompts = [f'p{i % (num_prompts or num)}' for i in range(num)]
  return chosen_IE, rejected_IE, prompts


def _theta_E(reward):
  """The weights on features as they were given."""
  return reward.arrays()['head.out.kernel'][:, 0] / reward.scale_E


def test_a_linear_head_is_logistic_regression_on_differences():
  chosen_IE, rejected_IE, prompts = _pairs(300, np.array([1.0, -0.5, 0, 0.3]))
  cfg = bradley_terry.TrainConfig(
    **_WHOLE, weight_decay=0.05, learning_rate=0.05, epochs=1000
  )
  reward, report = bradley_terry.fit(chosen_IE, rejected_IE, prompts, cfg)
  diff_IE = (chosen_IE - rejected_IE) / reward.scale_E
  # Both orders of each pair, so that there are two classes.
  sklearn = linear_model.LogisticRegression(
    C=1 / (2 * 300 * 0.05), fit_intercept=False, tol=1e-10, max_iter=1000
  ).fit(np.concatenate([diff_IE, -diff_IE]), np.repeat([1, 0], 300))
  theta_E = reward.arrays()['head.out.kernel'][:, 0]
  np.testing.assert_allclose(theta_E, sklearn.coef_[0], atol=1e-4)
  margin_I = reward(chosen_IE) - reward(rejected_IE)
  np.testing.assert_allclose(margin_I, diff_IE @ theta_E, atol=1e-4)
  loss = np.log1p(np.exp(-margin_I)).mean()
  np.testing.assert_allclose(report['curves']['train'][-1], loss, atol=1e-5)


@pytest.mark.parametrize('batch', [0, 100])
def test_known_weights_are_recovered(batch):
  theta_E = np.array([1.5, -1.0, 0.5, 0.0, 0.25])
  chosen_IE, rejected_IE, prompts = _pairs(6000, theta_E)
  cfg = bradley_terry.TrainConfig(
    patience=0, batch=batch, weight_decay=0, learning_rate=0.05, epochs=150
  )
  reward, _ = bradley_terry.fit(chosen_IE, rejected_IE, prompts, cfg)
  diff_IE = (chosen_IE - rejected_IE).astype(np.float64)
  share_I = 1 / (1 + np.exp(-diff_IE @ theta_E))
  weight_I = share_I * (1 - share_I)
  fisher_EE = np.einsum('IE,I,IF->EF', diff_IE, weight_I, diff_IE)
  error_E = np.sqrt(np.diag(np.linalg.inv(fisher_EE)))
  assert (np.abs(_theta_E(reward) - theta_E) < 3.5 * error_E).all()


def test_an_mlp_learns_what_no_linear_head_can():
  rng = np.random.default_rng(0)
  x_IE, y_IE = rng.standard_normal((2, 1500, 3)).astype(np.float32)
  product = lambda z_IE: z_IE[:, 0] * z_IE[:, 1]
  better_I = product(x_IE) > product(y_IE)
  chosen_IE = np.where(better_I[:, None], x_IE, y_IE)
  rejected_IE = np.where(better_I[:, None], y_IE, x_IE)
  prompts = [f'p{i}' for i in range(1500)]
  right = {}
  for head in ('linear', 'mlp'):
    cfg = bradley_terry.TrainConfig(
      head=head, hidden=32, learning_rate=0.02, weight_decay=1e-4, epochs=60
    )
    reward, _ = bradley_terry.fit(
      chosen_IE[:1000], rejected_IE[:1000], prompts[:1000], cfg
    )
    margin_I = reward(chosen_IE[1000:]) - reward(rejected_IE[1000:])
    right[head] = (margin_I > 0).mean()
  assert right['linear'] < 0.6 and right['mlp'] > 0.9


def test_training_stops_and_keeps_the_best_epoch():
  """Noise: what an mlp fits makes its validation loss worse."""
  chosen_IE, rejected_IE, prompts = _pairs(200, np.zeros(30), num_prompts=80)
  cfg = bradley_terry.TrainConfig(
    head='mlp', weight_decay=0, patience=3, validation_frac=0.25
  )
  reward, report = bradley_terry.fit(chosen_IE, rejected_IE, prompts, cfg)
  losses = report['curves']['validation']
  assert report['epoch'] == int(np.argmin(losses)) + 1 == len(losses) - 3
  assert len(losses) < cfg.epochs
  assert len(losses) == len(report['curves']['train'])
  train_I = bradley_terry.preference.train_mask(prompts, 0, 0.25)
  assert report['pairs'] == train_I.sum() < 200
  margin_I = (reward(chosen_IE) - reward(rejected_IE))[~train_I]
  loss = np.log1p(np.exp(-margin_I)).mean()
  np.testing.assert_allclose(loss, min(losses), atol=1e-6)


def test_validation_pairs_do_not_train():
  """Without them in the data, and no patience, the first epoch is the same."""
  chosen_IE, rejected_IE, prompts = _pairs(100, np.array([1.0, 0]))
  cfg = bradley_terry.TrainConfig(epochs=1)
  train_I = bradley_terry.preference.train_mask(prompts, 0, 0.1)
  all_of_it, _ = bradley_terry.fit(chosen_IE, rejected_IE, prompts, cfg)
  part, _ = bradley_terry.fit(
    chosen_IE[train_I],
    rejected_IE[train_I],
    np.array(prompts)[train_I],
    bradley_terry.TrainConfig(epochs=1, patience=0),
  )
  np.testing.assert_array_equal(_theta_E(all_of_it), _theta_E(part))


def test_a_seed_decides_everything():
  pairs = _pairs(150, np.array([1.0, -1.0, 0.5]))
  arrays = [
    bradley_terry.fit(
      *pairs, bradley_terry.TrainConfig(head='mlp', seed=seed, epochs=5)
    )[0].arrays()
    for seed in (0, 0, 1)
  ]
  for name, array in arrays[0].items():
    np.testing.assert_array_equal(array, arrays[1][name])
  assert (arrays[0]['head.up.kernel'] != arrays[2]['head.up.kernel']).all()


@pytest.mark.parametrize('head', ['linear', 'mlp'])
def test_saved_arrays_make_the_same_reward(head):
  cfg = bradley_terry.TrainConfig(head=head, epochs=3)
  chosen_IE, rejected_IE, prompts = _pairs(100, np.array([1.0, -1.0, 0.5]))
  chosen_IE[:, 1] = rejected_IE[:, 1] = 7  # Says nothing, and has no scale.
  reward, _ = bradley_terry.fit(chosen_IE, rejected_IE, prompts, cfg)
  again = bradley_terry.restore(cfg, reward.arrays())
  assert np.isfinite(reward(chosen_IE)).all()
  np.testing.assert_array_equal(again(chosen_IE), reward(chosen_IE))
  np.testing.assert_allclose(
    np.concatenate([reward(chosen_IE[:1]), reward(chosen_IE[1:])]),
    reward(chosen_IE),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  'setting, expected',
  [
    ({'head': 'cubic'}, "'cubic'; allowed: linear, mlp"),
    ({'learning_rate': 0.0}, 'learning_rate > 0'),
    ({'batch': -1}, 'batch >= 0'),
    ({'validation_frac': 0.0}, 'patience=0'),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    bradley_terry.TrainConfig(**setting)
