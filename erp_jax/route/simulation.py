"""How many prompts and samples a router needs, on simulated rewards."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from erp_jax.core import config, errors, progress, resample
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import simulate, simulate_config
from erp_jax.route import allocation
from erp_jax.route import learning as learning_lib

FORMAT_VERSION = 1
FILE = 'metrics.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateConfig:
  """A population, and learning curves on training sets drawn from it."""

  # Its prompts and samples are those of one training set.
  simulation: simulate_config.SimulationConfig = (
    simulate_config.SimulationConfig(prompts_per_category=500)
  )
  rewards: tuple[str, ...] = ()  # Of the simulation's reward models; all.
  test_prompts_per_category: int = 1000
  learning: learning_lib.LearningConfig = learning_lib.LearningConfig()

  def __post_init__(self):
    errors.check_least(
      'test_prompts_per_category', self.test_prompts_per_category, 1
    )


def run(workdir: workdir_lib.Workdir, cfg: SimulateConfig) -> dict[str, Any]:
  """The content of WORKDIR/metrics.json, written unless it is there.

  `simulated` is true in it. By reward model: `cells`, one per (n, k), with
  {mean, se} over training sets of R², R² of contrasts, true regret at budgets
  and what ERP saves against the static mixture; the oracle's regret, which is
  the same in all; and the best cell of each number of samples.
  """
  identity = {
    'stage': 'simulate',
    'format_version': FORMAT_VERSION,
    'simulate': config.as_plain_fields(cfg, SimulateConfig),
  }
  num_categories = len(cfg.simulation.categories)
  make = lambda: {
    'simulated': True,
    'counts': {
      'test_prompts': cfg.test_prompts_per_category * num_categories,
      'training_sets': cfg.learning.repeats,
    },
    'rewards': {
      name: _metrics(curve) for name, curve in draw_curves(cfg).items()
    },
  }
  return workdir.once(identity, FILE, make)


def draw_curves(cfg: SimulateConfig) -> dict[str, learning_lib.LearningCurve]:
  """Curves by reward model: every repeat is a training set of its own.

  Test prompts are drawn by the simulation's prompt seed, training sets by those
  after it. Budgets are shares of the cost of the arm with the highest ER.
  """
  test = simulate.draw(
    dataclasses.replace(
      cfg.simulation, prompts_per_category=cfg.test_prompts_per_category
    ),
    rewards=cfg.rewards,
  )
  best_Z = test.er_ZNM.mean(axis=1).argmax(axis=1)
  judged = learning_lib.Test(
    models=test.arms,
    cost_M=test.cost_M,
    spent_NM=np.tile(test.cost_M, (len(test.prompt_ids), 1)),
    emb_NE=test.emb_NE,
    truth_NM={name: test.er_NM(name) for name in test.rewards},
    budget_1={
      name: float(test.cost_M[best])
      for name, best in zip(test.rewards, best_Z, strict=True)
    },
    knows_er=True,
  )
  return learning_lib.curves(_trainings(cfg), judged, cfg.learning)


def _trainings(cfg: SimulateConfig) -> Iterator[learning_lib.Training]:
  repeats = cfg.learning.repeats
  with progress.track('training sets', repeats, 'training sets') as advance:
    for repeat in range(repeats):
      seed = cfg.simulation.prompt_seed + 1 + repeat
      drawn = simulate.draw(
        dataclasses.replace(cfg.simulation, prompt_seed=seed),
        rewards=cfg.rewards,
      )
      rng = np.random.default_rng([cfg.learning.seed, repeat])
      rows = learning_lib.stratified_order(drawn.category_N, rng)
      yield learning_lib.Training(
        drawn.emb_NE[rows],
        drawn.category_N[rows],
        {name: drawn.reward_NKM(name)[rows] for name in drawn.rewards},
      )
      advance(1)


def _metrics(curve: learning_lib.LearningCurve) -> dict[str, Any]:
  at_budgets = lambda leaves: dict(
    zip(learning_lib.BUDGETS, leaves, strict=True)
  )
  r2 = learning_lib.leaves(curve.r2_JNK)
  contrast_r2 = learning_lib.leaves(curve.contrast_r2_JNK)
  regret = {
    name: learning_lib.leaves(curve.regret_JNKP[name])
    for name in curve.regret_JNKP
  }
  saved = learning_lib.leaves(curve.advantage_JNKP)
  cells = []
  for i, num_prompts in enumerate(curve.num_prompts_N):
    for j, num_samples in enumerate(curve.num_samples_K):
      cells.append(
        {
          'prompts': int(num_prompts),
          'samples': int(num_samples),
          'r2': r2[i][j],
          'contrast_r2': contrast_r2[i][j],
          'regret': {
            name: at_budgets(values[i][j]) for name, values in regret.items()
          },
          'saved': at_budgets(saved[i][j]),
        }
      )
  return {
    'cells': cells,
    'oracle_regret': at_budgets(map(resample.defined, curve.oracle_regret_P)),
    'best': {
      str(total): {
        by: _allocation(allocation.best_allocation(curve, total, by))
        for by in allocation.CRITERIA
      }
      for total in allocation.totals(curve)
    },
  }


def _allocation(best: allocation.Allocation) -> dict[str, Any]:
  return {
    'prompts': best.num_prompts,
    'samples': best.num_samples,
    'mean': resample.defined(best.value),
    'se': resample.defined(best.se),
    'runner_up': list(best.runner_up),
    'lead': resample.defined(best.lead),
    'lead_se': resample.defined(best.lead_se),
  }
