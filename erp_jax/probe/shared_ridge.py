"""Ridge fits of many columns by one penalty, and leave-one-out errors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from erp_jax.probe import factor as factor_lib
from erp_jax.probe import ridge


class Shared(NamedTuple):
  """A fit of all columns by one penalty, that of the least errors together.

  Attributes:
    theta_EM, bias_M: weights, intercepts.
    best: index of the penalty.
    loo_mse_A: mean squared leave-one-out error over all columns, of each.
    error_NM: leave-one-out errors at the best one, NaN where missing.
  """

  theta_EM: np.ndarray
  bias_M: np.ndarray
  best: int
  loo_mse_A: np.ndarray
  error_NM: np.ndarray


def fit_shared(
  x_NE: np.ndarray,
  target_NM: np.ndarray,
  penalty_A: np.ndarray,
  factorise: factor_lib.Factorise = factor_lib.factorise,
) -> Shared:
  """With an intercept; `x_NE` is prepared, penalties on the sum of squares.

  One factorisation per row pattern finds the penalty and the weights.
  """
  error_ANM = np.full((len(penalty_A), *target_NM.shape), np.nan)
  found = []
  for present_N, columns in ridge.patterns(np.isfinite(target_NM)):
    factor = factorise(x_NE[present_N], np.ones(present_N.sum()), True)
    _place_errors(
      error_ANM, factor, target_NM, present_N, columns, penalty_A, True
    )
    found.append((factor, present_N, columns))
  loo_mse_A = np.nanmean(error_ANM**2, axis=(1, 2))
  best = int(np.argmin(loo_mse_A))
  theta_EM = np.empty((x_NE.shape[1], target_NM.shape[1]))
  bias_M = np.empty(target_NM.shape[1])
  for factor, present_N, columns in found:
    theta_EM[:, columns], bias_M[columns] = factor_lib.solve(
      *(factor, penalty_A[[best]], target_NM[np.ix_(present_N, columns)], True)
    )
  return Shared(theta_EM, bias_M, best, loo_mse_A, error_ANM[best])


def leave_one_out(
  x_NE: np.ndarray,
  target_NM: np.ndarray,
  penalty_A: np.ndarray,
  intercept: bool,
) -> np.ndarray:
  """error_ANM: target minus prediction by the fit to the column's other rows.

  At each penalty, on the sum of squares; NaN where the target is missing.
  `x_NE` is prepared.
  """
  error_ANM = np.full((len(penalty_A), *target_NM.shape), np.nan)
  for present_N, columns in ridge.patterns(np.isfinite(target_NM)):
    num = int(present_N.sum())
    factor = factor_lib.factorise(x_NE[present_N], np.ones(num), intercept)
    _place_errors(
      *(error_ANM, factor, target_NM, present_N, columns, penalty_A, intercept)
    )
  return error_ANM


def _place_errors(
  error_ANM: np.ndarray,
  factor: factor_lib.Factor,
  target_NM: np.ndarray,
  present_N: np.ndarray,
  columns: Sequence[int],
  penalty_A: np.ndarray,
  intercept: bool,
) -> None:
  """Fills in the leave-one-out errors of one row pattern's columns."""
  slack_NA = factor_lib.one_minus_leverage(factor, penalty_A, intercept)
  present = np.flatnonzero(present_N)
  own_NM = target_NM[np.ix_(present, columns)]
  for rows, error_NMA in factor_lib.leave_one_out_errors(
    factor, penalty_A, slack_NA, own_NM, intercept
  ):
    place = np.ix_(range(len(penalty_A)), present[rows], columns)
    error_ANM[place] = error_NMA.transpose(2, 0, 1)
