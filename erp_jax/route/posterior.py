"""How sure a ridge fit is of a prompt, and which arm is then likely the best.

One packed triangle serves all arms and penalties, so that a router's file does
not grow with either, nor with the number of prompts.
"""

import dataclasses
import functools
import math

import numpy as np

from erp_jax.probe import ridge
from erp_jax.route import winprob

# Nodes in a unit of the integral for three arms or more, over an arm's own
# value: within 1e-5 while the others are at least a tenth as uncertain as it
# is. (Gauss-Hermite with as many nodes is off by .009 at an eighth.) Narrower
# ones are nearly steps: more nodes, and those under 1/40 are widened to that.
_PER_UNIT, _LEAST_RATIO = 6, 0.1
_PER_UNIT_FINE, _LEAST_RATIO_FINE = 24, 0.025
_BLOCK = 2**15  # Values of the integrand at once: they stay in a core's cache.
_END, _STEPS = 8, 512  # Φ is tabled on [-8, 8]; linear between: 1.2e-7.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Posterior:
  """Variance of M linear functions of the same features x.

  A ridge fit is the posterior mean under a prior N(0, σ² / β) on each weight
  and noise N(0, σ²) on each target, which is the mean of K rewards. Its
  variance, intercept included, with G the Gram matrix of the n centred rows:

    σ_m² (1/n + (x - mean)ᵀ (G + β_m I)⁻¹ (x - mean))

  It is about the expected reward and knows of no error of the linear form. An
  arm with rewards for n_m < n of the prompts is given n_m / n of the Gram
  matrix. That is exact for n_m = n; else it is too small on average, by
  Jensen's inequality, and the more so the fewer there are.

  Attributes:
    mean_E: of the rows; 0 without intercept.
    triangle_U: upper triangle R, RᵀR = G + floor I, row after row, float32.
    floor: the smallest penalty.
    penalty_M: β_m n / n_m.
    noise_M: σ_m² n / n_m.
    share: 1/n; 0 without intercept.
    limit: leverage from which on a prompt is out of distribution.
  """

  mean_E: np.ndarray
  triangle_U: np.ndarray
  floor: float
  penalty_M: np.ndarray
  noise_M: np.ndarray
  share: float
  limit: float

  def __post_init__(self):
    width = len(self.mean_E)
    if self.triangle_U.shape != (width * (width + 1) // 2,):
      raise ValueError(f'{self.triangle_U.shape} is no triangle of {width}.')

  @functools.cached_property
  def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of G, and its eigenvectors as columns.

    From the triangle's singular values: squaring it first would lose half of
    the digits of small eigenvalues.
    """
    width = len(self.mean_E)
    upper_EE = np.zeros((width, width))
    upper_EE[np.triu_indices(width)] = self.triangle_U
    _, root_E, vectors_EE = np.linalg.svd(upper_EE)
    return np.maximum(root_E**2 - self.floor, 0.0), vectors_EE.T

  @functools.cached_property
  def _shrink_EA(self) -> np.ndarray:
    """What each penalty leaves of a direction; the last is the smallest."""
    penalty_A = np.append(self.penalty_M, self.floor)
    return 1.0 / (self._spectrum[0][:, None] + penalty_A)

  def variance(self, x_NE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """variance_NM, and leverage_N at the smallest penalty."""
    square_NE = ((x_NE - self.mean_E) @ self._spectrum[1]) ** 2
    leverage_NA = self.share + square_NE @ self._shrink_EA
    return leverage_NA[:, :-1] * self.noise_M, leverage_NA[:, -1]


def fit(
  x_NE: np.ndarray,
  reward_NM: np.ndarray,
  prediction_NM: np.ndarray,
  penalty_M: np.ndarray,
  intercept: bool,
  quantile: float,
) -> Posterior:
  """The posterior that goes with a ridge fit.

  σ_m² is the mean of residual² / (1 - leverage), which the model above makes
  unbiased. `limit` is a quantile of the training prompts' leverages, each in
  the fit to the others: what new prompts from the same source have.

  Args:
    x_NE: features of the training prompts.
    reward_NM: their targets, NaN where missing.
    prediction_NM: the fit at the training prompts.
    penalty_M: β of each arm, on the sum of its squared errors.
  """
  known_N = np.isfinite(reward_NM).any(axis=1)
  x_NE, reward_NM = x_NE[known_N], reward_NM[known_N]
  prediction_NM = prediction_NM[known_N]
  num = len(x_NE)
  present_NM = np.isfinite(reward_NM)
  noise_M = np.empty(reward_NM.shape[1])
  for present_N, columns in ridge.patterns(present_NM):
    slack_NA = ridge.one_minus_leverage(
      x_NE[present_N], penalty_M[columns], intercept
    )
    rows = np.ix_(present_N, columns)
    residual_NA = reward_NM[rows] - prediction_NM[rows]
    noise_M[columns] = (residual_NA**2 / slack_NA).mean(axis=0)
  ratio_M = num / present_NM.sum(axis=0)
  floor = float((penalty_M * ratio_M).min())
  mean_E = x_NE.mean(axis=0) if intercept else np.zeros(x_NE.shape[1])
  centred_NE = x_NE - mean_E
  gram_EE = centred_NE.T @ centred_NE
  gram_EE[np.diag_indices_from(gram_EE)] += floor
  upper_EE = np.linalg.cholesky(gram_EE).T
  slack_N = ridge.one_minus_leverage(x_NE, np.array([floor]), intercept)[:, 0]
  return Posterior(
    mean_E=mean_E,
    triangle_U=upper_EE[np.triu_indices(len(upper_EE))].astype(np.float32),
    floor=floor,
    penalty_M=penalty_M * ratio_M,
    noise_M=noise_M * ratio_M,
    share=1 / num if intercept else 0.0,
    limit=float(np.quantile(1 / slack_N - 1, quantile)),
  )


def win_probability(mean_NM: np.ndarray, std_NM: np.ndarray) -> np.ndarray:
  """win_NM: chance that an arm's expected reward is the highest of all.

  Arms are independent Gaussians. Closed form for two; else an integral, within
  1e-5, or .003 where an arm is less than 1/40 as uncertain as another. Arms
  that tie without uncertainty share.
  """
  num_arms = mean_NM.shape[1]
  if num_arms == 1:
    return np.ones(mean_NM.shape)
  if num_arms == 2:
    win_N = winprob.plug_in(
      mean_NM[:, 1] - mean_NM[:, 0], std_NM[:, 1] ** 2, std_NM[:, 0] ** 2
    )
    return np.stack([1 - win_N, win_N], axis=1)
  return _integrate(mean_NM, std_NM)


def _integrate(mean_NM: np.ndarray, std_NM: np.ndarray) -> np.ndarray:
  """win_NM, by the trapezoidal rule over each arm's own value."""
  widest_N = std_NM.max(axis=1)
  best_NM = mean_NM == mean_NM.max(axis=1, keepdims=True)
  win_NM = best_NM / best_NM.sum(axis=1, keepdims=True)
  narrow_N = std_NM.min(axis=1) < _LEAST_RATIO * widest_N
  for rows_N, per_unit, least_ratio in (
    (~narrow_N & (widest_N > 0), _PER_UNIT, _LEAST_RATIO),
    (narrow_N, _PER_UNIT_FINE, _LEAST_RATIO_FINE),
  ):
    if rows_N.any():
      win_NM[rows_N] = _trapezoid(
        mean_NM[rows_N], std_NM[rows_N], per_unit, least_ratio
      )
  return win_NM


def _trapezoid(
  mean_NM: np.ndarray, std_NM: np.ndarray, per_unit: int, least_ratio: float
) -> np.ndarray:
  # A tie of arms that are known, beside one that is not, divides 0 by 0.
  std_NM = np.maximum(std_NM, 1e-9 * std_NM.max(axis=1, keepdims=True))
  node_J, weight_J = _nodes(per_unit)
  other_MO = _others(mean_NM.shape[1])
  std_NMO = np.maximum(std_NM[:, other_MO], least_ratio * std_NM[:, :, None])
  at_NMO = (mean_NM[:, :, None] - mean_NM[:, other_MO]) / std_NMO
  step_NMO = std_NM[:, :, None] / std_NMO
  win_NM = np.empty(mean_NM.shape)
  num_rows = max(1, _BLOCK // (other_MO.size * len(node_J)))
  for start in range(0, len(mean_NM), num_rows):
    rows = slice(start, start + num_rows)
    z_NMOJ = step_NMO[rows, :, :, None] * node_J + at_NMO[rows, :, :, None]
    win_NM[rows] = _normal_cdf(z_NMOJ).prod(axis=2) @ weight_J
  return win_NM / win_NM.sum(axis=1, keepdims=True)


@functools.cache
def _nodes(per_unit: int) -> tuple[np.ndarray, np.ndarray]:
  """Nodes of the integral in standard deviations, and their weights."""
  node_J = np.arange(-5 * per_unit, 5 * per_unit + 1) / per_unit
  return node_J, np.exp(-(node_J**2) / 2)


@functools.cache
def _others(num_arms: int) -> np.ndarray:
  """other_MO: of each arm m, the others o."""
  return np.array(
    [[o for o in range(num_arms) if o != m] for m in range(num_arms)]
  )


@functools.cache
def _cdf_table() -> tuple[np.ndarray, np.ndarray]:
  """Φ at the grid's points, and its steps to the next one."""
  grid = np.arange(-_END * _STEPS, _END * _STEPS + 1) / _STEPS
  table = np.array([math.erfc(-z / math.sqrt(2)) / 2 for z in grid])
  return table, np.append(np.diff(table), 0.0)


def _normal_cdf(z: np.ndarray) -> np.ndarray:
  """Φ, element by element: NumPy has no erf, and math.erf takes one."""
  table, step = _cdf_table()
  at = (z + _END) * _STEPS
  at = np.minimum(np.maximum(at, 0), len(table) - 1)
  index = at.astype(np.int32)
  return table[index] + (at - index) * step[index]
