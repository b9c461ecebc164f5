"""Ridge probes (3.2) in closed form.

One penalty takes one linear system, and a grid of them one eigendecomposition.

float64 NumPy, not float32 JAX: fitting must need no accelerator, one
eigendecomposition dominates either way, and float32 leave-one-out errors keep
four digits at the smallest penalties, where 1 - leverage cancels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import factor as factor_lib

# Columns that are computed together, filled up with zeros: a BLAS sums in
# another order when there are more columns, and an added arm would show.
_GROUP = 16
_BETAS = tuple(float(f'{10 ** (k / 4):.4g}') for k in range(-12, 13))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RidgeConfig:
  """Ridge probe (3.2) with the switches of PAPER.md 6."""

  beta: float = 1.0  # Penalty on ||theta||^2, for selection='fixed'.
  selection: str = 'fixed'  # Or 'leave_one_out': each arm's best of `betas`.
  betas: tuple[float, ...] = _BETAS  # Ascending grid, for 'leave_one_out'.
  loss: str = 'sum'  # Of squared errors (sklearn's alpha), or their 'mean'.
  embedding: str = 'unit'  # Rows scaled to length 1, or 'raw'.
  intercept: bool = True  # Unpenalised.

  def __post_init__(self):
    for name, allowed in (
      ('selection', ('fixed', 'leave_one_out')),
      ('loss', ('sum', 'mean')),
      ('embedding', ('unit', 'raw')),
    ):
      errors.check_choice(f'ridge.{name}', getattr(self, name), allowed)
    if not (np.isfinite(self.beta) and self.beta > 0):
      raise errors.UserError(f'ridge.beta must be > 0, got {self.beta}.')
    betas = self.betas
    if not betas or not all(np.isfinite(b) and b > 0 for b in betas):
      raise errors.UserError(
        f'ridge.betas must be positive numbers, at least one, got {betas}.'
      )
    if any(a >= b for a, b in zip(betas, betas[1:], strict=False)):
      raise errors.UserError(f'ridge.betas must ascend, got {betas}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """Fitted probes, all float64.

  Attributes:
    theta_EM: weights.
    bias_M: intercepts (0 without).
    beta_M: the penalty of each arm, in the units of the config's `loss`.
    num_prompts_M: training prompts that each arm has a reward for.
    betas_A: the penalties tried.
    loo_mse_AM: mean squared leave-one-out error of each; NaN where the
      config's selection is 'fixed'.
    embedding: 'unit' or 'raw', as in the config.
  """

  theta_EM: np.ndarray
  bias_M: np.ndarray
  beta_M: np.ndarray
  num_prompts_M: np.ndarray
  betas_A: np.ndarray
  loo_mse_AM: np.ndarray
  embedding: str


def fit(
  emb_NE: np.ndarray,
  reward_NM: np.ndarray,
  cfg: RidgeConfig,
  names: Sequence[str] = (),
  weight_N: np.ndarray | None = None,
) -> Probe:
  """Probes of all columns of `reward_NM`: arms, of any number of reward models.

  Missing rewards are NaN: columns that miss the same prompts share one
  factorisation. A column's result does not depend, to the bit, on which other
  columns there are. Works for fewer prompts than features.
  `names` are the columns', for messages; without, they are counted from 0.

  `weight_N` multiplies the squared errors; without, it is 1. A whole number is
  the same as so many copies of the prompt, except that leaving one out leaves
  out all its copies. A prompt of weight 0 is not there.
  Raises UserError for embeddings that are not finite or, to be scaled to unit
  length, zero, and for a column with fewer than two rewards.
  """
  emb_NE = prepare(emb_NE, cfg.embedding)
  reward_NM = np.asarray(reward_NM, np.float64)
  if reward_NM.ndim != 2 or len(reward_NM) != len(emb_NE):
    raise ValueError(
      f'embeddings {emb_NE.shape} and rewards {reward_NM.shape} must have one '
      'row per prompt.'
    )
  betas_A = grid(cfg)
  if weight_N is None:
    weight_N = np.ones(len(emb_NE))
  present_NM = np.isfinite(reward_NM) & (weight_N > 0)[:, None]
  num_prompts_M = present_NM.sum(axis=0)
  check_counts(num_prompts_M, names)
  theta_EM = np.empty((emb_NE.shape[1], reward_NM.shape[1]))
  bias_M = np.empty(reward_NM.shape[1])
  beta_M = np.empty(reward_NM.shape[1])
  loo_mse_AM = np.empty((len(betas_A), reward_NM.shape[1]))
  groups = patterns(present_NM)
  for present_N, columns in groups:
    # A fit overwrites its rows.
    all_rows = len(groups) == 1 and present_N.all()
    x_NE = emb_NE if all_rows else emb_NE[present_N]
    fit_columns = _FITS[cfg.selection](x_NE, weight_N[present_N], cfg)
    for start in range(0, len(columns), _GROUP):
      group = columns[start : start + _GROUP]
      target_NM = np.zeros((len(x_NE), _GROUP))
      target_NM[:, : len(group)] = reward_NM[np.ix_(present_N, group)]
      fitted = fit_columns(target_NM)
      theta_EM[:, group] = fitted.theta_EM[:, : len(group)]
      bias_M[group] = fitted.bias_M[: len(group)]
      beta_M[group] = betas_A[fitted.best_M[: len(group)]]
      loo_mse_AM[:, group] = fitted.loo_mse_AM[:, : len(group)]
  return Probe(
    theta_EM=theta_EM,
    bias_M=bias_M,
    beta_M=beta_M,
    num_prompts_M=num_prompts_M,
    betas_A=betas_A,
    loo_mse_AM=loo_mse_AM,
    embedding=cfg.embedding,
  )


class _Fitted(NamedTuple):
  """Some columns' parts of a Probe; best_M are indices of penalties."""

  theta_EM: np.ndarray
  bias_M: np.ndarray
  best_M: np.ndarray
  loo_mse_AM: np.ndarray


def _fixed(
  x_NE: np.ndarray, weight_N: np.ndarray, cfg: RidgeConfig
) -> Callable[[np.ndarray], _Fitted]:
  """Fits columns by the one penalty there is."""
  equations = factor_lib.normal(x_NE, weight_N, cfg.intercept)
  (penalty,) = _penalties(weight_N, cfg)

  def fit_columns(target_NM: np.ndarray) -> _Fitted:
    num_columns = target_NM.shape[1]
    return _Fitted(
      *factor_lib.solve_normal(equations, penalty, target_NM, cfg.intercept),
      best_M=np.zeros(num_columns, int),
      loo_mse_AM=np.full((1, num_columns), np.nan),
    )

  return fit_columns


def _leave_one_out(
  x_NE: np.ndarray, weight_N: np.ndarray, cfg: RidgeConfig
) -> Callable[[np.ndarray], _Fitted]:
  """Fits columns by each one's best penalty of the grid."""
  factor = factor_lib.factorise(x_NE, weight_N, cfg.intercept)
  penalty_A = _penalties(weight_N, cfg)
  slack_NA = factor_lib.one_minus_leverage(factor, penalty_A, cfg.intercept)

  def fit_columns(target_NM: np.ndarray) -> _Fitted:
    loo_mse_AM = factor_lib.leave_one_out_mse(
      factor, penalty_A, slack_NA, target_NM, cfg.intercept
    )
    best_M = np.argmin(loo_mse_AM, axis=0)
    return _Fitted(
      *factor_lib.solve(factor, penalty_A[best_M], target_NM, cfg.intercept),
      best_M=best_M,
      loo_mse_AM=loo_mse_AM,
    )

  return fit_columns


_FITS = {'fixed': _fixed, 'leave_one_out': _leave_one_out}


def _penalties(weight_N: np.ndarray, cfg: RidgeConfig) -> np.ndarray:
  """The grid on the sum of squares: N times a penalty on their mean."""
  return grid(cfg) * weight_N.sum() if cfg.loss == 'mean' else grid(cfg)


def predict(probe: Probe, emb_NE: np.ndarray) -> np.ndarray:
  """Predicted expected rewards, float64; embeddings as they were given to fit.

  Raises UserError as `prepare` does, and for another embedding width.
  """
  width = len(probe.theta_EM)
  emb_NE = prepare_for(width, 'the probe was', emb_NE, probe.embedding)
  score_NM = np.empty((len(emb_NE), probe.theta_EM.shape[1]))
  for m in range(score_NM.shape[1]):  # An added arm moves no other's last bit.
    theta_E = np.ascontiguousarray(probe.theta_EM[:, m])
    score_NM[:, m] = emb_NE @ theta_E + probe.bias_M[m]
  return score_NM


def prepare(
  emb_NE: np.ndarray, embedding: str, prompt_ids: Sequence[str] = ()
) -> np.ndarray:
  """float64 embeddings, rows scaled to length 1 for 'unit'.

  Raises UserError that names the rows, by id if there are any, which are not
  finite, or are zero and can't be scaled.
  """
  x_NE = np.array(emb_NE, np.float64, order='C')
  if x_NE.ndim != 2:
    raise ValueError(f'embeddings must be [N, E], got {x_NE.shape}.')
  norm_N = norms(x_NE, embedding, np.float64, prompt_ids)
  if embedding == 'unit':
    x_NE /= norm_N[:, None]
  return x_NE


def prepare_for(
  width: int,
  what: str,
  emb_NE: np.ndarray,
  embedding: str,
  prompt_ids: Sequence[str] = (),
) -> np.ndarray:
  """As `prepare`, for what was fitted on embeddings so wide.

  `what` says so in the UserError for others: 'the probe was'.
  """
  x_NE = prepare(emb_NE, embedding, prompt_ids)
  if x_NE.shape[1] != width:
    raise errors.UserError(
      f'embeddings are {x_NE.shape[1]} wide, {what} fitted on {width}; use the '
      'same encoder.'
    )
  return x_NE


def norms(
  emb_NE: np.ndarray,
  embedding: str,
  dtype: np.typing.DTypeLike,
  prompt_ids: Sequence[str] = (),
) -> np.ndarray:
  """norm_N: what rows are divided by, their lengths or, for 'raw', 1.

  Raises UserError as `prepare` does.
  """
  square_N = np.einsum('NE,NE->N', emb_NE, emb_NE, dtype=dtype)
  rows = np.flatnonzero(~(np.isfinite(square_N) & (square_N > 0)))
  if len(rows):  # Such rows are few, or their squares leave the dtype's range.
    odd_RE = emb_NE[rows].astype(np.float64)
    refuse = lambda bad_R, what: _refuse(rows[bad_R], what, prompt_ids)
    refuse(~np.isfinite(odd_RE).all(axis=1), 'not finite')
    if embedding == 'unit':
      refuse(~odd_RE.any(axis=1), 'zero, and cannot be scaled to unit length')
      square_N = square_N.astype(np.float64)
      square_N[rows] = (odd_RE * odd_RE).sum(axis=1)
  return np.sqrt(square_N) if embedding == 'unit' else np.ones_like(square_N)


def grid(cfg: RidgeConfig) -> np.ndarray:
  """betas_A: the penalties to try."""
  if cfg.selection == 'leave_one_out':
    return np.array(cfg.betas)
  return np.array([cfg.beta])


def check_counts(num_prompts_M: np.ndarray, names: Sequence[str]) -> None:
  """UserError naming a column with fewer than two rewards."""
  if (num_prompts_M < 2).any():
    m = int(np.argmax(num_prompts_M < 2))
    who = f'arm {names[m]!r}' if names else f'column {m} of the rewards'
    raise errors.UserError(
      f'{who} has {num_prompts_M[m]} training prompts with a reward, but a '
      'probe needs at least 2: score more of its responses, or leave it out.'
    )


def patterns(present_NM: np.ndarray) -> list[tuple[np.ndarray, list[int]]]:
  """Columns grouped by the rows they have."""
  columns = {}
  for m in range(present_NM.shape[1]):
    columns.setdefault(present_NM[:, m].tobytes(), []).append(m)
  return [(present_NM[:, group[0]], group) for group in columns.values()]


def one_minus_leverage(
  x_NE: np.ndarray, penalty_A: np.ndarray, intercept: bool
) -> np.ndarray:
  """slack_NA: 1 - hat diagonal of these prepared rows at each penalty.

  Penalties are on the sum of squares. A new prompt at the place of row n has
  leverage 1 / slack - 1 in the fit to the others.
  """
  factor = factor_lib.factorise(x_NE, np.ones(len(x_NE)), intercept)
  return factor_lib.one_minus_leverage(factor, penalty_A, intercept)


def _refuse(rows: np.ndarray, what: str, prompt_ids: Sequence[str]) -> None:
  if len(rows):
    names = [repr(prompt_ids[n]) if prompt_ids else str(n) for n in rows[:10]]
    more = f' and {len(rows) - 10} more' if len(rows) > 10 else ''
    counted = '' if prompt_ids else ' (counted from 0)'
    raise errors.UserError(
      f'embeddings of prompts {", ".join(names)}{more}{counted} are {what}; '
      'embed them again, or leave them out.'
    )
