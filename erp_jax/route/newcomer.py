"""One more arm: its probe, and how many of its prompts to score first.

Routers over the pool as it is and over the pool with the newcomer are compared
on the same test prompts; the pool's probes are the same in both. Regret of both
is against the best arm of the enlarged pool, so that a difference of regrets is
one of rewards. Budgets are shares of the cost of the old pool's best single
arm, and costs are those that decisions go by.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from erp_jax.core import errors, progress
from erp_jax.probe import pool_shrinkage, scores
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.route import evaluate, learning, path, policy

# The newcomer's probe: shrunken toward the pool's, with the same choice of a
# penalty but no pool, and as every other arm's.
POOLED, ALONE, PLAIN = 'pooled', 'alone', 'plain'
VARIANTS = (POOLED, ALONE, PLAIN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewcomerConfig:
  """How many of the newcomer's prompts are scored, in the curve over them."""

  num_prompts: tuple[int, ...] = (25, 100, 400)  # And all there are.
  repeats: int = 20  # Random choices of these among the training prompts.
  seed: int = 0
  pool: pool_shrinkage.PoolConfig = pool_shrinkage.PoolConfig()

  def __post_init__(self):
    errors.check_grid('newcomer.num_prompts', self.num_prompts, 2)
    if self.repeats < 2:
      raise errors.UserError(
        f'newcomer.repeats must be >= 2, got {self.repeats}: a standard error '
        'needs two.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """One reward model's pool and newcomer on one split.

  Attributes:
    arms: the pool's, and the newcomer last.
    cost_M: what decisions go by.
    budget_1: cost of the old pool's best single arm.
    best_arm: its name.
    pool: probes of the pool, from all training prompts.
    train_emb_NE, train_category_N, train_reward_N: of the training prompts that
      the newcomer has rewards for.
    test_emb_NE, test_value_NM: of the test prompts with rewards of all arms.
    counts: training prompts, test prompts, and those that are used.
  """

  arms: tuple[str, ...]
  cost_M: np.ndarray
  budget_1: float
  best_arm: str
  pool: ridge_lib.Probe
  train_emb_NE: np.ndarray
  train_category_N: np.ndarray
  train_reward_N: np.ndarray
  test_emb_NE: np.ndarray
  test_value_NM: np.ndarray
  counts: dict[str, int]


class Curve(NamedTuple):
  """How good routing is by the newcomer's number of scored prompts.

  Of one variant of its probe, over J repeats; P runs along `learning.BUDGETS`.
  With all prompts J is 1.

  Attributes:
    r2_J: of the newcomer's probe on the test prompts.
    saved_JP: regret that the old pool has more; NaN where it is infeasible.
    traffic_JP: share of prompts that go to the newcomer.
    share_J: of the pool's mean in the probe; 0 but for POOLED.
  """

  r2_J: np.ndarray
  saved_JP: np.ndarray
  traffic_JP: np.ndarray
  share_J: np.ndarray


def setting(
  records: records_lib.Records,
  reward: str,
  arm: str,
  train_N: np.ndarray,
  cfg: ridge_lib.RidgeConfig,
) -> Setting:
  """Records with the newcomer among their arms, on the split by train_N.

  Raises UserError for a newcomer that is not there or alone, or has too few
  rewards, and where no prompt has rewards of all arms of the pool (training)
  or of all arms (test).
  """
  if arm not in records.arms or len(records.arms) < 2:
    raise errors.UserError(
      f'{records.title} has the arms {", ".join(records.arms)}: the newcomer '
      f'{arm!r} must be one of them, and not the only one.'
    )
  at = records.arms.index(arm)
  order = [m for m in range(len(records.arms)) if m != at] + [at]
  arms = tuple(records.arms[m] for m in order)
  mean_NM = records.mean_NM(reward)[:, order]
  complete_NM = np.isfinite(mean_NM)
  pool_N = train_N & complete_NM[:, :-1].all(axis=1)
  scored_N = train_N & complete_NM[:, -1]
  test_N = ~train_N & complete_NM.all(axis=1)
  for rows_N, what in (
    (pool_N, f'training prompt has {reward} of all of {", ".join(arms[:-1])}'),
    (test_N, f'test prompt has {reward} of all of {", ".join(arms)}'),
  ):
    if not rows_N.any():
      raise errors.UserError(f'no {what}: score more prompts.')
  ridge_lib.check_counts(np.array([scored_N.sum()]), [f'{reward}/{arm}'])
  cost_M = records.outcomes(reward).mean_cost_M(train_N)[order]
  best = policy.best_single(mean_NM[pool_N, :-1].mean(axis=0), cost_M[:-1])
  return Setting(
    arms=arms,
    cost_M=cost_M,
    budget_1=float(cost_M[best]),
    best_arm=arms[best],
    pool=ridge_lib.fit(
      records.emb_NE[train_N], mean_NM[train_N, :-1], cfg, arms[:-1]
    ),
    train_emb_NE=records.emb_NE[scored_N],
    train_category_N=records.category_N[scored_N],
    train_reward_N=mean_NM[scored_N, -1],
    test_emb_NE=records.emb_NE[test_N],
    test_value_NM=mean_NM[test_N],
    counts={
      'train': int(train_N.sum()),
      'train_scored': int(scored_N.sum()),
      'test': int((~train_N).sum()),
      'test_complete': int(test_N.sum()),
    },
  )


def fit(
  known: Setting,
  rows: np.ndarray,
  variant: str,
  ridge: ridge_lib.RidgeConfig,
  pool: pool_shrinkage.PoolConfig,
) -> tuple[ridge_lib.Probe, float]:
  """The newcomer's probe from these of its training prompts; the pool's share.

  `ridge` is that of the other arms, for PLAIN.
  """
  emb_NE, reward_N = known.train_emb_NE[rows], known.train_reward_N[rows]
  if variant == PLAIN:
    return ridge_lib.fit(emb_NE, reward_N[:, None], ridge, known.arms[-1:]), 0.0
  if variant == ALONE:
    pool = dataclasses.replace(pool, shares=(0.0,))
  fitted = pool_shrinkage.fit(emb_NE, reward_N, known.pool, pool)
  return fitted.probe, fitted.share


def learn(
  known: Setting, ridge: ridge_lib.RidgeConfig, cfg: NewcomerConfig
) -> dict[tuple[str, int], Curve]:
  """By variant and number of scored prompts, the last of which is all.

  Numbers that are not fewer than all there are, are left out.
  """
  total = len(known.train_reward_N)
  pool_NM = ridge_lib.predict(known.pool, known.test_emb_NE)
  old_P = _regrets(known, pool_NM)[0]
  orders = list(_orders(known, cfg))
  fewer = [num for num in cfg.num_prompts if num < total]
  found: dict[tuple[str, int], list] = {}
  num_fits = len(VARIANTS) * (len(fewer) * cfg.repeats + 1)
  what = f'probes of {known.arms[-1]}'
  with progress.track(what, num_fits, 'fits') as advance:
    for num in (*fewer, total):
      for rows in orders if num < total else [np.arange(total)]:
        for variant in VARIANTS:
          probe, share = fit(known, rows[:num], variant, ridge, cfg.pool)
          prediction_N = ridge_lib.predict(probe, known.test_emb_NE)[:, 0]
          regret_P, traffic_P = _regrets(
            known, np.column_stack([pool_NM, prediction_N])
          )
          r2 = scores.r2(known.test_value_NM[:, -1], prediction_N)
          one = r2, old_P - regret_P, traffic_P, share
          found.setdefault((variant, num), []).append(one)
          advance(1)
  return {
    key: Curve(*map(np.array, zip(*values, strict=True)))
    for key, values in found.items()
  }


def budget_of(known: Setting, name: str) -> float:
  """A budget of `learning.BUDGETS` in units of cost."""
  if name == learning.UNLIMITED:
    return math.inf
  return evaluate.BUDGETS[name] * known.budget_1


def share_at(lam_path: path.LambdaPath, budget: float) -> np.ndarray:
  """share_NM at a feasible budget."""
  return lam_path.share(path.mix_at(lam_path.cost_P, budget))


def _orders(known: Setting, cfg: NewcomerConfig) -> Iterator[np.ndarray]:
  for repeat in range(cfg.repeats):
    rng = np.random.default_rng([cfg.seed, repeat])
    yield learning.stratified_order(known.train_category_N, rng)


def _regrets(
  known: Setting, prediction_NM: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """regret_P and the last arm's share_P by budget; NaN where infeasible."""
  num_arms = prediction_NM.shape[1]
  lam_path = path.trace(prediction_NM, known.cost_M[:num_arms])
  value_NM = known.test_value_NM
  regret_P, share_P = np.full((2, len(learning.BUDGETS)), np.nan)
  for p, name in enumerate(learning.BUDGETS):
    budget = budget_of(known, name)
    if path.is_feasible(lam_path.cost_P, budget):
      share_NM = share_at(lam_path, budget)
      got_N = (share_NM * value_NM[:, :num_arms]).sum(axis=1)
      regret_P[p] = (value_NM.max(axis=1) - got_N).mean()
      share_P[p] = share_NM[:, -1].mean()
  return regret_P, share_P
