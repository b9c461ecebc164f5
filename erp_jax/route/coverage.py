"""How often the bootstrap's intervals hold the truth, on simulated prompts.

One router is fitted to simulated training prompts. A large simulated population
of prompts, with means of K samples each, is then the truth: test sets are drawn
from it with replacement, so that its own values are what their numbers
estimate, without error. Resampling weights are shared by all test sets of the
same size.

Budgets are set on each test set's own predictions, as in an evaluation. So
there are two truths: the population's value at the same budget, and at the same
prices λ and lottery, with which a budget is kept only on average.
"""

import dataclasses
import itertools
import math
import statistics
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import config, errors, progress, resample
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import simulate, simulate_config
from erp_jax.probe import ranking, scores
from erp_jax.probe import ridge as ridge_lib
from erp_jax.route import baselines, contributions, evaluate, path
from erp_jax.route import curve as curve_lib
from erp_jax.route import split as split_lib

FORMAT_VERSION = 1
FILE = 'coverage.json'
ERP, STATIC = 'erp', 'static_mixture'
# Of intervals; SHARE is `resample.share_interval`, for AUROC alone.
PERCENTILE, BASIC, BCA, SHARE = 'percentile', 'basic', 'bca', 'share'
BUDGET, PRICES = 'same_budget', 'same_prices'
TRUTHS = (BUDGET, PRICES)
_CHUNK = 100  # Draws or prompts at once: their sums stay in cache.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoverageConfig:
  """A simulated population, a router, and test sets."""

  # Its prompts and samples are those of the training set.
  simulation: simulate_config.SimulationConfig = (
    simulate_config.SimulationConfig(prompts_per_category=500, width=64)
  )
  reward: str = 'oasst'  # Of the simulation's reward models.
  pair: tuple[str, ...] = ('llama31-8b', 'llama31-70b')  # Of the AUROC.
  budget: str = '0.5'  # Of those of evaluations, for regret.
  population_per_category: int = 50_000  # Prompts.
  sizes: tuple[int, ...] = (250, 2000)  # Prompts in a test set.
  sets: int = 2000  # Test sets of each size.
  seed: int = 0  # Of the test sets.
  ridge: ridge_lib.RidgeConfig = ridge_lib.RidgeConfig()
  bootstrap: resample.BootstrapConfig = resample.BootstrapConfig()

  def __post_init__(self):
    known = self.simulation
    if self.reward not in known.rewards:
      raise errors.UserError(
        f'reward {self.reward!r} is not in simulation.rewards; '
        f'{config.did_you_mean(self.reward, known.rewards)}'
      )
    if len(set(self.pair)) != 2 or not set(self.pair) <= set(known.arms):
      raise errors.UserError(
        f'pair is {self.pair}; give two of {", ".join(known.arms)}.'
      )
    errors.check_choice('budget', self.budget, evaluate.BUDGETS)
    for name in ('population_per_category', 'sets'):
      errors.check_least(name, getattr(self, name), 1)
    if not self.sizes or min(self.sizes) < 2:
      raise errors.UserError(
        f'sizes are {self.sizes}: give at least one, none below 2.'
      )


class Population(NamedTuple):
  """A split whose test prompts are the whole population, and its curves.

  `pair` is that of the AUROC, as indices of arms.
  """

  split: split_lib.Split
  curves: dict[str, curve_lib.Curve]
  budget: float  # In units of cost.
  pair: tuple[int, int]


def run(workdir: workdir_lib.Workdir, cfg: CoverageConfig) -> dict[str, Any]:
  """The content of WORKDIR/coverage.json, written unless it is there.

  `simulated` is true in it. `sizes` has, by number of prompts, those of `cover`
  by statistic; `truth` the population's values.
  """
  identity = {
    'stage': 'coverage',
    'format_version': FORMAT_VERSION,
    'coverage': config.as_plain_fields(cfg, CoverageConfig),
  }

  def make():
    population = draw_population(cfg)
    return {
      'simulated': True,
      'sets': cfg.sets,
      'population': len(population.split.reward_NM),
      'budget': cfg.budget,
      'truth': dict(
        zip(names(population), truths(population).tolist(), strict=True)
      ),
      'sizes': {str(size): cover(population, size, cfg) for size in cfg.sizes},
    }

  return workdir.once(identity, FILE, make)


def draw_population(cfg: CoverageConfig) -> Population:
  """Fits the router and applies it to the population.

  Raises UserError where its budgets are no range: where the best single arm is
  the cheapest, or costs too little for the budget.
  """
  drawn = cfg.simulation
  rewards = (cfg.reward,)
  train = simulate.draw(drawn, rewards=rewards)
  train_reward_NM = train.mean_NM(cfg.reward, drawn.k)
  probe = ridge_lib.fit(train.emb_NE, train_reward_NM, cfg.ridge)
  others = dataclasses.replace(
    drawn,
    prompts_per_category=cfg.population_per_category,
    prompt_seed=drawn.prompt_seed + 1,
  )
  test = simulate.draw(others, rewards=rewards)
  reward_NM = test.mean_NM(cfg.reward, drawn.k)
  split = split_lib.Split(
    models=test.arms,
    cost_M=test.cost_M,
    prediction_NM=ridge_lib.predict(probe, test.emb_NE),
    reward_NM=reward_NM,
    spent_NM=np.full(reward_NM.shape, np.nan),
    category_N=test.category_N,
    train_reward_NM=train_reward_NM,
    train_category_N=train.category_N,
  )
  budget = evaluate.BUDGETS[cfg.budget] * split.cost_M[split.best_arm]
  if not split.cost_M.min() < budget:
    raise errors.UserError(
      f'the best single arm is {split.models[split.best_arm]}: a budget of '
      f'{cfg.budget} of its cost is not above the cheapest arm; take a larger.'
    )
  return Population(
    split,
    _curves(split),
    float(budget),
    tuple(split.models.index(arm) for arm in cfg.pair),
  )


def names(population: Population) -> list[str]:
  """Of the statistics, in the order of their values."""
  models = population.split.models
  i, j = population.pair
  return [
    *(f'r2:{model}' for model in models),
    f'auroc:{models[i]}|{models[j]}',
    *(
      f'{what}:{policy}'
      for what in ('regret', 'area')
      for policy in (ERP, STATIC, f'{ERP}-{STATIC}')
    ),
  ]


def truths(population: Population) -> np.ndarray:
  """The population's values, in the order of `names`."""
  split = population.split
  i, j = population.pair
  margin_N = split.reward_NM[:, i] - split.reward_NM[:, j]
  score_N = split.prediction_NM[:, i] - split.prediction_NM[:, j]
  untied_N = margin_N != 0
  return np.array(
    [
      *map(scores.r2, split.reward_NM.T, split.prediction_NM.T),
      scores.auroc(margin_N[untied_N] > 0, score_N[untied_N]),
      *_at_prices(population, population.curves),
    ]
  )


def cover(
  population: Population, size: int, cfg: CoverageConfig
) -> dict[str, Any]:
  """By statistic and method: how its intervals do on test sets of this size.

  `width` is their mean width. By truth, {share, error}: how many hold it, and
  the Monte-Carlo standard error of that, sqrt(p (1 - p) / sets).
  """
  keys = names(population)
  truth_S = truths(population)
  counts = _counts(size, cfg.bootstrap)
  rng = np.random.default_rng([cfg.seed, size])
  num_prompts = len(population.split.reward_NM)
  cells = [(s, method) for s, key in enumerate(keys) for method in methods(key)]
  inside = {cell: np.zeros(len(TRUTHS)) for cell in cells}
  width = dict.fromkeys(cells, 0.0)
  with progress.track(f'test sets of {size}', cfg.sets, 'sets') as advance:
    for _ in range(cfg.sets):
      test = _test_set(population.split, rng.integers(num_prompts, size=size))
      curves = _curves(test)
      value_QS = _values(population, test, curves, counts)
      priced_S = truth_S.copy()
      priced_S[-6:] = _at_prices(population, curves)
      for s, method in cells:
        lo, hi = bounds(value_QS[:, s], cfg.bootstrap.num_draws, method)
        truth = np.array([truth_S[s], priced_S[s]])
        inside[s, method] += (lo <= truth) & (truth <= hi)
        width[s, method] += (hi - lo) / cfg.sets
      advance(1)
  result = {key: {} for key in keys}
  for s, method in cells:
    leaf = result[keys[s]][method] = {'width': width[s, method]}
    for truth, share in zip(TRUTHS, inside[s, method] / cfg.sets, strict=True):
      error = math.sqrt(share * (1 - share) / cfg.sets)
      leaf[truth] = {'share': float(share), 'error': error}
  return result


def methods(key: str) -> tuple[str, ...]:
  """Of a statistic's intervals; evaluations have the first one."""
  plain = PERCENTILE, BASIC, BCA
  return (SHARE, *plain) if key.startswith('auroc:') else plain


def bounds(
  value_Q: np.ndarray, num_draws: int, method: str
) -> tuple[float, float]:
  """(lo, hi) from the value, draws, and values with each prompt left out.

  BASIC reflects percentiles about the value. BCA (Efron, 1987) takes other
  percentiles, for the draws' bias and for a standard error that changes with
  the value.
  """
  point, draws_Q, left_out_N = np.split(value_Q, [1, 1 + num_draws])
  point = float(point[0])
  if method == SHARE:
    leaf = resample.share_interval(point, draws_Q)
    return leaf['lo'], leaf['hi']
  if method == BCA:
    normal = statistics.NormalDist()
    below = np.mean(draws_Q < point) + np.mean(draws_Q == point) / 2
    bias = normal.inv_cdf(np.clip(below, 0.5 / num_draws, 1 - 0.5 / num_draws))
    error_N = left_out_N.mean() - left_out_N
    speed = np.sum(error_N**3) / (6 * np.sum(error_N**2) ** 1.5)
    z = normal.inv_cdf((1 + resample.LEVEL) / 2)
    tails = [
      normal.cdf(bias + (bias + side) / (1 - speed * (bias + side)))
      for side in (-z, z)
    ]
    return tuple(np.quantile(draws_Q, tails))
  lo, hi = resample.percentiles(draws_Q)
  return (lo, hi) if method == PERCENTILE else (2 * point - hi, 2 * point - lo)


def _curves(split: split_lib.Split) -> dict[str, curve_lib.Curve]:
  return {
    ERP: baselines.by_prediction(split, split.prediction_NM),
    STATIC: baselines.static_mixture(split),
  }


def _test_set(split: split_lib.Split, rows: np.ndarray) -> split_lib.Split:
  return dataclasses.replace(
    split,
    prediction_NM=split.prediction_NM[rows],
    reward_NM=split.reward_NM[rows],
    spent_NM=split.spent_NM[rows],
    category_N=split.category_N[rows],
  )


def _counts(
  size: int, cfg: resample.BootstrapConfig
) -> list[tuple[np.ndarray, np.ndarray]]:
  """How often each prompt is there: each once, in draws, each left out once.

  Some at a time, as counts_QN and counts_NQ.
  """
  rows = np.arange(size)
  left_out = (
    (rows != rows[start : start + _CHUNK, None]).astype(np.float64)
    for start in range(0, size, _CHUNK)
  )
  parts = itertools.chain(
    [np.ones((1, size))], resample.draw_counts(size, cfg), left_out
  )
  return [(part, np.ascontiguousarray(part.T)) for part in parts]


def _values(
  population: Population,
  test: split_lib.Split,
  curves: dict[str, curve_lib.Curve],
  counts: list[tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
  """value_QS of a test set for all its `_counts`, in the order of `names`."""
  i, j = population.pair
  margin_N = test.reward_NM[:, i] - test.reward_NM[:, j]
  score_N = test.prediction_NM[:, i] - test.prediction_NM[:, j]
  ranked = ranking.rank(margin_N > 0, margin_N < 0, score_N)
  moments, _ = scores.moment_columns(test.reward_NM, test.prediction_NM)
  regrets = [
    contributions.regret(test, share_NM)
    for share_NM in (
      *(c.share(population.budget) for c in curves.values()),
      *(c.mean_share(*_range(population)) for c in curves.values()),
    )
  ]
  columns = np.column_stack([np.ones(len(margin_N)), *regrets, moments])
  sums_QS = np.concatenate([counts_QN @ columns for counts_QN, _ in counts])
  aurocs = [ranking.aurocs(ranked, counts_NQ) for _, counts_NQ in counts]
  return np.column_stack(
    [
      scores.Moments.of_sums(sums_QS[:, 5:]).r2(),
      np.concatenate(aurocs),
      _with_differences(sums_QS[:, 1:5] / sums_QS[:, :1]),
    ]
  )


def _at_prices(
  population: Population, curves: dict[str, curve_lib.Curve]
) -> np.ndarray:
  """The population's regrets and areas at these curves' λ and lotteries."""
  found = {}
  for name, curve in curves.items():
    lottery_P = np.zeros(len(curve.path.cost_P))
    for point, prob in curve.lottery(population.budget).items():
      lottery_P[point] = prob
    all_budgets_P = path.mean_weights(curve.path.cost_P, *_range(population))
    whole = population.curves[name]
    prices_P = path.inner_prices(curve.path.lam_P)
    there = np.searchsorted(whole.path.lam_P, prices_P, side='right') - 1
    regret_P = whole.regret_P[there]
    found[name] = lottery_P @ regret_P, all_budgets_P @ regret_P
  regrets, areas = zip(*found.values(), strict=True)
  return _with_differences(np.array([[*regrets, *areas]]))[0]


def _range(population: Population) -> tuple[float, float]:
  """The costs that an area is over, as in `contributions.areas`."""
  cost_M = population.split.cost_M
  return cost_M.min(), cost_M[population.split.best_arm]


def _with_differences(value_QS: np.ndarray) -> np.ndarray:
  """Regret of ERP and mixture, their areas -> each pair and its difference."""
  erp, static, erp_area, static_area = value_QS.T
  return np.column_stack(
    [erp, static, erp - static, erp_area, static_area, erp_area - static_area]
  )
