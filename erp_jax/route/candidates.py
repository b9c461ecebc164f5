"""Ways to predict what routing needs, side by side: which one is worth having.

Each has a score from training prompts alone (held-out gain over the static
mixture within the same budgets), which is what a choice may go by, and beside
it the result on the test prompts, over split seeds.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from erp_jax.core import errors, progress, resample
from erp_jax.data import outcomes, splits
from erp_jax.probe import contrast, ridge
from erp_jax.route import baselines, evaluate, feature_map, path
from erp_jax.route import guarded as guarded_lib
from erp_jax.route import split as split_lib

GUARDED = 'erp_guarded'

# (embeddings, rewards, categories) of training prompts -> predictions of
# embeddings.
Candidate = Callable[
  [np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidatesConfig:
  """How often, and how, candidates are compared."""

  splits: int = 20  # Split seeds 0, 1, …
  train_frac: float = 0.5  # Of each category.
  num_fourier: int = 512  # Features of `fourier`.
  # Its length scale², in units of the median squared distance of two prompts.
  fourier_scale: float = 0.5
  guarded: guarded_lib.GuardedConfig = guarded_lib.GuardedConfig()

  def __post_init__(self):
    errors.check_least('splits', self.splits, 1)
    if self.num_fourier < 2 or self.num_fourier % 2:
      raise errors.UserError(
        f'num_fourier must be even and >= 2, got {self.num_fourier}.'
      )
    if not self.fourier_scale > 0:
      raise errors.UserError(
        f'fourier_scale must be > 0, got {self.fourier_scale}.'
      )


def build(cfg: CandidatesConfig) -> dict[str, Candidate]:
  """By name: the paper's `erp`, and what was tried to improve on it.

  `erp_loo`: each arm's penalty by leave-one-out. `contrast`: ridge on
  contrasts. `contrast_categories`: with probabilities of categories as
  features, which is what `erp_guarded` guards. `fourier`: on contrasts, with
  random Fourier features, which stand for a Gaussian kernel.
  """
  plain = dataclasses.replace(cfg.guarded.contrast, categories=False)
  return {
    'erp': _ridge(ridge.RidgeConfig()),
    'erp_loo': _ridge(ridge.RidgeConfig(selection='leave_one_out')),
    'contrast': _contrast(plain),
    'contrast_categories': _contrast(cfg.guarded.contrast),
    'fourier': _fourier(cfg),
  }


def compare(
  table: outcomes.Outcomes, emb_NE: np.ndarray, cfg: CandidatesConfig
) -> list[dict[str, Any]]:
  """Rows of a table: by candidate and budget, in reward units.

  held_out, held_out_se: mean over splits of the training-only gain and of its
  standard error. regret, lo, hi: difference of regret to the static mixture on
  test prompts, below 0 where the candidate is better, with its split-corrected
  95 % interval. share: of splits in which the budget is feasible. None where
  there is no number. The guard has no score of its own: it acts on that of
  `contrast_categories`.
  """
  found = {}
  with progress.track('candidates', cfg.splits, 'splits') as advance:
    for seed in range(cfg.splits):
      for key, values in _one_split(table, emb_NE, seed, cfg):
        found.setdefault(key, []).append(values)
      advance(1)
  train_N = splits.train_mask(
    table.prompt_ids, table.category_N.tolist(), 0, cfg.train_frac
  )
  ratio = splits.test_over_train(train_N)
  rows = []
  for (name, budget), values in found.items():
    held_out, se, regret = np.array(values).T
    leaf = resample.split_corrected(regret, ratio)
    rows.append(
      {
        'candidate': name,
        'budget': budget,
        'held_out': _mean(held_out),
        'held_out_se': _mean(se),
        'regret': leaf['mean'],
        'lo': leaf['lo'],
        'hi': leaf['hi'],
        'share': leaf['n_splits'] / cfg.splits,
      }
    )
  return rows


def _one_split(
  table: outcomes.Outcomes,
  emb_NE: np.ndarray,
  seed: int,
  cfg: CandidatesConfig,
) -> Iterator[tuple[tuple[str, str], tuple[float, float, float]]]:
  """((candidate, budget), (held-out gain, its error, regret difference))."""
  train_N = splits.train_mask(
    table.prompt_ids, table.category_N.tolist(), seed, cfg.train_frac
  )
  x_NE, reward_NM = emb_NE[train_N], table.reward_NM[train_N]
  category_N = table.category_N[train_N]
  cost_M = table.mean_cost_M(train_N)
  for name, candidate in build(cfg).items():
    evidence = guarded_lib.held_out(
      lambda rows_N, candidate=candidate: candidate(
        x_NE[rows_N], reward_NM[rows_N], category_N[rows_N]
      ),
      *(x_NE, reward_NM, cost_M, cfg.guarded),
    )
    predict = candidate(x_NE, reward_NM, category_N)
    test = _differences(table, train_N, predict(emb_NE))
    for text, budget in evaluate.BUDGETS.items():
      gain, se = evidence.gain[budget], evidence.se[budget]
      yield (name, text), (gain, se, test[text])
  fitted = guarded_lib.fit(x_NE, reward_NM, cost_M, cfg.guarded, category_N)
  test = _differences(table, train_N, fitted.predict(emb_NE))
  for text in evaluate.BUDGETS:
    yield (GUARDED, text), (math.nan, math.nan, test[text])


def _differences(
  table: outcomes.Outcomes, train_N: np.ndarray, prediction_NM: np.ndarray
) -> dict[str, float]:
  """Regret on test prompts less the static mixture's, NaN where infeasible."""
  split = split_lib.from_outcomes(table, train_N, prediction_NM)
  budgets = split.cost_M[split.best_arm] * np.array(
    [*evaluate.BUDGETS.values()]
  )
  routed, static = (
    path.value_at(curve.path.cost_P, curve.regret_P, budgets)
    for curve in (
      baselines.by_prediction(split, split.prediction_NM),
      baselines.static_mixture(split),
    )
  )
  return dict(zip(evaluate.BUDGETS, (routed - static).tolist(), strict=True))


def _ridge(cfg: ridge.RidgeConfig) -> Candidate:
  def fit(emb_NE, reward_NM, category_N):
    del category_N
    probe = ridge.fit(emb_NE, reward_NM, cfg)
    return lambda new_NE: ridge.predict(probe, new_NE)

  return fit


def _contrast(cfg: contrast.ContrastConfig) -> Candidate:
  return lambda *training: contrast.fit(*training[:2], cfg, training[2]).predict


def _fourier(cfg: CandidatesConfig) -> Candidate:
  raw = dataclasses.replace(
    cfg.guarded.contrast, embedding='raw', categories=False
  )

  def fit(emb_NE, reward_NM, category_N):
    del category_N
    x_NE = ridge.prepare(emb_NE, cfg.guarded.contrast.embedding)
    some_NE = x_NE[np.random.default_rng(0).permutation(len(x_NE))[:500]]
    square_N = (some_NE**2).sum(axis=1)
    far_NN = square_N[:, None] + square_N - 2 * some_NE @ some_NE.T
    pairs = np.triu_indices(len(some_NE), 1)
    features = feature_map.FeatureMap(
      width=x_NE.shape[1],
      embedding=cfg.guarded.contrast.embedding,
      num_fourier=cfg.num_fourier,
      length_scale=float(np.sqrt(cfg.fourier_scale * np.median(far_NN[pairs]))),
    )
    fitted = contrast.fit(features.apply(emb_NE), reward_NM, raw)
    return lambda new_NE: fitted.predict(features.apply(new_NE))

  return fit


def _mean(value_J: np.ndarray) -> float | None:
  """Mean of what is defined."""
  value_J = value_J[np.isfinite(value_J)]
  return float(value_J.mean()) if len(value_J) else None
