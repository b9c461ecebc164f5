"""Intervals over training prompts too: the router is fitted again each draw.

`bootstrap` asks how sure a number is for one fitted router; this asks how sure
it is for routers fitted like it, each on as many training prompts. Training and
test prompts are both drawn again. The static mixture is made of the drawn
prompts' means, and λ is set on the test prompts' new predictions. Arms' costs
stay, and so do the budgets, in units of cost: another best single arm in a draw
does not move them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from erp_jax.core import progress, resample
from erp_jax.probe import ridge
from erp_jax.route import baselines, contributions, evaluate
from erp_jax.route import split as split_lib

STATIC = 'static_mixture'
RESAMPLED = 'training and test prompts'

# How often each training prompt is there -> by policy, the prediction_NM of all
# test prompts.
Fit = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def refit_intervals(
  split: split_lib.Split, fit: Fit, cfg: resample.BootstrapConfig
) -> dict[str, Any]:
  """{mean, lo, hi} of regret at budgets, and of its difference to the mixture.

  `regret_at_budget` is by policy of `fit` and for the static mixture, `paired`
  by 'policy-static_mixture', both by budget; `resampled` says what was drawn.

  `mean` is the value without resampling. The bounds are percentiles of the
  draws, all moved so that their mean is there: a draw repeats prompts, so what
  is fitted to it is worse than what as many different prompts would give.
  All three are None for a budget that is infeasible.

  A draw that leaves an arm with fewer than two training prompts, or none with
  rewards of all arms, cannot be fitted: `num_draws` counts the others.

  Args:
    split: its predictions are not used.
    fit: `ridge_fit`, or another maker of routers.
    cfg: a draw is a fit; 200 are enough.
  """
  num_train = len(split.train_reward_NM)
  once = _regrets(split, fit, np.ones(num_train), np.ones(len(split.value_NM)))
  seed = np.random.SeedSequence([cfg.seed, num_train]).generate_state(1)
  counts = zip(
    _one_by_one(num_train, dataclasses.replace(cfg, seed=int(seed[0]))),
    _one_by_one(len(split.value_NM), cfg),
    strict=True,
  )
  draws = {key: [] for key in once}
  with progress.track('refits', cfg.num_draws, 'fits') as advance:
    for train_N, test_N in counts:
      if not _can_be_fitted(split, train_N):
        continue
      for key, value in _regrets(split, fit, train_N, test_N).items():
        draws[key].append(value)
      advance(1)
  draws = {key: np.array(values) for key, values in draws.items()}
  num_draws = min(map(len, draws.values()), default=0)
  policies = list(dict.fromkeys(policy for policy, _ in once))

  def regret(policy, budget):
    key = policy, budget
    return (
      _moved(once[key], draws[key]) if key in once else resample.undefined()
    )

  def difference(policy, budget):
    key, static = (policy, budget), (STATIC, budget)
    if key not in once:
      return resample.undefined()
    return _moved(once[key] - once[static], draws[key] - draws[static])

  return {
    'resampled': RESAMPLED,
    'num_draws': num_draws,
    'regret_at_budget': {
      policy: {budget: regret(policy, budget) for budget in evaluate.BUDGETS}
      for policy in policies
    },
    'paired': {
      f'{policy}-{STATIC}': {
        budget: difference(policy, budget) for budget in evaluate.BUDGETS
      }
      for policy in policies
      if policy != STATIC
    },
  }


def ridge_fit(
  train_emb_NE: np.ndarray,
  train_reward_NM: np.ndarray,
  test_emb_NE: np.ndarray,
  cfg: ridge.RidgeConfig,
) -> Fit:
  """The policy `erp`, of probes to which a drawn prompt counts as its copies.

  Their penalty is chosen again in each draw, if the config chooses.
  """

  def fit(counts_N):
    probe = ridge.fit(train_emb_NE, train_reward_NM, cfg, weight_N=counts_N)
    return {'erp': ridge.predict(probe, test_emb_NE)}

  return fit


def _can_be_fitted(split: split_lib.Split, train_N: np.ndarray) -> bool:
  drawn_NM = np.isfinite(split.train_reward_NM) & (train_N > 0)[:, None]
  return bool((drawn_NM.sum(axis=0) >= 2).all() and drawn_NM.all(axis=1).any())


def _one_by_one(
  num: int, cfg: resample.BootstrapConfig
) -> Iterator[np.ndarray]:
  for counts_QN in resample.draw_counts(num, cfg):
    yield from counts_QN


def _regrets(
  split: split_lib.Split, fit: Fit, train_N: np.ndarray, test_N: np.ndarray
) -> dict[tuple[str, str], float]:
  """By (policy, budget), where feasible, of one draw.

  train_N, test_N: how often it has each training and complete test prompt.
  """
  rows = np.repeat(np.arange(len(train_N)), train_N.astype(np.int64))
  drawn = dataclasses.replace(
    split,
    train_reward_NM=split.train_reward_NM[rows],
    train_category_N=split.train_category_N[rows],
  )
  curves = {
    policy: baselines.by_prediction(drawn, prediction_NM)
    for policy, prediction_NM in fit(train_N).items()
  }
  curves[STATIC] = baselines.static_mixture(drawn)
  regrets = contributions.regret_at_budgets(
    drawn, curves, split.cost_M[split.best_arm]
  )
  return {
    key: float(np.average(regret_N, weights=test_N))
    for key, regret_N in regrets.items()
  }


def _moved(once: float, draws_Q: np.ndarray) -> dict[str, float | None]:
  if not len(draws_Q):
    return resample.undefined()
  return resample.interval(once, draws_Q - draws_Q.mean() + once)
