"""Many logistic regressions on the same features, by Newton's method.

float64 NumPy, as the ridge: fitting must need no accelerator, and Newton's last
steps are where the digits come from. Axis I is that of the regressions.
"""

import numpy as np

_MAX_STEPS = 100  # Newton needs about ten where there is a minimum.
_SETTLED = 1e-8  # A last change of log-odds: the next would be its square.
_DAMPING = 1e-10  # Of the Hessian's largest entry, added to its diagonal.
_MAX_CONJUGATE = 100  # Products with the Hessian that one step may take.
_EXACT = 1e-3  # Residual of a step, of its gradient.


def solve(
  x_NE: np.ndarray, win_NI: np.ndarray, loss_NI: np.ndarray, c_I: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """theta_EI, bias_I, converged_I: minima of Σ log loss + ‖θ‖² / (2C).

  A prompt weighs as many rows as it has wins and losses. Newton's method with
  step halving, all columns at once, each until it has converged. Where C is inf
  and there is no minimum converged_I is False and the weights mean nothing; a
  column of one class is left at 0, not converged.
  """
  mean_E = x_NE.mean(axis=0)
  # Centred, the intercept is nearly orthogonal to the weights.
  x_NE, basis, size = _principal(x_NE - mean_E)
  design = np.concatenate([x_NE, np.ones((len(x_NE), 1))], axis=1)
  size = np.append(size, len(x_NE))
  penalty = np.repeat(1 / c_I[None], design.shape[1], axis=0)
  penalty[-1] = 0
  weight = np.zeros(penalty.shape)
  converged_I = np.zeros(len(c_I), bool)
  todo = np.flatnonzero((win_NI.sum(axis=0) > 0) & (loss_NI.sum(axis=0) > 0))
  for _ in range(_MAX_STEPS):
    if not len(todo):
      break
    problem = design, win_NI[:, todo], loss_NI[:, todo], penalty[:, todo]
    step = _newton_step(weight[:, todo], size, *problem)
    weight[:, todo] += _shorten(step, weight[:, todo], *problem)
    settled = np.abs(design @ step).max(axis=0) <= _SETTLED
    separated = _separated(weight[:, todo], *problem)
    converged_I[todo[settled & ~separated]] = True
    todo = todo[~(settled | separated)]
  theta_EI = basis.T @ weight[:-1]
  return theta_EI, weight[-1] - mean_E @ theta_EI, converged_I


def _principal(
  x_NE: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Coordinates in which features are orthogonal, their basis, and squares.

  θ lies in the span of the prompts: where they are few, that is the smaller
  problem.
  """
  if len(x_NE) < x_NE.shape[1]:
    _, size, basis = np.linalg.svd(x_NE, full_matrices=False)
    kept = size > 1e-12 * size.max(initial=0)
    basis, size = basis[kept], size[kept] ** 2
  else:
    size, vectors = np.linalg.eigh(x_NE.T @ x_NE)
    basis, size = vectors.T, np.maximum(size, 0.0)
  return x_NE @ basis.T, basis, size


def _newton_step(weight, size, design, win_NI, loss_NI, penalty):
  """−H⁻¹g of each column."""
  share_NI = _sigmoid(design @ weight)
  num_NI = win_NI + loss_NI
  gradient = design.T @ (num_NI * share_NI - win_NI) + penalty * weight
  curvature_NI = num_NI * share_NI * (1 - share_NI)
  step, solved_I = _conjugate(gradient, curvature_NI, design, size, penalty)
  for index in np.flatnonzero(~solved_I):
    used_N = curvature_NI[:, index] > 0  # A prompt with a tie alone is not.
    part = design[used_N]
    hessian = (part.T * curvature_NI[used_N, index]) @ part
    diagonal = np.diag_indices(len(hessian))
    hessian[diagonal] += penalty[:, index]
    # Untied prompts may span less than all features: then H is singular, and
    # the gradient is 0 where it is.
    hessian[diagonal] += _DAMPING * hessian[diagonal].max()
    step[:, index] = -np.linalg.solve(hessian, gradient[:, index])
  return step


def _conjugate(gradient, curvature_NI, design, size, penalty):
  """−H⁻¹g by conjugate gradients, all columns at once, and which are solved.

  Prompts count nearly alike, so in principal coordinates H is nearly diagonal:
  a few products with it do what E³ operations would. Columns without a penalty
  are left, since their H may be singular.
  """
  solved_I = np.zeros(gradient.shape[1], bool)
  step = np.zeros(gradient.shape)
  inverse = 1 / (size[:, None] * curvature_NI.mean(axis=0) + penalty + 1e-300)
  todo = np.flatnonzero(penalty.any(axis=0))
  residual = -gradient
  direction = inverse * residual
  product_I = (residual * direction).sum(axis=0)
  goal_I = _EXACT**2 * product_I
  solved_I[todo] = product_I[todo] == 0
  for _ in range(_MAX_CONJUGATE):
    todo = todo[~solved_I[todo]]
    if not len(todo):
      break
    along = direction[:, todo]
    image = design.T @ (curvature_NI[:, todo] * (design @ along))
    image += penalty[:, todo] * along
    length_I = product_I[todo] / (along * image).sum(axis=0)
    step[:, todo] += length_I * along
    residual[:, todo] -= length_I * image
    scaled = inverse[:, todo] * residual[:, todo]
    after_I = (residual[:, todo] * scaled).sum(axis=0)
    direction[:, todo] = scaled + after_I / product_I[todo] * along
    product_I[todo] = after_I
    solved_I[todo] = after_I <= goal_I[todo]
  return step, solved_I


def _shorten(step, weight, *problem):
  """Steps halved until none makes its objective worse."""
  before_I = _objective(weight, *problem)
  for _ in range(30):
    after_I = _objective(weight + step, *problem)
    worse_I = after_I > before_I + 1e-12 * np.abs(before_I)
    if not worse_I.any():
      break
    step = np.where(worse_I, step / 2, step)
  return step


def _objective(weight, design, win_NI, loss_NI, penalty):
  logit_NI = design @ weight
  loss_of = lambda sign: np.logaddexp(0, sign * logit_NI)
  likelihood_I = (win_NI * loss_of(-1) + loss_NI * loss_of(1)).sum(axis=0)
  return likelihood_I + (penalty * weight**2).sum(axis=0) / 2


def _separated(weight, design, win_NI, loss_NI, penalty):
  """Without a penalty: every win has log-odds above 0, every loss below."""
  logit_NI = design @ weight
  wrong_NI = ((win_NI > 0) & (logit_NI <= 0)) | (
    (loss_NI > 0) & (logit_NI >= 0)
  )
  return ~wrong_NI.any(axis=0) & ~penalty.any(axis=0)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  return 0.5 * (1 + np.tanh(logits / 2))
