"""The linear algebra of a ridge fit: one factorisation for all penalties."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Factor:
  """Eigendecomposition of a centred design x, on the smaller of its two sides.

  basis @ diag(1 / (eig + beta)) @ basis.T @ y is the fit's prediction for
  centred y, so the squared basis gives the leverages.
  """

  x_NE: np.ndarray  # Centred where there is an intercept, times root_N.
  root_N: np.ndarray  # Square roots of the prompts' weights.
  mean_E: np.ndarray
  eig: np.ndarray
  vectors: np.ndarray  # Of the E x E Gram matrix, or of the N x N kernel.
  basis: np.ndarray


def factorise(
  x_NE: np.ndarray, weight_N: np.ndarray, intercept: bool
) -> Factor:
  """Of prepared rows; squared errors are multiplied by `weight_N`."""
  root_N = np.sqrt(weight_N)
  mean_E = np.zeros(x_NE.shape[1])
  if intercept:
    mean_E = np.average(x_NE, axis=0, weights=weight_N)
  # Before accumulating: the Gram of raw embeddings loses digits to the mean.
  x_NE = (x_NE - mean_E) * root_N[:, None]
  num, width = x_NE.shape
  if num < width:
    eig, vectors = np.linalg.eigh(x_NE @ x_NE.T)
    eig = np.maximum(eig, 0.0)
    basis = vectors * np.sqrt(eig)
  else:
    eig, vectors = np.linalg.eigh(x_NE.T @ x_NE)
    eig = np.maximum(eig, 0.0)
    basis = x_NE @ vectors
  return Factor(x_NE, root_N, mean_E, eig, vectors, basis)


def one_minus_leverage(
  factor: Factor, penalty_A: np.ndarray, intercept: bool
) -> np.ndarray:
  """1 minus the hat diagonal, to which the intercept adds each one's share."""
  shrink_EA = 1.0 / (factor.eig[:, None] + penalty_A)
  slack_NA = 1.0 - (factor.basis * factor.basis) @ shrink_EA
  if intercept:
    weight_N = factor.root_N**2
    slack_NA -= (weight_N / weight_N.sum())[:, None]
  return slack_NA


def _centre(
  factor: Factor, target_N: np.ndarray, intercept: bool
) -> tuple[float, np.ndarray]:
  """A target's weighted mean, and what is left of it times root_N."""
  mean = 0.0
  if intercept:
    mean = np.average(target_N, weights=factor.root_N**2)
  return mean, (target_N - mean) * factor.root_N


def leave_one_out_mse(
  factor: Factor,
  penalty_A: np.ndarray,
  slack_NA: np.ndarray,
  target_N: np.ndarray,
  intercept: bool,
) -> np.ndarray:
  """mse_A: weighted mean of the squared leave-one-out errors."""
  error_NA = leave_one_out_errors(
    factor, penalty_A, slack_NA, target_N, intercept
  )
  return np.sum(error_NA**2, axis=0) / np.sum(factor.root_N**2)


def leave_one_out_errors(
  factor: Factor,
  penalty_A: np.ndarray,
  slack_NA: np.ndarray,
  target_N: np.ndarray,
  intercept: bool,
) -> np.ndarray:
  """error_NA, times root_N."""
  _, centred_N = _centre(factor, target_N, intercept)
  shrink_EA = 1.0 / (factor.eig[:, None] + penalty_A)
  projected = factor.basis.T @ centred_N
  resid_NA = centred_N[:, None] - factor.basis @ (
    projected[:, None] * shrink_EA
  )
  return resid_NA / slack_NA


def solve(
  factor: Factor, penalty: float, target_N: np.ndarray, intercept: bool
) -> tuple[np.ndarray, float]:
  """theta_E and the intercept (0 without) at one penalty."""
  mean, centred_N = _centre(factor, target_N, intercept)
  if len(factor.x_NE) < factor.x_NE.shape[1]:
    dual_N = factor.vectors @ (
      (factor.vectors.T @ centred_N) / (factor.eig + penalty)
    )
    theta_E = factor.x_NE.T @ dual_N
  else:
    theta_E = factor.vectors @ (
      (factor.vectors.T @ (factor.x_NE.T @ centred_N)) / (factor.eig + penalty)
    )
  return theta_E, mean - factor.mean_E @ theta_E


# As `factorise`, which it may remember.
Factorise = Callable[[np.ndarray, np.ndarray, bool], Factor]


def remember() -> Factorise:
  """`factorise` that makes each factor once, for as long as it is kept itself.

  For fits to the same prompts one after another, as of several reward models.
  """
  found: dict[tuple[bytes, bytes, bool], Factor] = {}

  def recall(x_NE: np.ndarray, weight_N: np.ndarray, intercept: bool) -> Factor:
    key = _digest(x_NE), _digest(weight_N), intercept
    if key not in found:
      found[key] = factorise(x_NE, weight_N, intercept)
    return found[key]

  return recall


def _digest(array: np.ndarray) -> bytes:
  shape = str(array.shape).encode()
  return hashlib.sha256(shape + array.tobytes()).digest()
