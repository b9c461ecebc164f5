"""The solver against scikit-learn, its own gradient, and known non-answers."""

import numpy as np
import pytest
from sklearn import linear_model

from erp_jax.probe import logistic


def _problem(num, width, num_columns, seed=0):
  """Features off centre, and counts of wins and losses, some of them 0."""
  rng = np.random.default_rng(seed)
  x_NE = rng.standard_normal((num, width)) + 3
  theta_EI = rng.standard_normal((width, num_columns))
  p_NI = 1 / (1 + np.exp(-(x_NE - 3) @ theta_EI))
  win_NI = rng.binomial(3, p_NI).astype(float)
  loss_NI = rng.binomial(3, 1 - p_NI).astype(float)
  return x_NE, win_NI, loss_NI


def _sklearn(x_NE, win_N, loss_N, c):
  """Weights and bias on rows of which each is one win or one loss."""
  rows = np.concatenate([np.repeat(np.arange(len(x_NE)), count.astype(int))
                         for count in (win_N, loss_N)])  # fmt: skip
  classes = np.repeat([1, 0], [int(win_N.sum()), int(loss_N.sum())])
  model = linear_model.LogisticRegression(
    C=c, tol=1e-12, max_iter=5000, solver='newton-cg'
  ).fit(x_NE[rows], classes)
  return model.coef_[0], model.intercept_[0]


@pytest.mark.parametrize('num, width', [(200, 5), (20, 60), (30, 30)])
@pytest.mark.parametrize('c', [0.01, 1.0, 100.0])
def test_weights_are_those_of_scikit_learn(num, width, c):
  x_NE, win_NI, loss_NI = _problem(num, width, 3)
  theta_EI, bias_I, converged_I = logistic.solve(
    x_NE, win_NI, loss_NI, np.full(3, c)
  )
  assert converged_I.all()
  for index in range(3):
    theta_E, bias = _sklearn(x_NE, win_NI[:, index], loss_NI[:, index], c)
    np.testing.assert_allclose(theta_EI[:, index], theta_E, atol=1e-5)
    np.testing.assert_allclose(bias_I[index], bias, atol=3e-5)


@pytest.mark.parametrize('c', [1e-3, 1.0, 1e4, np.inf])
def test_the_gradient_is_zero(c):
  x_NE, win_NI, loss_NI = _problem(300, 6, 4)
  theta_EI, bias_I, converged_I = logistic.solve(
    x_NE, win_NI, loss_NI, np.full(4, c)
  )
  p_NI = 1 / (1 + np.exp(-(x_NE @ theta_EI + bias_I)))
  resid_NI = (win_NI + loss_NI) * p_NI - win_NI
  assert converged_I.all()
  np.testing.assert_allclose(resid_NI.sum(axis=0), 0, atol=1e-9)
  np.testing.assert_allclose(x_NE.T @ resid_NI + theta_EI / c, 0, atol=1e-8)


def test_columns_do_not_mix_and_have_their_own_c():
  x_NE, win_NI, loss_NI = _problem(80, 4, 3)
  c_I = np.array([0.1, 1.0, 10.0])
  theta_EI, bias_I, _ = logistic.solve(x_NE, win_NI, loss_NI, c_I)
  for index in range(3):
    alone = slice(index, index + 1)
    theta_E1, bias_1, _ = logistic.solve(
      x_NE, win_NI[:, alone], loss_NI[:, alone], c_I[alone]
    )
    np.testing.assert_allclose(theta_EI[:, alone], theta_E1, atol=1e-10)
    np.testing.assert_allclose(bias_I[alone], bias_1, atol=1e-10)


# Drawn from a Cauchy distribution: all but separable, one of 300 such draws on
# which whole Newton steps from 0 diverge.
_FAR_NE = np.array(
  [[15, 0, -8], [1, -32, 0], [1, 9, 11], [-1, -5, 2], [37, 0, -2], [0, -1, -2]]
  + [[11, -8, 2], [-13, 1, -12], [-2, -1, 16], [-1, 15, -5], [-3, -5, 3]]
  + [[73, -13, -3], [2, -4, 20], [-6, 4, -7], [-2, 8, 10]],
  float,
)
_FAR_WINS = [0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 1]


def test_newton_is_kept_from_overshooting():
  x_NE, win_NI = _FAR_NE, np.array(_FAR_WINS, float)[:, None]
  theta_EI, bias_I, converged_I = logistic.solve(
    x_NE, win_NI, 1 - win_NI, np.array([1e8])
  )
  p_NI = 1 / (1 + np.exp(-(x_NE @ theta_EI + bias_I)))
  assert converged_I.all() and np.abs(theta_EI).max() > 10
  np.testing.assert_allclose((p_NI - win_NI).sum(axis=0), 0, atol=1e-9)
  gradient_EI = x_NE.T @ (p_NI - win_NI) + theta_EI / 1e8
  np.testing.assert_allclose(gradient_EI, 0, atol=1e-8)


@pytest.mark.parametrize('middle', [(0.0, 0.0), (1.0, 1.0)])
def test_separable_classes_have_no_answer_without_a_penalty(middle):
  """Strictly separable; and touching at 0, where both classes are."""
  x_NE = np.array([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
  win_NI = np.array([[0.0], [0.0], [middle[0]], [1.0], [1.0]])
  loss_NI = np.array([[1.0], [1.0], [middle[1]], [0.0], [0.0]])
  solved = lambda c: logistic.solve(x_NE, win_NI, loss_NI, np.array([c]))
  assert not solved(np.inf)[2].any()
  assert solved(100.0)[2].all()


def test_one_class_has_no_answer_and_spoils_no_other():
  x_NE, win_NI, loss_NI = _problem(50, 3, 2)
  loss_NI[:, 0] = 0
  theta_EI, _, converged_I = logistic.solve(x_NE, win_NI, loss_NI, np.ones(2))
  assert converged_I.tolist() == [False, True]
  theta_E, _ = _sklearn(x_NE, win_NI[:, 1], loss_NI[:, 1], 1.0)
  np.testing.assert_allclose(theta_EI[:, 1], theta_E, atol=1e-5)


def test_features_that_repeat_share_their_weight_without_a_penalty():
  """The least squares norm of all minima, as from a start at 0."""
  x_NE, win_NI, loss_NI = _problem(100, 2, 1)
  twice_NE = np.concatenate([x_NE, x_NE], axis=1)
  none = np.array([np.inf])
  theta_EI, bias_I, _ = logistic.solve(x_NE, win_NI, loss_NI, none)
  twice_EI, twice_bias_I, converged_I = logistic.solve(
    twice_NE, win_NI, loss_NI, none
  )
  assert converged_I.all()
  np.testing.assert_allclose(twice_EI[:2] + twice_EI[2:], theta_EI, atol=1e-6)
  np.testing.assert_allclose(twice_EI[:2], twice_EI[2:], atol=1e-4)
  np.testing.assert_allclose(twice_bias_I, bias_I, atol=1e-6)


def test_conjugate_gradients_find_what_the_whole_hessian_does(monkeypatch):
  """Also where prompts count very unlike, which their preconditioner hides."""
  x_NE, win_NI, loss_NI = _problem(150, 40, 3)
  win_NI[::2] *= 50
  loss_NI[::3] = 0
  c_I = np.array([0.1, 1.0, 100.0])
  fast = logistic.solve(x_NE, win_NI, loss_NI, c_I)
  products = []
  monkeypatch.setattr(logistic, '_MAX_CONJUGATE', 0)
  conjugate = logistic._conjugate
  monkeypatch.setattr(
    *(logistic, '_conjugate'),
    lambda *problem: products.append(conjugate(*problem)) or products[-1],
  )
  slow = logistic.solve(x_NE, win_NI, loss_NI, c_I)
  assert products and not any(solved_I.any() for _, solved_I in products)
  for found, expected in zip(fast, slow, strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-8)
