"""Ridge probes of prompts that arrive in shards: memory does not grow with N.

One pass over the shards accumulates `moments`; leave-one-out errors take a
second one, for the whole grid of penalties at once. float64 products, the
default, agree with `ridge.fit` to 1e-12 and choose its penalties. With float32
ones an error of predictions, in units of their spread, can be as large as the
condition number x 6e-8; the tests' cases differ by at most 2e-6, 1000 prompts
of width 1024 by 7e-6. A block then takes a quarter of the time on a CPU.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from erp_jax.core import errors, sharding
from erp_jax.probe import moments as moments_lib
from erp_jax.probe import ridge

_log = logging.getLogger(__name__)

_AGREES = 1e-5  # Relative error of predictions that a fit is held to.


class Factor(NamedTuple):
  """Eigendecomposition of the Gram matrix of columns with the same prompts.

  Directions beyond the rank that `num` prompts can have are 0.
  """

  columns: list[int]
  num: int
  mean_Y: np.ndarray  # 0 without intercept, and for other columns.
  eig: np.ndarray
  vectors: np.ndarray
  coef: np.ndarray  # vectors.T @ cross products; 0 for other columns.
  penalty_A: np.ndarray  # On the sum of squares.


class Solution(NamedTuple):
  """Fitted probes, and the condition number of each one's regularised Gram."""

  probe: ridge.Probe
  condition_M: np.ndarray


def fit_stream(
  shards: Iterable[moments_lib.Shard],
  cfg: ridge.RidgeConfig,
  stream: moments_lib.StreamConfig,
  names: Sequence[str] = (),
  state: epath.PathLike = '',
  source: str = '',
) -> Solution:
  """`ridge.fit` of all shards' rows: (emb_NE, reward_NM with NaN), any sizes.

  Runs on the mesh in force. `shards` are read twice for
  selection='leave_one_out'; for 'fixed', loo_mse_AM is NaN. Give the grid one
  penalty to have its leave-one-out errors.

  Args:
    names: of the columns of rewards, for messages.
    state: a file that totals are kept in; a killed fit goes on from it and
      skips the shards that it holds ('' keeps none). A kill in the second
      pass repeats that pass.
    source: what the shards are of; a state of another source is refused.
  Raises:
    UserError: as `ridge.fit` and `moments.Totals` do, and for shards that are
      an iterator where they are read twice.
  """
  if cfg.selection == 'leave_one_out' and isinstance(shards, Iterator):
    raise errors.UserError(
      "ridge.selection='leave_one_out' reads the shards twice, but they are an "
      'iterator: give a list, or an object whose __iter__ reads them anew.'
    )
  totals = moments_lib.Totals(cfg.embedding, stream, source)
  if state and epath.Path(state).exists():
    totals.restore(state)
  num_held = totals.num_shards
  num_seen = 0
  saved = time.monotonic()
  for num_seen, shard in enumerate(shards, 1):
    if num_seen <= num_held:
      continue
    totals.add(*shard)
    if state and time.monotonic() - saved >= stream.save_secs:
      totals.save(state)
      saved = time.monotonic()
  if num_seen < num_held:
    raise errors.UserError(
      f'{state} holds {num_held} shards, but there are {num_seen}: give those '
      'that it was made from, or delete it.'
    )
  if state and num_seen > num_held:
    totals.save(state)
  return solve(totals, cfg, names, shards)


def solve(
  totals: moments_lib.Totals,
  cfg: ridge.RidgeConfig,
  names: Sequence[str] = (),
  shards: Iterable[moments_lib.Shard] = (),
) -> Solution:
  """Probes from accumulated moments; `shards`, as added, for leave-one-out.

  Logs the condition numbers, with a warning where they leave predictions fewer
  than five digits.
  """
  factors = factorise(totals, cfg, names)
  betas_A = ridge.grid(cfg)
  width, num_columns = totals.width, totals.num_columns
  if cfg.selection == 'leave_one_out':
    loo_mse_AM = second_pass(totals, factors, shards, cfg)
    best_M = np.argmin(loo_mse_AM, axis=0)
  else:
    loo_mse_AM = np.full((1, num_columns), np.nan)
    best_M = np.zeros(num_columns, int)
  theta_EM = np.empty((width, num_columns))
  bias_M, condition_M = np.zeros((2, num_columns))
  num_prompts_M = np.empty(num_columns, int)
  for factor in factors:
    for m in factor.columns:
      penalty = factor.penalty_A[best_M[m]]
      theta_E = factor.vectors @ (factor.coef[:, m] / (factor.eig + penalty))
      theta_EM[:, m] = theta_E
      bias_M[m] = factor.mean_Y[width + m] - factor.mean_Y[:width] @ theta_E
      num_prompts_M[m] = factor.num
      condition_M[m] = (factor.eig[-1] + penalty) / (factor.eig[0] + penalty)
  _report(totals, condition_M)
  probe = ridge.Probe(
    theta_EM=theta_EM,
    bias_M=bias_M,
    beta_M=betas_A[best_M],
    num_prompts_M=num_prompts_M,
    betas_A=betas_A,
    loo_mse_AM=loo_mse_AM,
    embedding=cfg.embedding,
  )
  return Solution(probe, condition_M)


def factorise(
  totals: moments_lib.Totals, cfg: ridge.RidgeConfig, names: Sequence[str] = ()
) -> list[Factor]:
  """One eigendecomposition for all columns that have the same prompts."""
  if cfg.embedding != totals.embedding:
    raise ValueError(f'{cfg.embedding!r} fit of {totals.embedding!r} totals')
  if not totals.num_shards:
    raise errors.UserError('there are no shards to fit a probe on.')
  present_PM = totals.present_PM()
  ridge.check_counts(totals.num_P() @ present_PM, names)
  betas_A = ridge.grid(cfg)
  factors = []
  for present_P, columns in ridge.patterns(present_PM):
    num, mean_Y, gram_YY = totals.merged(present_P)
    if not cfg.intercept:
      gram_YY = gram_YY + num * np.outer(mean_Y, mean_Y)
      mean_Y = np.zeros_like(mean_Y)
    width = totals.width
    eig, vectors = np.linalg.eigh(gram_YY[:width, :width])
    eig = np.maximum(eig, 0.0)
    # Fewer prompts than features: what is left beyond their rank is rounding.
    num_null = max(0, width - (num - cfg.intercept))
    eig[:num_null] = 0
    vectors[:, :num_null] = 0
    coef = np.zeros((width, totals.num_columns))
    centre_Y = np.zeros(width + totals.num_columns)
    centre_Y[:width] = mean_Y[:width]
    for m in columns:
      coef[:, m] = vectors.T @ gram_YY[:width, width + m]
      centre_Y[width + m] = mean_Y[width + m]
    penalty_A = betas_A * num if cfg.loss == 'mean' else betas_A
    factors.append(
      Factor(columns, num, centre_Y, eig, vectors, coef, penalty_A)
    )
  return factors


def second_pass(
  totals: moments_lib.Totals,
  factors: Sequence[Factor],
  shards: Iterable[moments_lib.Shard],
  cfg: ridge.RidgeConfig,
) -> np.ndarray:
  """loo_mse_AM: mean squared leave-one-out error of each penalty.

  Raises UserError if the shards have other numbers of rewards than those that
  were added.
  """
  with moments_lib.device(totals.cfg):
    placed = [_place(factor, totals.cfg.dtype) for factor in factors]
  width, num_columns = totals.width, totals.num_columns
  num_betas = len(factors[0].penalty_A)
  sum_AM = np.zeros((num_betas, num_columns))
  seen = [0] * len(factors)
  pending = []
  for index, shard in enumerate(shards):
    shard = totals.prepare(index, *shard)
    present_NM = np.isfinite(shard.reward_NM)
    for i, factor in enumerate(factors):
      rows = np.flatnonzero(present_NM[:, factor.columns[0]])
      seen[i] += len(rows)
      is_own_M = np.isin(np.arange(num_columns), factor.columns)
      reward_RM = shard.reward_NM[rows] - factor.mean_Y[width:]
      reward_RM = np.where(is_own_M, reward_RM, 0)
      share = float(cfg.intercept) / factor.num
      for block in moments_lib.blocks(shard, rows, reward_RM, totals.cfg):
        with moments_lib.device(totals.cfg):
          pending.append(_square_errors(*block, *placed[i], share))
        if len(pending) > moments_lib.IN_FLIGHT:
          sum_AM += jax.device_get(pending.pop(0))
  for sums in pending:
    sum_AM += jax.device_get(sums)
  num_M = np.empty(num_columns)
  for factor, num in zip(factors, seen, strict=True):
    num_M[factor.columns] = factor.num
    if num != factor.num:
      raise errors.UserError(
        f'the second pass has {num} prompts with a reward of column '
        f'{factor.columns[0]}, the first had {factor.num}: give the same '
        'shards again.'
      )
  return sum_AM / num_M


def _place(factor: Factor, dtype: str) -> tuple[jax.Array, ...]:
  """Arguments of `_square_errors`, on the device."""
  shrink_EA = 1 / (factor.eig[:, None] + factor.penalty_A)
  weights = shrink_EA[:, :, None] * factor.coef[:, None, :]
  mean_E = factor.mean_Y[: len(factor.eig)]
  arrays = mean_E, factor.vectors, shrink_EA, weights
  return tuple(jnp.asarray(array, dtype) for array in arrays)


@jax.jit
def _square_errors(
  emb_BE, scale_B, reward_BM, num, mean_E, vectors, shrink_EA, weights, share
):
  """Sums over rows of squared leave-one-out errors [A, M]; 0 for zero rows."""
  emb_BE = sharding.constrain(emb_BE, 'batch', None)
  row_BE = moments_lib.centred(emb_BE, scale_B, mean_E, num)
  with jax.default_matmul_precision('highest'):
    basis_BE = row_BE @ vectors
    slack_BA = 1 - share - (basis_BE * basis_BE) @ shrink_EA
    predicted_BAM = jnp.tensordot(basis_BE, weights, 1)
  error_BAM = (reward_BM[:, None] - predicted_BAM) / slack_BA[..., None]
  return sharding.constrain((error_BAM**2).sum(axis=0), None, None)


def _report(totals: moments_lib.Totals, condition_M: np.ndarray) -> None:
  """Logs what was fitted, and how far predictions can be trusted."""
  worst = condition_M.max()
  _log.info(
    'Ridge of %d prompts in %d shards (%d without rewards left out), %d '
    'patterns of missing rewards: condition number %.3g.',
    *(totals.num_P().sum(), totals.num_shards, totals.num_without),
    *(len(totals.num_P()), worst),
  )
  rounding = float(np.finfo(totals.cfg.dtype).eps) / 2
  if worst * rounding > _AGREES:
    _log.warning(
      'Products in %s at a condition number of %.3g may change predictions by '
      'up to %.1g of their spread: use stream.dtype=float64, or a larger '
      'penalty.',
      *(totals.cfg.dtype, worst, worst * rounding),
    )
