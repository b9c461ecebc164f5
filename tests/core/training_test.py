"""Training against a closed form, and what is kept of it."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from erp_jax.core import training

_SETTINGS = {
  'learning_rate': 0.1,
  'weight_decay': 0.0,
  'epochs': 300,
  'batch': 0,
  'seed': 0,
  'patience': 0,
}


@functools.partial(jax.jit, static_argnames='graph')
def _loss(params, graph, decay, x_BE, y_B):
  error_B = training.apply(graph, params, x_BE)[:, 0] - y_B
  return (error_B**2).mean() / 2 + training.penalty(params, decay)


def _train(x_NE, y_N, train_N, **settings):
  graph, params = nnx.split(nnx.Linear(3, 1, rngs=nnx.Rngs(0)))
  sides = {
    side: (jnp.asarray(x_NE[mask_N]), jnp.asarray(y_N[mask_N]))
    for side, mask_N in (('train', train_N), ('validation', ~train_N))
    if mask_N.any()
  }
  cfg = types.SimpleNamespace(**_SETTINGS | settings)
  return graph, training.train(_loss, graph, params, sides, cfg)


def _data(num=64):
  rng = np.random.default_rng(0)
  x_NE = rng.standard_normal((num, 3)).astype(np.float32)
  noise_N = rng.standard_normal(num)
  return x_NE, (x_NE @ [1.0, -2.0, 0.5] + 3 + noise_N).astype(np.float32)


@pytest.mark.parametrize('decay', [0.0, 0.5])
def test_a_linear_network_becomes_the_ridge_solution(decay):
  x_NE, y_N = _data()
  every_N = np.ones(64, bool)
  graph, found = _train(x_NE, y_N, every_N, weight_decay=decay)
  one_NE = np.concatenate([x_NE, np.ones((64, 1))], axis=1)
  gram = one_NE.T @ one_NE / 64 + decay * np.diag([1, 1, 1, 0])
  theta = np.linalg.solve(gram, one_NE.T @ y_N / 64)
  expected_N = one_NE @ theta
  np.testing.assert_allclose(
    training.outputs(graph, found.params, x_NE)[:, 0], expected_N, atol=1e-3
  )
  # Curves are without the penalty.
  mean = ((expected_N - y_N) ** 2).mean() / 2
  assert found.loss == found.curves['train'][-1] == pytest.approx(mean, 1e-4)
  assert found.epoch == len(found.curves['train']) == 300


def test_the_epoch_of_the_best_validation_loss_is_kept():
  x_NE, y_N = _data(24)
  train_N = np.arange(24) < 6  # So few that it soon fits their noise.
  graph, found = _train(x_NE, y_N, train_N, patience=20, batch=3)
  curve = found.curves['validation']
  assert found.epoch == np.argmin(curve) + 1 == len(curve) - 20
  assert len(curve) < 300
  kept_N = training.outputs(graph, found.params, x_NE[~train_N])[:, 0]
  mean = ((kept_N - y_N[~train_N]) ** 2).mean() / 2
  assert found.loss == min(curve) == pytest.approx(mean, 1e-5)


def test_outputs_are_those_of_rows_on_their_own(monkeypatch):
  x_NE, y_N = _data()
  graph, found = _train(x_NE, y_N, np.ones(64, bool), epochs=2)
  whole = training.outputs(graph, found.params, x_NE)
  monkeypatch.setattr(training, '_ROWS', 5)
  again = training.outputs(graph, found.params, x_NE)
  np.testing.assert_allclose(again, whole, atol=1e-6)
