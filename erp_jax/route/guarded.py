"""ERP on contrasts that leaves the static choice only where that has paid off.

The policy `erp_guarded`: predictions are linear in the embedding, and routing,
budgets and serving treat them as any others. What is guarded is decided once,
by five-fold cross-fitting on the training prompts:

- Whether prompts are read at all. Unless routing by held-out predictions beat
  the static mixture within the same budgets (on average over those below 1),
  predictions are the arms' mean rewards, which is the static mixture.
- Whether another arm may take a prompt from the best single arm where cost does
  not count. At full budget the static choice is that arm, and every exception
  that noise makes costs reward. Unless the exceptions gained more than `z`
  standard errors, the best arm's predictions are raised by a margin, just
  enough that it would have kept all training prompts. With two arms this moves
  prices alone: which prompts are the first to go to the cheaper arm stays.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import contrast as contrast_lib
from erp_jax.probe import factor as factor_lib
from erp_jax.route import evaluate, feature_map, path
from erp_jax.route import policy as policy_lib
from erp_jax.route import posterior as posterior_lib

_FULL = 1.0  # The budget of the best single arm.
# Which training prompts to fit on -> predictions of embeddings.
Fit = Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardedConfig:
  """How contrasts are fitted, and what it takes to act on them."""

  contrast: contrast_lib.ContrastConfig = contrast_lib.ContrastConfig()
  folds: int = 5  # Of the training prompts, for the guard's evidence.
  seed: int = 0  # Of the folds.
  # Standard errors by which exceptions at full budget must gain: one-sided 5 %.
  z: float = 1.645
  # Of training prompts' leverages: from there on, out of distribution.
  leverage_quantile: float = 0.99

  def __post_init__(self):
    errors.check_least('guarded.folds', self.folds, 2)
    errors.check_least('guarded.seed', self.seed, 0)
    if not (np.isfinite(self.z) and self.z >= 0):
      raise errors.UserError(f'guarded.z must be >= 0, got {self.z}.')
    if not 0 < self.leverage_quantile <= 1:
      raise errors.UserError(
        f'guarded.leverage_quantile is {self.leverage_quantile}; give a '
        'fraction over 0 and up to 1.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
  """What held-out training prompts say for reading prompts.

  Attributes:
    gain: by budget, as a share of the best single arm's cost, how much more
      mean reward routing got than the static mixture; NaN where infeasible.
    se: its standard error.
    below: the mean of `gain` over feasible budgets below 1; NaN without any.
    num_prompts: prompts with rewards of all arms, which it is from.
  """

  gain: dict[float, float]
  se: dict[float, float]
  below: float
  num_prompts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarded:
  """A fitted policy: bias_M + features @ part.theta_EM, as policy.Policy.

  Attributes:
    mean_M: mean training reward of each arm.
    bias_M: mean_M, the contrasts' intercept, and the margin.
    part: weights, and the posterior that goes with the contrasts' ridge; it
      leaves out that categories are shrunk less.
    best_arm: index of the best single arm.
    margin: by how much its predictions are raised; 0 for no guard.
    reads_prompts: False if this is the static mixture.
    beta: penalty of the contrasts.
    evidence: what decided.
  """

  mean_M: np.ndarray
  bias_M: np.ndarray
  part: policy_lib.Part
  best_arm: int
  margin: float
  reads_prompts: bool
  beta: float
  evidence: Evidence

  def predict(self, emb_NE: np.ndarray) -> np.ndarray:
    """prediction_NM, to route by: `margin` included.

    Raises UserError as `feature_map.FeatureMap.apply` does.
    """
    return policy_lib.predict(self.bias_M, (self.part,), emb_NE)[0]

  def std(self, emb_NE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """std_NM of predicted contrasts, ood_N: unlike the training prompts."""
    _, std_NM, ood_N = policy_lib.predict(self.bias_M, (self.part,), emb_NE)
    return std_NM, ood_N


def fit(
  emb_NE: np.ndarray,
  reward_NM: np.ndarray,
  cost_M: np.ndarray,
  cfg: GuardedConfig,
  category_N: Sequence[str] = (),
  factorise: factor_lib.Factorise = factor_lib.factorise,
) -> Guarded:
  """The policy of training prompts; rewards are NaN where missing.

  A function of its arguments alone. Rewards in other units, or with any number
  added to all rewards of a prompt, route alike.

  Args:
    emb_NE: embeddings.
    reward_NM: mean reward of each prompt and arm.
    cost_M: mean cost of each arm.
    category_N: of the prompts, where known: see `contrast`. Prompts to route
      need none.

  Raises UserError as `contrast.fit`.
  """
  emb_NE = np.asarray(emb_NE)
  reward_NM = np.asarray(reward_NM, np.float64)
  cost_M = np.asarray(cost_M, np.float64)
  category_N = np.asarray(category_N)
  fitted = contrast_lib.fit(
    emb_NE, reward_NM, cfg.contrast, category_N, factorise
  )
  best = policy_lib.best_single(fitted.mean_M, cost_M)

  def fit_rows(rows_N):
    category = category_N[rows_N] if len(category_N) else ()
    return contrast_lib.fit(
      emb_NE[rows_N], reward_NM[rows_N], cfg.contrast, category, factorise
    ).predict

  evidence = held_out(fit_rows, emb_NE, reward_NM, cost_M, cfg)
  prediction_NM = fitted.predict(emb_NE)
  contrast_NM = prediction_NM - fitted.mean_M
  exceptions_pay = bool(evidence.gain[_FULL] > cfg.z * evidence.se[_FULL])
  # Equal rewards leave rounding, not a gain.
  rounding = 1e-12 * np.abs(fitted.mean_M).max()
  reads_prompts = bool(evidence.below > rounding)
  if np.isnan(evidence.below):  # No budget below 1 is feasible, or no evidence.
    reads_prompts = exceptions_pay
  margin = 0.0
  theta_EM, bias_M = np.zeros_like(fitted.theta_EM), fitted.mean_M.copy()
  if reads_prompts:
    theta_EM, bias_M = fitted.theta_EM, fitted.mean_M + fitted.bias_M
    if not exceptions_pay:
      ahead_N = prediction_NM.max(axis=1) - prediction_NM[:, best]
      margin = float(ahead_N.max()) * (1 + 1e-9)  # A tie goes to the cheaper.
      bias_M[best] += margin
  features = feature_map.FeatureMap(
    width=len(theta_EM), embedding=fitted.embedding
  )
  return Guarded(
    mean_M=fitted.mean_M,
    bias_M=bias_M,
    part=policy_lib.Part(
      features=features,
      theta_EM=theta_EM,
      posterior=posterior_lib.fit(
        features.apply(emb_NE),
        contrast_lib.targets(reward_NM),
        contrast_NM,
        np.full(len(cost_M), fitted.beta),
        True,
        cfg.leverage_quantile,
      ),
    ),
    best_arm=best,
    margin=margin,
    reads_prompts=reads_prompts,
    beta=fitted.beta,
    evidence=evidence,
  )


def held_out(
  fit_rows: Fit,
  emb_NE: np.ndarray,
  reward_NM: np.ndarray,
  cost_M: np.ndarray,
  cfg: GuardedConfig,
) -> Evidence:
  """Gains on prompts with all rewards, each fold routed by itself.

  Folds never share a λ path: predictions of two fits are not comparable, and
  a fit that misses a good prompt of an arm predicts less for it everywhere.
  """
  complete = np.flatnonzero(np.isfinite(reward_NM).all(axis=1))
  best = policy_lib.best_single(contrast_lib.complete_mean(reward_NM), cost_M)
  budgets = list(evaluate.BUDGETS.values())
  gain_NP = np.full((len(complete), len(budgets)), np.nan)
  # Two prompts at least in every fold; else there is no evidence.
  enough = len(complete) >= 2 * cfg.folds and len(cost_M) > 1
  order = np.random.default_rng(cfg.seed).permutation(len(complete))
  for fold in range(cfg.folds if enough else 0):
    held = np.flatnonzero(order % cfg.folds == fold)
    rows = complete[held]
    rest_N = np.ones(len(reward_NM), bool)  # Incomplete ones are never held.
    rest_N[rows] = False
    gain_NP[held] = _gains(
      fit_rows(rest_N)(emb_NE[rows]),
      contrast_lib.complete_mean(reward_NM[rest_N]),
      *(reward_NM[rows], cost_M),
      cost_M[best] * np.array(budgets),
    )
  num = len(complete) if enough else 0
  below_NP = gain_NP[:, [b < _FULL for b in budgets]]
  feasible_P = np.isfinite(below_NP).all(axis=0)
  below = float(below_NP[:, feasible_P].mean()) if feasible_P.any() else np.nan
  if not num:
    return Evidence(
      gain=dict.fromkeys(budgets, np.nan),
      se=dict.fromkeys(budgets, np.nan),
      below=np.nan,
      num_prompts=0,
    )
  by_budget = lambda value_P: dict(zip(budgets, value_P.tolist(), strict=True))
  return Evidence(
    gain=by_budget(gain_NP.mean(axis=0)),
    se=by_budget(gain_NP.std(axis=0, ddof=1) / np.sqrt(num)),
    below=below,
    num_prompts=num,
  )


def _gains(
  prediction_NM: np.ndarray,
  mean_M: np.ndarray,
  reward_NM: np.ndarray,
  cost_M: np.ndarray,
  budget_P: np.ndarray,
) -> np.ndarray:
  """gain_NP: each prompt's expected reward over that of the static mixture."""
  routed = path.trace(prediction_NM, cost_M)
  static = path.trace(mean_M[None], cost_M)
  gain_NP = np.full((len(reward_NM), len(budget_P)), np.nan)
  for p, budget in enumerate(budget_P):
    if path.is_feasible(static.cost_P, budget):
      share_NM = routed.share(path.mix_at(routed.cost_P, budget))
      share_NM -= static.share(path.mix_at(static.cost_P, budget))
      gain_NP[:, p] = (share_NM * reward_NM).sum(axis=1)
  return gain_NP
