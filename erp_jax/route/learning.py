"""Learning curves: what more training prompts, or more samples, would bring.

A router is fitted on the first n prompts of a training set, with the first k
samples of each, for every n and k of a grid, and judged on one test set. Over
repeats (other training prompts, other samples) that gives means and standard
errors; `allocation` finds the best (n, k) of those with the same n k samples.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import errors, resample
from erp_jax.probe import decomposition, scores, targets
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.route import baselines, evaluate, policy
from erp_jax.route import curve as curve_lib
from erp_jax.route import split as split_lib

UNLIMITED = 'unlimited'  # The cost does not count: λ = 0.
BUDGETS = (*evaluate.BUDGETS, UNLIMITED)
POLICIES = ('erp', 'static_mixture')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningConfig:
  """The grid, and what is fitted in each of its cells."""

  num_prompts: tuple[int, ...] = (125, 250, 500, 1000, 2000)  # Of training.
  num_samples: tuple[int, ...] = (1, 2, 4, 8, 16, 32)  # Of each of them.
  repeats: int = 10
  ridge: ridge_lib.RidgeConfig = ridge_lib.RidgeConfig()
  seed: int = 0  # Of the subsamples, where there is one training set.

  def __post_init__(self):
    for name, lowest in (('num_prompts', 2), ('num_samples', 1)):
      errors.check_grid(f'learning.{name}', getattr(self, name), lowest)
    errors.check_least('learning.repeats', self.repeats, 1)


class Training(NamedTuple):
  """Training prompts and samples, in the order in which they are taken.

  Attributes:
    emb_NE: embeddings.
    category_N: category of each prompt.
    reward_NKM: samples by reward model, NaN where missing.
  """

  emb_NE: np.ndarray
  category_N: np.ndarray
  reward_NKM: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
  """What every cell is judged on.

  Attributes:
    models: names of the M arms.
    cost_M: mean cost of an answer, which decisions go by.
    spent_NM: what each answer cost, NaN where not recorded.
    emb_NE: embeddings of the test prompts.
    truth_NM: by reward model: ER where it is known, else means of all samples,
      NaN where missing.
    budget_1: by reward model: the mean cost that budgets are shares of. It is
      the same in all cells, so that they can be compared.
    knows_er: whether `truth_NM` is ER. If not, regret is plug-in regret.
  """

  models: tuple[str, ...]
  cost_M: np.ndarray
  spent_NM: np.ndarray
  emb_NE: np.ndarray
  truth_NM: Mapping[str, np.ndarray]
  budget_1: Mapping[str, float]
  knows_er: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningCurve:
  """Of one reward model, over J repeats; P runs along BUDGETS.

  Attributes:
    num_prompts_N, num_samples_K: the grid: the N and K of the other arrays.
    r2_JNK: mean over arms of R² on the test prompts.
    contrast_r2_JNK: R² of all contrasts between arms together.
    regret_JNKP: by policy of POLICIES, NaN where the budget is infeasible.
    oracle_regret_P: of the policy that knows the test prompts' truth: no other
      has less.
    num_test: prompts in the regret: those with a truth for all arms.
    knows_er: whether the truth is ER.
  """

  num_prompts_N: np.ndarray
  num_samples_K: np.ndarray
  r2_JNK: np.ndarray
  contrast_r2_JNK: np.ndarray
  regret_JNKP: Mapping[str, np.ndarray]
  oracle_regret_P: np.ndarray
  num_test: int
  knows_er: bool

  @property
  def advantage_JNKP(self) -> np.ndarray:
    """Regret that ERP saves against the static mixture, paired."""
    return self.regret_JNKP['static_mixture'] - self.regret_JNKP['erp']


def curves(
  trainings: Iterable[Training], test: Test, cfg: LearningConfig
) -> dict[str, LearningCurve]:
  """Curves by reward model of `test.truth_NM`; `trainings` are the repeats.

  Raises UserError for a grid beyond the prompts or samples that there are.
  """
  repeats = [_repeat(training, test, cfg) for training in trainings]
  shape = (len(repeats), len(cfg.num_prompts), len(cfg.num_samples))
  result = {}
  for reward, truth_NM in test.truth_NM.items():
    cells = [cell for repeat in repeats for cell in repeat[reward]]
    # The path on the truth itself, whatever is known of training.
    split = _split(test, reward, truth_NM, np.zeros((1, truth_NM.shape[1])))
    oracle = baselines.by_prediction(split, truth_NM)
    at_budgets = lambda name, cells=cells: np.reshape(
      [cell['regret'][name] for cell in cells], (*shape, len(BUDGETS))
    )
    result[reward] = LearningCurve(
      num_prompts_N=np.array(cfg.num_prompts),
      num_samples_K=np.array(cfg.num_samples),
      r2_JNK=np.reshape([cell['r2'] for cell in cells], shape),
      contrast_r2_JNK=np.reshape(
        [cell['contrast_r2'] for cell in cells], shape
      ),
      regret_JNKP={name: at_budgets(name) for name in POLICIES},
      oracle_regret_P=_at_budgets(test, reward, oracle, oracle.regret_P),
      num_test=int(split.complete_N.sum()),
      knows_er=test.knows_er,
    )
  return result


def subsamples(training: Training, cfg: LearningConfig) -> Iterator[Training]:
  """Repeats from one training set: its prompts and samples in random orders.

  Prompts are taken evenly from the categories. The more of a training set a
  cell takes, the less its repeats differ: their spread then says nothing about
  another training set. Samples have one order for all prompts: they are
  independent, so that is as random as an order each.
  """
  for repeat in range(cfg.repeats):
    rng = np.random.default_rng([cfg.seed, repeat])
    rows = stratified_order(training.category_N, rng)
    yield Training(
      training.emb_NE[rows],
      training.category_N[rows],
      {
        reward: reward_NKM[rows][:, rng.permutation(reward_NKM.shape[1])]
        for reward, reward_NKM in training.reward_NKM.items()
      },
    )


def stratified_order(
  category_N: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Rows in a random order whose beginnings hold all categories evenly."""
  place_N = np.empty(len(category_N))
  for category in np.unique(category_N):
    rows = np.flatnonzero(category_N == category)
    place_N[rng.permutation(rows)] = (np.arange(len(rows)) + 0.5) / len(rows)
  return np.lexsort((rng.random(len(category_N)), place_N))


def of_records(
  records: records_lib.Records, train_N: np.ndarray, cfg: LearningConfig
) -> dict[str, LearningCurve]:
  """Curves of subsamples of train_N, judged on all other prompts.

  The truth is ER where the records know it, else the means of all samples.
  Budgets are shares of the cost of the arm that is best on all training prompts
  and samples.
  """
  training = Training(
    records.emb_NE[train_N],
    records.category_N[train_N],
    {name: r_NKM[train_N] for name, r_NKM in records.reward_NKM.items()},
  )
  first = records.rewards[0]
  cost_M = records.outcomes(first).mean_cost_M(train_N)
  truth_NM, budget_1 = {}, {}
  for reward in records.rewards:
    mean_NM = records.mean_NM(reward)
    truth_NM[reward] = records.er_NM.get(reward, mean_NM)[~train_N]
    complete_N = train_N & np.isfinite(mean_NM).all(axis=1)
    if not complete_N.any():
      raise errors.UserError(
        f'{records.title}: no training prompt has {reward} of all of '
        f'{", ".join(records.arms)}; leave out the arm with the fewest.'
      )
    best = policy.best_single(mean_NM[complete_N].mean(axis=0), cost_M)
    budget_1[reward] = float(cost_M[best])
  test = Test(
    models=records.arms,
    cost_M=cost_M,
    spent_NM=records.cost_NM[~train_N],
    emb_NE=records.emb_NE[~train_N],
    truth_NM=truth_NM,
    budget_1=budget_1,
    knows_er=bool(records.er_NM),
  )
  return curves(subsamples(training, cfg), test, cfg)


def mean_se(value_J: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean over the first axis, the repeats, and its standard error.

  The error is NaN for one repeat.
  """
  num = len(value_J)
  mean = value_J.mean(axis=0)
  if num < 2:
    return mean, np.full(np.shape(mean), np.nan)
  return mean, value_J.std(axis=0, ddof=1) / np.sqrt(num)


def leaves(value: np.ndarray) -> Any:
  """{mean, se} over the first axis, None where undefined; lists for others."""

  def nest(mean, se):
    if np.ndim(mean):
      return [nest(*pair) for pair in zip(mean, se, strict=True)]
    return {'mean': resample.defined(mean), 'se': resample.defined(se)}

  return nest(*mean_se(value))


def _means(reward_NKM: np.ndarray, num: int) -> np.ndarray:
  """mean_NM over the first `num` samples that a cell has; 0 means all."""
  used_NKM = np.isfinite(reward_NKM)
  if num:
    used_NKM &= used_NKM.cumsum(axis=1) <= num
  return targets.expected_reward(reward_NKM, used_NKM).mean_NM


def _repeat(
  training: Training, test: Test, cfg: LearningConfig
) -> dict[str, list[dict]]:
  """The cells of each reward model, by n and then k."""
  most = cfg.num_prompts[-1]
  if most > len(training.emb_NE):
    raise errors.UserError(
      f'learning.num_prompts goes up to {most}, but there are '
      f'{len(training.emb_NE)} training prompts: lower it.'
    )
  means = {}
  for reward in test.truth_NM:
    reward_NKM = training.reward_NKM[reward][:most]
    if cfg.num_samples[-1] > reward_NKM.shape[1]:
      raise errors.UserError(
        f'learning.num_samples goes up to {cfg.num_samples[-1]}, but {reward} '
        f'scored {reward_NKM.shape[1]} samples of a prompt: lower it.'
      )
    means[reward] = [_means(reward_NKM, k) for k in cfg.num_samples]
  columns = np.concatenate([m for parts in means.values() for m in parts], 1)
  names = [
    f'{reward}/{arm}'
    for reward in means
    for _ in cfg.num_samples
    for arm in test.models
  ]
  cells = {reward: [] for reward in means}
  for num in cfg.num_prompts:
    # All reward models and numbers of samples are columns of one factorisation.
    probe = ridge_lib.fit(
      training.emb_NE[:num], columns[:num], cfg.ridge, names
    )
    predictions = iter(
      np.split(
        ridge_lib.predict(probe, test.emb_NE),
        len(means) * len(cfg.num_samples),
        axis=1,
      )
    )
    for reward, parts in means.items():
      cells[reward] += [
        _cell(test, reward, next(predictions), mean_NM[:num])
        for mean_NM in parts
      ]
  return cells


def _cell(
  test: Test, reward: str, prediction_NM: np.ndarray, train_NM: np.ndarray
) -> dict:
  """R², and regret at the budgets."""
  split = _split(test, reward, prediction_NM, train_NM)
  truth_NM = split.reward_NM
  chosen = {
    'erp': baselines.by_prediction(split, prediction_NM),
    'static_mixture': baselines.static_mixture(split),
  }
  r2_M = [
    scores.r2(truth_NM[:, m], prediction_NM[:, m])
    for m in range(truth_NM.shape[1])
  ]
  return {
    'r2': np.mean(r2_M),
    'contrast_r2': decomposition.contrast_r2(truth_NM, prediction_NM)[1],
    'regret': {
      name: _at_budgets(test, reward, curve, curve.regret_P)
      for name, curve in chosen.items()
    },
  }


def _split(
  test: Test, reward: str, prediction_NM: np.ndarray, train_NM: np.ndarray
) -> split_lib.Split:
  return split_lib.Split(
    models=test.models,
    cost_M=test.cost_M,
    prediction_NM=prediction_NM,
    reward_NM=test.truth_NM[reward],
    spent_NM=test.spent_NM,
    # No policy here goes by categories.
    category_N=np.zeros(len(prediction_NM)),
    train_reward_NM=train_NM,
    train_category_N=np.zeros(len(train_NM)),
  )


def _at_budgets(
  test: Test, reward: str, curve: curve_lib.Curve, value_P: np.ndarray
) -> np.ndarray:
  """Values of a curve along BUDGETS."""
  budgets = [b * test.budget_1[reward] for b in evaluate.BUDGETS.values()]
  return np.array([*(curve.at(value_P, b) for b in budgets), value_P[0]])
