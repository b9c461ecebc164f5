"""The linear algebra of a ridge fit: one factorisation for all penalties.

NumPy alone: a second BLAS, such as SciPy's own, would wait for the threads of
the first one, which spin for a while after each product.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

_ROWS = 2048


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
  x_NE, root_N, mean_E = _centre_rows(x_NE.copy(), weight_N, intercept)
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
  slack_NA = np.empty((len(factor.basis), len(penalty_A)))
  for rows in _blocks(len(slack_NA)):
    part = factor.basis[rows]
    slack_NA[rows] = 1.0 - (part * part) @ shrink_EA
  if intercept:
    weight_N = factor.root_N**2
    slack_NA -= (weight_N / weight_N.sum())[:, None]
  return slack_NA


def leave_one_out_mse(
  factor: Factor,
  penalty_A: np.ndarray,
  slack_NA: np.ndarray,
  target_NM: np.ndarray,
  intercept: bool,
) -> np.ndarray:
  """mse_AM: weighted mean of the squared leave-one-out errors."""
  sum_MA = np.zeros((target_NM.shape[1], len(penalty_A)))
  for _, error_NMA in leave_one_out_errors(
    factor, penalty_A, slack_NA, target_NM, intercept
  ):
    error_NMA *= error_NMA
    sum_MA += error_NMA.sum(axis=0)
  return sum_MA.T / np.sum(factor.root_N**2)


def leave_one_out_errors(
  factor: Factor,
  penalty_A: np.ndarray,
  slack_NA: np.ndarray,
  target_NM: np.ndarray,
  intercept: bool,
) -> Iterator[tuple[slice, np.ndarray]]:
  """Blocks of rows and their error_NMA, times root_N."""
  _, centred_NM = _centre_targets(target_NM, factor.root_N, intercept)
  projected = factor.basis.T @ centred_NM
  weights = projected[:, :, None] / (factor.eig[:, None, None] + penalty_A)
  for rows in _blocks(len(target_NM)):
    error_NMA = np.tensordot(factor.basis[rows], weights, 1)
    np.subtract(centred_NM[rows, :, None], error_NMA, out=error_NMA)
    error_NMA /= slack_NA[rows, None, :]
    yield rows, error_NMA


def solve(
  factor: Factor,
  penalty_M: np.ndarray,
  target_NM: np.ndarray,
  intercept: bool,
) -> tuple[np.ndarray, np.ndarray]:
  """theta_EM and the intercepts (0 without), each column's at its penalty."""
  mean_M, centred_NM = _centre_targets(target_NM, factor.root_N, intercept)
  shrink = 1.0 / (factor.eig[:, None] + penalty_M)
  if len(factor.x_NE) < factor.x_NE.shape[1]:
    dual_NM = factor.vectors @ ((factor.vectors.T @ centred_NM) * shrink)
    theta_EM = factor.x_NE.T @ dual_NM
  else:
    theta_EM = factor.vectors @ ((factor.basis.T @ centred_NM) * shrink)
  return theta_EM, mean_M - factor.mean_E @ theta_EM


class Normal(NamedTuple):
  """A centred design's Gram matrix, or its kernel where that is smaller."""

  x_NE: np.ndarray  # As in `Factor`, and so are the next two.
  root_N: np.ndarray
  mean_E: np.ndarray
  product: np.ndarray


def normal(x_NE: np.ndarray, weight_N: np.ndarray, intercept: bool) -> Normal:
  """As `factorise`, for fits by one penalty. Overwrites x_NE."""
  x_NE, root_N, mean_E = _centre_rows(x_NE, weight_N, intercept)
  num, width = x_NE.shape
  product = x_NE @ x_NE.T if num < width else x_NE.T @ x_NE
  return Normal(x_NE, root_N, mean_E, product)


def solve_normal(
  equations: Normal, penalty: float, target_NM: np.ndarray, intercept: bool
) -> tuple[np.ndarray, np.ndarray]:
  """As `solve`, by one penalty."""
  x_NE, root_N, mean_E, product = equations
  mean_M, centred_NM = _centre_targets(target_NM, root_N, intercept)
  product = product.copy()
  product.flat[:: len(product) + 1] += penalty
  if len(x_NE) < x_NE.shape[1]:
    theta_EM = x_NE.T @ np.linalg.solve(product, centred_NM)
  else:
    theta_EM = np.linalg.solve(product, x_NE.T @ centred_NM)
  return theta_EM, mean_M - mean_E @ theta_EM


def _centre_rows(
  x_NE: np.ndarray, weight_N: np.ndarray, intercept: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The rows about their mean times root_N, in place; root_N and the mean."""
  root_N = np.sqrt(weight_N)
  mean_E = np.zeros(x_NE.shape[1])
  if intercept:
    mean_E = weight_N @ x_NE / weight_N.sum()
  # Before accumulating: the Gram of raw embeddings loses digits to the mean.
  x_NE -= mean_E
  if (weight_N != 1).any():
    x_NE *= root_N[:, None]
  return x_NE, root_N, mean_E


def _centre_targets(
  target_NM: np.ndarray, root_N: np.ndarray, intercept: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Targets' weighted means, and what is left of them times root_N."""
  mean_M = np.zeros(target_NM.shape[1])
  if intercept:
    weight_N = root_N**2
    mean_M = weight_N @ target_NM / weight_N.sum()
  return mean_M, (target_NM - mean_M) * root_N[:, None]


def _blocks(num: int) -> Iterator[slice]:
  """All rows in parts whose temporary arrays stay small."""
  return (slice(i, i + _ROWS) for i in range(0, num, _ROWS))


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
