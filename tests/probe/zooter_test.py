"""Zooter against generating weights, float64 gradients and its own curves."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from erp_jax.core import checkpoint, errors
from erp_jax.probe import zooter

# To the optimum: no validation, no penalty, every step over all prompts.
_CONVERGED = {
  'embedding': 'raw',
  'patience': 0,
  'batch': 0,
  'weight_decay': 0.0,
  'learning_rate': 0.5,
  'epochs': 400,
}


def _linear(num, width=4, num_arms=3, seed=0):
  """Embeddings with an offset, and rewards xW + b of all arms."""
  rng = np.random.default_rng(seed)
  theta_EM = rng.standard_normal((width, num_arms)) / 4
  bias_M = rng.standard_normal(num_arms) / 2
  emb_NE = rng.standard_normal((num, width)) + np.linspace(-2, 2, width)
  return emb_NE, theta_EM, bias_M


def _ids(num):
  return [f'p{n}' for n in range(num)]


def _fit(emb_NE, reward_NKM, cfg, **options):
  return zooter.fit(emb_NE, reward_NKM, _ids(len(emb_NE)), cfg, **options)


def _centred(value_NM):
  return value_NM - value_NM.mean(axis=-1, keepdims=True)


def _weights(fitted, width):
  """Bias and weights on raw embeddings: scores are affine in them."""
  corner_NE = np.concatenate([np.zeros((1, width)), np.eye(width)])
  score_NM = fitted.score(corner_NE)
  return np.concatenate([score_NM[:1], score_NM[1:] - score_NM[:1]])


@pytest.mark.parametrize('tau', [0.5, 1.0, 4.0])
def test_exact_targets_give_back_the_generating_weights(tau):
  """The optimum is the truth itself; what is left is Adam's."""
  emb_NE, theta_EM, bias_M = _linear(400)
  common_N = 30 * np.sin(np.arange(400))  # Of all arms: not identified.
  reward_NM = emb_NE @ theta_EM + bias_M + common_N[:, None]
  cfg = zooter.ZooterConfig(**_CONVERGED, tau=tau)
  fitted, report = _fit(emb_NE, reward_NM[:, None], cfg)
  truth = _centred(np.concatenate([bias_M[None], theta_EM]))
  np.testing.assert_allclose(_weights(fitted, 4), truth, atol=1e-4)
  np.testing.assert_allclose(
    fitted.score(emb_NE), _centred(reward_NM), atol=5e-4
  )
  assert abs(report['curves']['train'][-1]) < 1e-7
  assert report['epoch'] == cfg.epochs and report['left_out'] == 0


@pytest.mark.parametrize('num', [300, 3000])
def test_noisy_targets_give_them_back_to_a_tolerance_from_n(num):
  """One sample a prompt, its winner drawn from softmax(xW + b).

  At a temperature far below the gaps a sample's softmax is its winner, whose
  expectation is the truth: KL is then a multinomial likelihood, so errors are
  normal with the inverse Fisher information as covariance, ∝ 1/N.
  """
  emb_NE, theta_EM, bias_M = _linear(num)
  rng = np.random.default_rng(1)
  logit_NM = emb_NE @ theta_EM + bias_M
  winner_N = np.argmax(logit_NM + rng.gumbel(size=logit_NM.shape), axis=1)
  tau = 1e-2
  cfg = zooter.ZooterConfig(**_CONVERGED, target='samples', tau=tau)
  fitted, _ = _fit(emb_NE, np.eye(3)[winner_N][:, None], cfg)
  error_EM = _weights(fitted, 4) / tau
  error_EM -= _centred(np.concatenate([bias_M[None], theta_EM]))
  one_NE = np.concatenate([np.ones((num, 1)), emb_NE], axis=1)
  p_NM = special.softmax(logit_NM, axis=1)
  fisher = np.zeros((15, 15))
  for x_E, p_M in zip(one_NE, p_NM, strict=True):
    fisher += np.kron(np.outer(x_E, x_E), np.diag(p_M) - np.outer(p_M, p_M))
  # The pseudo-inverse is that on weights which sum to 0 over arms.
  covariance = np.linalg.pinv(fisher, rcond=1e-10, hermitian=True)
  z_EM = error_EM / np.sqrt(np.diag(covariance)).reshape(5, 3)
  assert np.abs(z_EM).max() < 3.5
  assert np.abs(z_EM).max() > 0.3  # The tolerance is no wider than need be.
  assert 2 < np.sqrt(num * np.diag(covariance).max()) < 8


@pytest.mark.parametrize('embedding', ['raw', 'unit'])
def test_the_penalised_gradient_is_zero_over_the_arms_present(embedding):
  """In float64 NumPy; half the cells are missing, and decay is on."""
  emb_NE, theta_EM, bias_M = _linear(300, num_arms=4)
  rng = np.random.default_rng(2)
  reward_NM = emb_NE @ theta_EM + bias_M + rng.standard_normal((300, 4))
  reward_NM[rng.random((300, 4)) < 0.5] = np.nan
  settings = _CONVERGED | {'weight_decay': 0.1, 'embedding': embedding}
  cfg = zooter.ZooterConfig(**settings, tau=2.0)
  fitted, report = _fit(emb_NE, reward_NM[:, None], cfg)
  rows_N = np.isfinite(reward_NM).sum(axis=1) > 1
  assert report['left_out'] == (~rows_N).sum() > 50
  assert report['prompts'] == rows_N.sum()
  x_NE, reward_NM = emb_NE[rows_N], reward_NM[rows_N]
  if embedding == 'unit':
    x_NE = x_NE / np.linalg.norm(x_NE, axis=1, keepdims=True)
  x_NE = x_NE - x_NE.mean(axis=0)
  x_NE /= np.sqrt(np.mean(x_NE**2))
  arrays = zooter.arrays(fitted)
  weight_EM = arrays['head.out.kernel'].astype(np.float64)
  present_NM = np.isfinite(reward_NM)
  masked = lambda value_NM: np.where(present_NM, value_NM, -np.inf)
  p_NM = special.softmax(
    masked(x_NE @ weight_EM + arrays['head.out.bias']), axis=1
  )
  resid_NM = (p_NM - special.softmax(masked(reward_NM) / 2, axis=1)) / len(x_NE)
  np.testing.assert_allclose(resid_NM.sum(axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(x_NE.T @ resid_NM + 0.1 * weight_EM, 0, atol=1e-5)
  assert np.abs(weight_EM).max() > 0.1
  target_NM = special.softmax(masked(reward_NM) / 2, axis=1)
  kl = special.rel_entr(target_NM, p_NM).sum(axis=1).mean()
  np.testing.assert_allclose(report['curves']['train'][-1], kl, atol=1e-6)


@pytest.mark.parametrize('head', ['linear', 'mlp'])
@pytest.mark.parametrize('target', ['mean', 'samples'])
def test_an_arm_without_rewards_changes_nothing(head, target):
  emb_NE, theta_EM, bias_M = _linear(100)
  rng = np.random.default_rng(3)
  reward_NKM = (emb_NE @ theta_EM + bias_M)[:, None].repeat(3, axis=1)
  reward_NKM += rng.standard_normal(reward_NKM.shape)
  reward_NKM[rng.random(reward_NKM.shape) < 0.1] = np.nan
  wider_NKM = np.insert(reward_NKM, 1, np.nan, axis=2)
  cfg = zooter.ZooterConfig(head=head, target=target, epochs=3, hidden=8)
  fitted, report = _fit(emb_NE, reward_NKM, cfg)
  wider, wider_report = _fit(emb_NE, wider_NKM, cfg)
  assert report == wider_report
  score_NM, wider_NM = fitted.score(emb_NE), wider.score(emb_NE)
  np.testing.assert_array_equal(wider_NM[:, [0, 2, 3]], score_NM)
  assert np.isnan(wider_NM[:, 1]).all() and np.ptp(score_NM) > 0


def test_targets_of_samples_and_of_means_differ_as_they_must():
  """An arm far ahead once in four and else behind wins on average alone."""
  emb_NE, _, _ = _linear(40)
  sample_KM = np.array([[9.0, 0.0], [-1, 0.0], [-1, 0.0], [-1, 0.0]])
  reward_NKM = np.broadcast_to(sample_KM, (40, 4, 2))
  lead = {}
  for target in ('mean', 'samples'):
    cfg = zooter.ZooterConfig(**_CONVERGED, target=target)
    score_NM = _fit(emb_NE, reward_NKM, cfg)[0].score(emb_NE)
    lead[target] = score_NM[:, 0] - score_NM[:, 1]
  share = (special.expit(9) + 3 * special.expit(-1)) / 4
  np.testing.assert_allclose(lead['mean'], 1.5, atol=2e-3)
  np.testing.assert_allclose(lead['samples'], special.logit(share), atol=2e-3)


def test_category_weight_one_learns_the_categorys_mean():
  emb_NE, theta_EM, bias_M = _linear(200)
  category_N = np.where(emb_NE[:, 0] > -2, 'a', 'b')
  reward_NM = emb_NE @ theta_EM + bias_M
  emb_NE = (category_N == 'a').astype(float)[:, None] * np.ones(4)
  cfg = zooter.ZooterConfig(**_CONVERGED, category_weight=1.0)
  fitted, report = _fit(emb_NE, reward_NM[:, None], cfg, category_N=category_N)
  score_NM = fitted.score(emb_NE)
  for name in 'ab':
    rows_N = category_N == name
    expected_M = _centred(reward_NM[rows_N].mean(axis=0))
    np.testing.assert_allclose(
      score_NM[rows_N], np.tile(expected_M, (rows_N.sum(), 1)), atol=2e-3
    )
  assert abs(report['curves']['train'][-1]) < 1e-6


def test_an_mlp_learns_what_no_linear_head_can():
  rng = np.random.default_rng(0)
  emb_NE = rng.standard_normal((1500, 3))
  product_N = 3 * emb_NE[:, 0] * emb_NE[:, 1]
  reward_NM = np.stack([product_N, -product_N], axis=1)
  right = {}
  for head in ('linear', 'mlp'):
    cfg = zooter.ZooterConfig(
      head=head, hidden=32, embedding='raw', learning_rate=0.02, epochs=60,
      weight_decay=1e-4,
    )  # fmt: skip
    fitted, _ = _fit(emb_NE[:1000], reward_NM[:1000, None], cfg)
    best_N = fitted.score(emb_NE[1000:]).argmax(axis=1)
    right[head] = (best_N == reward_NM[1000:].argmax(axis=1)).mean()
  assert right['linear'] < 0.6 and right['mlp'] > 0.9


def test_training_stops_and_keeps_the_best_epoch():
  """Noise: what an mlp fits makes its validation loss worse."""
  rng = np.random.default_rng(0)
  emb_NE = rng.standard_normal((120, 30))
  reward_NM = 3 * rng.standard_normal((120, 3))
  cfg = zooter.ZooterConfig(
    head='mlp', weight_decay=0.0, patience=3, validation_frac=0.25, batch=32
  )
  fitted, report = _fit(emb_NE, reward_NM[:, None], cfg)
  losses = report['curves']['validation']
  assert report['epoch'] == int(np.argmin(losses)) + 1 == len(losses) - 3
  assert len(losses) < cfg.epochs
  assert len(losses) == len(report['curves']['train'])
  assert report['prompts'] == 90
  # The kept weights are the best epoch's: an independent KL on the other 30.
  train_N = zooter.splits.train_mask(_ids(120), [''] * 120, 0, 0.75)
  target_NM = special.softmax(reward_NM[~train_N], axis=1)
  p_NM = special.softmax(fitted.score(emb_NE[~train_N]), axis=1)
  kl = special.rel_entr(target_NM, p_NM).sum(axis=1).mean()
  np.testing.assert_allclose(kl, min(losses), atol=1e-6)


def test_validation_prompts_do_not_train():
  """One epoch, then all else there: only its own curve moves."""
  emb_NE, theta_EM, bias_M = _linear(60)
  reward_NM = emb_NE @ theta_EM + bias_M
  train_N = zooter.splits.train_mask(_ids(60), [''] * 60, 5, 0.9)
  other_NM = np.where(train_N[:, None], reward_NM, -reward_NM)
  other_NE = np.where(train_N[:, None], emb_NE, emb_NE + 1)
  cfg = zooter.ZooterConfig(epochs=1, seed=5)
  first, first_report = _fit(emb_NE, reward_NM[:, None], cfg)
  second, second_report = _fit(other_NE, other_NM[:, None], cfg)
  np.testing.assert_array_equal(first.score(emb_NE), second.score(emb_NE))
  curves, others = first_report['curves'], second_report['curves']
  assert curves['train'] == others['train']
  assert curves['validation'] != others['validation']


def test_an_mlp_starts_from_the_seed():
  """All prompts in one step and no validation: nothing else is drawn."""
  emb_NE, theta_EM, bias_M = _linear(40)
  reward_NM = emb_NE @ theta_EM + bias_M
  score_NM = {}
  for head in ('linear', 'mlp'):
    settings = _CONVERGED | {'epochs': 3, 'head': head, 'hidden': 8}
    first_NM, second_NM = (
      _fit(emb_NE, reward_NM[:, None], zooter.ZooterConfig(**settings, seed=s))[
        0
      ].score(emb_NE)
      for s in (0, 1)
    )
    score_NM[head] = np.abs(first_NM - second_NM).max()
  assert score_NM['linear'] < 1e-5 and score_NM['mlp'] > 1e-2


@pytest.mark.parametrize('head', ['linear', 'mlp'])
def test_the_seed_decides_everything(head):
  emb_NE, theta_EM, bias_M = _linear(80)
  reward_NM = emb_NE @ theta_EM + bias_M
  cfg = zooter.ZooterConfig(head=head, epochs=4, batch=16)
  digests = []
  for seed in (0, 0, 1):
    fitted, _ = _fit(
      emb_NE, reward_NM[:, None], dataclasses.replace(cfg, seed=seed)
    )
    digests.append(checkpoint.content_digest(zooter.arrays(fitted)))
  assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
  'setting',
  [{'head': 'linear'}, {'head': 'mlp', 'hidden': 8, 'embedding': 'raw'}],
)
def test_a_restored_network_scores_the_same(tmp_path, setting):
  emb_NE, theta_EM, bias_M = _linear(60)
  reward_NM = emb_NE @ theta_EM + bias_M
  reward_NM = np.insert(reward_NM, 0, np.nan, axis=1)
  cfg = zooter.ZooterConfig(**setting, epochs=3, tau=0.7)
  fitted, _ = _fit(emb_NE, reward_NM[:, None], cfg)
  zooter.save(tmp_path / 'weights', fitted)
  again = zooter.restore(tmp_path / 'weights')
  np.testing.assert_array_equal(again.score(emb_NE), fitted.score(emb_NE))
  assert np.ptp(again.score(emb_NE)[:, 1:]) > 0
  assert again.tau == 0.7 and again.embedding == cfg.embedding
  np.testing.assert_allclose(
    np.concatenate([again.score(emb_NE[:1]), again.score(emb_NE[1:])]),
    fitted.score(emb_NE),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  'setting, expected',
  [
    ({'head': 'cubic'}, "'cubic'; allowed: linear, mlp"),
    ({'target': 'median'}, "'median'; allowed: mean, samples"),
    ({'embedding': 'l2'}, "'l2'; allowed: unit, raw"),
    ({'tau': 0.0}, 'tau must be > 0, got 0.0'),
    ({'learning_rate': np.inf}, 'learning_rate must be > 0, got inf'),
    ({'weight_decay': -0.1}, 'weight_decay must be >= 0, got -0.1'),
    ({'batch': -1}, 'batch must be >= 0, got -1'),
    ({'epochs': 0}, 'epochs must be >= 1, got 0'),
    ({'category_weight': 1.5}, 'from 0 to 1, got 1.5'),
    ({'validation_frac': 0.0}, 'patience=0'),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    zooter.ZooterConfig(**setting)


def test_bad_input_is_refused_with_the_reason():
  emb_NE, theta_EM, bias_M = _linear(20)
  reward_NKM = (emb_NE @ theta_EM + bias_M)[:, None]
  cfg = zooter.ZooterConfig(epochs=1)
  with pytest.raises(errors.UserError, match='0 training prompts .* two arms'):
    _fit(emb_NE, reward_NKM[:, :, :1], cfg)
  with pytest.raises(errors.UserError, match='0 categories for 20 prompts'):
    _fit(emb_NE, reward_NKM, dataclasses.replace(cfg, category_weight=0.3))
  fitted, _ = _fit(emb_NE, reward_NKM, cfg)
  with pytest.raises(errors.UserError, match='3 wide, Zooter was fitted on 4'):
    fitted.score(emb_NE[:, :3])
  emb_NE[7, 1] = np.nan
  with pytest.raises(errors.UserError, match='prompts 7 .*not finite'):
    _fit(emb_NE, reward_NKM, cfg)


def test_equal_prompts_teach_only_the_means():
  reward_NM = np.tile([[1.0, 2.0]], (20, 1))
  cfg = zooter.ZooterConfig(**_CONVERGED)
  fitted, _ = _fit(np.ones((20, 4)), reward_NM[:, None], cfg)
  np.testing.assert_allclose(
    fitted.score(np.ones((1, 4))), [[-0.5, 0.5]], atol=2e-3
  )
