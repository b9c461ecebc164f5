"""A probe for an arm with few scored prompts, shrunken toward the pool's.

What makes a prompt good or bad for one arm mostly does so for the others. So
the newcomer's prediction is a share of the pool's mean prediction, an offset of
its own, and a ridge on what that leaves: with few prompts the first two, with
many the ridge. Share and penalty are those of the least leave-one-out error,
together; the pool must not have been fitted with the newcomer's rewards.
"""

import dataclasses

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import ridge, shared_ridge

_SHARES = tuple(k / 10 for k in range(11))
# From .1: with as many prompts as features a smaller penalty interpolates, and
# leave-one-out errors of few prompts sometimes miss that.
_BETAS = tuple(float(f'{10 ** (k / 4):.4g}') for k in range(-4, 21))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolConfig:
  """The grids that leave-one-out errors choose from."""

  shares: tuple[float, ...] = _SHARES  # Of the pool's mean prediction.
  betas: tuple[float, ...] = _BETAS  # Ascending, on the sum of squares.

  def __post_init__(self):
    if not self.shares or not all(0 <= share <= 1 for share in self.shares):
      raise errors.UserError(
        'pool.shares must be fractions from 0 to 1, at least one, got '
        f'{self.shares}.'
      )
    ridge.RidgeConfig(betas=self.betas)  # Its own check.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Newcomer:
  """A fitted probe of one column, and how it came about.

  Attributes:
    probe: of the newcomer alone; it includes the pool's share. Its `betas_A`
      and `loo_mse_AM` are those of the chosen share.
    share: of the pool's mean prediction.
  """

  probe: ridge.Probe
  share: float


def fit(
  emb_NE: np.ndarray,
  reward_N: np.ndarray,
  pool: ridge.Probe,
  cfg: PoolConfig,
) -> Newcomer:
  """The probe of an arm from its rewards, NaN where missing.

  The arms of `pool` are those of one reward model, the newcomer's; its own
  rewards must be in the same units. Of equal errors the smallest share counts.
  Raises UserError as `ridge.fit`, and for embeddings of another width than the
  pool's.
  """
  reward_N = np.asarray(reward_N, np.float64)
  scored_N = np.isfinite(reward_N)
  ridge.check_counts(np.array([scored_N.sum()]), ())
  emb_NE, reward_N = np.asarray(emb_NE)[scored_N], reward_N[scored_N]
  pool_N = ridge.predict(pool, emb_NE).mean(axis=1)
  x_NE = ridge.prepare(emb_NE, pool.embedding)
  betas_A = np.array(cfg.betas)
  # Errors are linear in the target: of reward - share pool they follow from
  # those of the two.
  error_ANM = shared_ridge.leave_one_out(
    x_NE, np.stack([reward_N, pool_N], axis=1), betas_A, intercept=True
  )
  mses = {  # mse_A by share; of equal ones the first is taken.
    share: ((error_ANM[:, :, 0] - share * error_ANM[:, :, 1]) ** 2).mean(axis=1)
    for share in cfg.shares
  }
  share = min(mses, key=lambda share: mses[share].min())
  a = int(np.argmin(mses[share]))
  rest = ridge.fit(
    x_NE,
    (reward_N - share * pool_N)[:, None],
    ridge.RidgeConfig(beta=float(betas_A[a]), embedding='raw'),
  )
  theta_EM = rest.theta_EM + share * pool.theta_EM.mean(axis=1, keepdims=True)
  return Newcomer(
    probe=ridge.Probe(
      theta_EM=theta_EM,
      bias_M=rest.bias_M + share * pool.bias_M.mean(),
      beta_M=rest.beta_M,
      num_prompts_M=rest.num_prompts_M,
      betas_A=betas_A,
      loo_mse_AM=mses[share][:, None],
      embedding=pool.embedding,
    ),
    share=share,
  )
