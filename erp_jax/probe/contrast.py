"""Ridge on contrasts: how much better each arm is than the others on a prompt.

Routing needs only that. What is common to all arms (how hard the prompt is) is
most of what rewards vary by, and a penalty that suits it lets noise through
where arms differ.

One penalty serves all arms, so predicted contrasts add up to zero where all
rewards are there. Where training prompts have categories, a first ridge
predicts from the embedding how probable each one is, and its leave-one-out
predictions are features of the second: a direction that tells categories apart
is then shrunk less than others. The sum of both is linear in the embedding, and
a new prompt needs no category.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import decomposition, ridge, shared_ridge
from erp_jax.probe import factor as factor_lib

_BETAS = tuple(float(f'{10 ** (k / 4):.4g}') for k in range(-8, 17))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastConfig:
  """Ridge on contrasts; the penalty is chosen by leave-one-out errors."""

  embedding: str = 'unit'  # Rows scaled to length 1, or 'raw'.
  betas: tuple[float, ...] = _BETAS  # Ascending grid, on the sum of squares.
  # Probabilities of the categories as features too, where there are any.
  categories: bool = True

  def __post_init__(self):
    # The ridge's own checks of the two fields that they share.
    ridge.RidgeConfig(embedding=self.embedding, betas=self.betas)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
  """Fitted contrasts, all float64.

  Attributes:
    mean_M: mean reward of each arm over prompts with rewards of all arms.
    theta_EM, bias_M: of a prompt's deviation from it.
    beta: the penalty.
    loo_mse_A: mean squared leave-one-out error over all contrasts, of each
      penalty tried.
    embedding: 'unit' or 'raw', as in the config.
  """

  mean_M: np.ndarray
  theta_EM: np.ndarray
  bias_M: np.ndarray
  beta: float
  loo_mse_A: np.ndarray
  embedding: str

  def predict(self, emb_NE: np.ndarray) -> np.ndarray:
    """prediction_NM: `mean_M` and the deviation; differences are what counts.

    Raises UserError as `ridge.prepare` does, and for another width.
    """
    x_NE = ridge.prepare_for(
      len(self.theta_EM), 'contrasts were', emb_NE, self.embedding
    )
    return self.mean_M + self.bias_M + x_NE @ self.theta_EM


def fit(
  emb_NE: np.ndarray,
  reward_NM: np.ndarray,
  cfg: ContrastConfig,
  category_N: Sequence[str] = (),
  factorise: factor_lib.Factorise = factor_lib.factorise,
) -> Contrast:
  """Contrasts between the arms, columns of `reward_NM`; NaN where missing.

  Raises UserError as `ridge.prepare` and `complete_mean` do, and for an arm
  with fewer than two rewards of prompts that another arm has a reward for too.
  """
  x_NE = ridge.prepare(emb_NE, cfg.embedding)
  reward_NM = np.asarray(reward_NM, np.float64)
  mean_M = complete_mean(reward_NM)
  target_NM = targets(reward_NM)
  betas_A = np.array(cfg.betas)
  theta_EC, bias_C, extra_NC = _categories(
    x_NE, betas_A, cfg, category_N, factorise
  )
  both_NY = np.concatenate([x_NE, extra_NC], axis=1)
  ridge.check_counts(np.isfinite(target_NM).sum(axis=0), ())
  shared = shared_ridge.fit_shared(both_NY, target_NM, betas_A, factorise)
  own_EM, category_CM = np.split(shared.theta_EM, [x_NE.shape[1]])
  return Contrast(
    mean_M=mean_M,
    theta_EM=own_EM + theta_EC @ category_CM,
    bias_M=shared.bias_M + bias_C @ category_CM,
    beta=float(betas_A[shared.best]),
    loo_mse_A=shared.loo_mse_A,
    embedding=cfg.embedding,
  )


def complete_mean(reward_NM: np.ndarray) -> np.ndarray:
  """mean_M over prompts with rewards of all arms, as the static mixture's.

  Raises UserError where there is no such prompt.
  """
  complete_N = np.isfinite(reward_NM).all(axis=1)
  if not complete_N.any():
    raise errors.UserError(
      'no training prompt has rewards of all arms; leave out the arm with the '
      'fewest.'
    )
  return reward_NM[complete_N].mean(axis=0)


def targets(reward_NM: np.ndarray) -> np.ndarray:
  """target_NM: contrasts of the rewards less `complete_mean`; NaN where none.

  With the arms' means taken off first, which arms a prompt lacks does not shift
  the contrasts of the others. Without missing rewards the mean target is 0. One
  arm alone has nothing to be compared with: all 0.
  """
  if reward_NM.shape[1] == 1:
    return np.zeros(reward_NM.shape)
  return decomposition.contrasts(
    reward_NM - complete_mean(reward_NM), np.isfinite(reward_NM)
  )


def _categories(
  x_NE: np.ndarray,
  betas_A: np.ndarray,
  cfg: ContrastConfig,
  category_N: Sequence[str],
  factorise: factor_lib.Factorise,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """theta_EC, bias_C: probabilities of categories; leave-one-out extra_NC."""
  category_N = np.asarray(category_N)
  if len(category_N) not in (0, len(x_NE)):
    raise ValueError(f'{len(category_N)} categories, {len(x_NE)} prompts.')
  names = np.unique(category_N)
  if not cfg.categories or len(names) < 2:
    width = x_NE.shape[1]
    return np.zeros((width, 0)), np.zeros(0), np.zeros((len(x_NE), 0))
  is_NC = (category_N[:, None] == names).astype(np.float64)
  shared = shared_ridge.fit_shared(x_NE, is_NC, betas_A, factorise)
  return shared.theta_EM, shared.bias_M, is_NC - shared.error_NM
