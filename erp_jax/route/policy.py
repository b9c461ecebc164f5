"""The router's arithmetic: embeddings in, arms out, with NumPy alone."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import ridge
from erp_jax.route import feature_map, ladder, path
from erp_jax.route import posterior as posterior_lib

ERP, ERP_LOO, ERP_GUARDED = 'erp', 'erp_loo', 'erp_guarded'
FLAG, STATIC_MIXTURE = 'flag', 'static_mixture'
MAX_POINTS = 1000


@dataclasses.dataclass(frozen=True)
class Decision:
  """What a policy decided for N prompts.

  Attributes:
    arms: names of the M arms.
    choice_N: index of the arm.
    cost_N: that arm's mean cost.
    reward_NM: predicted expected reward of every arm.
    std_NM: standard deviation of that prediction, about the expected reward
      (Posterior).
    ood_N: whether the prompt is unlike those that the policy was fitted on.
  """

  arms: tuple[str, ...]
  choice_N: np.ndarray
  cost_N: np.ndarray
  reward_NM: np.ndarray
  std_NM: np.ndarray
  ood_N: np.ndarray

  def __len__(self) -> int:
    return len(self.choice_N)

  @functools.cached_property
  def win_NM(self) -> np.ndarray:
    """Chance that each arm has the highest expected reward.

    It takes the predictions for independent Gaussians; cost plays no part in
    it, nor it in the choice: it is computed when it is first read.
    """
    return posterior_lib.win_probability(self.reward_NM, self.std_NM)

  @property
  def arm_N(self) -> list[str]:
    """Name of each prompt's arm."""
    return [self.arms[m] for m in self.choice_N]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """A linear function of features of the embedding, and how sure it is."""

  features: feature_map.FeatureMap
  theta_EM: np.ndarray
  posterior: posterior_lib.Posterior

  @functools.cached_property
  def theta_ME(self) -> np.ndarray:
    """Each arm's weights by themselves: an added arm moves no last bit."""
    return np.ascontiguousarray(self.theta_EM.T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
  """Decisions by argmax of prediction - λ cost (4.4), with what budgets need.

  A prediction is bias_M plus all parts. Its standard deviation is the sum of
  the parts': all are fitted to the same rewards, so that their errors may well
  be the same.

  Attributes:
    name: of the policy: ERP, ERP_LOO, ERP_GUARDED.
    arms: names.
    cost_M: mean cost of each arm.
    mean_M: mean training reward of each arm, which the best single arm and the
      static mixture go by.
    bias_M, parts: the prediction. The first part's leverage says which prompts
      are out of distribution.
    margin_M: raises predictions where an arm is chosen, and nowhere else.
    ladder: the λ path of the prompts that budgets are set on.
    out_of_distribution: FLAG only says so; STATIC_MIXTURE also routes such a
      prompt by mean_M, as if it had not been read, within the same budget.
  """

  name: str
  arms: tuple[str, ...]
  cost_M: np.ndarray
  mean_M: np.ndarray
  bias_M: np.ndarray
  parts: tuple[Part, ...]
  margin_M: np.ndarray
  ladder: ladder.Ladder
  out_of_distribution: str = FLAG

  def __post_init__(self):
    check_costs(self.arms, self.cost_M)
    errors.check_choice(
      *('out_of_distribution', self.out_of_distribution),
      (FLAG, STATIC_MIXTURE),
    )
    shape_M = self.cost_M.shape
    for part in self.parts:
      shape_EM = (part.features.num_features, *shape_M)
      if part.theta_EM.shape != shape_EM:
        raise ValueError(f'theta is {part.theta_EM.shape}, not {shape_EM}.')

  @functools.cached_property
  def best_arm(self) -> int:
    """Index of the best single arm, whose cost is budget 1."""
    return best_single(self.mean_M, self.cost_M)

  @functools.cached_property
  def static(self) -> ladder.Ladder:
    """The hull of single arms by training mean: prices without a prompt."""
    return ladder.build(self.mean_M[None], self.cost_M, len(self.arms))

  def decide(
    self,
    emb_NE: np.ndarray,
    *,
    budget: float | None = None,
    lam: float | None = None,
    prompt_ids: Sequence[str] = (),
  ) -> Decision:
    """Arms for prompts, at a price or within a budget: give exactly one.

    Args:
      emb_NE: embeddings, from the encoder that the policy was fitted on.
      budget: ceiling on the mean cost, as a share of the best single arm's.
        It is kept in expectation on prompts like those calibrated on.
      lam: price of a unit of cost, in reward.
      prompt_ids: a budget between two points of the path is a lottery, drawn
        from the hash of the prompt's id; without ids, of its embedding.

    Raises UserError for an infeasible budget, a negative price, and embeddings
    that are not finite (with their ids) or of another width.
    """
    self.check(budget=budget, lam=lam)
    emb_NE = np.asarray(emb_NE)
    if prompt_ids and len(prompt_ids) != len(emb_NE):
      raise ValueError(
        f'{len(prompt_ids)} prompt ids, {len(emb_NE)} embeddings.'
      )
    reward_NM, std_NM, ood_N = predict(
      self.bias_M, self.parts, emb_NE, prompt_ids
    )
    if lam is not None:
      prices = lambda _: np.full(len(emb_NE), float(lam))
    else:
      limit = budget * self.cost_M[self.best_arm]
      draw_N = _draws(emb_NE, prompt_ids)
      prices = lambda rungs: rungs.prices(limit, draw_N)
    score_NM = reward_NM + self.margin_M
    choice_N = path.choose(score_NM, self.cost_M, prices(self.ladder))
    if self.out_of_distribution == STATIC_MIXTURE:
      mean_NM = np.tile(self.mean_M, (len(emb_NE), 1))
      static_N = path.choose(mean_NM, self.cost_M, prices(self.static))
      choice_N = np.where(ood_N, static_N, choice_N)
    return Decision(
      arms=self.arms,
      choice_N=choice_N,
      cost_N=self.cost_M[choice_N],
      reward_NM=reward_NM,
      std_NM=std_NM,
      ood_N=ood_N,
    )

  def check(
    self, *, budget: float | None = None, lam: float | None = None
  ) -> None:
    """UserError for a budget or price that `decide` refuses."""
    if (budget is None) == (lam is None):
      raise errors.UserError('give either a budget or lam, and not both.')
    if lam is not None and not (np.isfinite(lam) and lam >= 0):
      raise errors.UserError(f'lam is {lam}; give a price of 0 or more.')
    if budget is not None:
      if not (np.isfinite(budget) and budget >= 0):
        raise errors.UserError(
          f'the budget is {budget}; give a finite number of 0 or more.'
        )
      reference = self.cost_M[self.best_arm]
      cost_P = self.ladder.cost_P
      if not path.is_feasible(cost_P, budget * reference):
        least = math.ceil(cost_P[-1] / reference * 1e4) / 1e4
        raise errors.UserError(
          f'a budget of {budget:g} of what {self.arms[self.best_arm]}, the '
          'best arm, costs is infeasible: the cheapest arm costs more; give '
          f'{least:g} or more.'
        )


def predict(
  bias_M: np.ndarray,
  parts: Sequence[Part],
  emb_NE: np.ndarray,
  prompt_ids: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """reward_NM, std_NM, ood_N; raises UserError as `Policy.decide`."""
  shape = (len(emb_NE), len(bias_M))
  reward_NM, std_NM = np.zeros(shape), np.zeros(shape)
  ood_N = np.zeros(len(emb_NE), bool)
  for i, part in enumerate(parts):
    x_NE = part.features.apply(emb_NE, prompt_ids)
    for m, theta_E in enumerate(part.theta_ME):
      reward_NM[:, m] += x_NE @ theta_E
    variance_NM, leverage_N = part.posterior.variance(x_NE)
    std_NM += np.sqrt(variance_NM)
    if i == 0:
      ood_N = leverage_N > part.posterior.limit
  return reward_NM + bias_M, std_NM, ood_N


def ridge_part(
  probe: ridge.Probe,
  emb_NE: np.ndarray,
  reward_NM: np.ndarray,
  cfg: ridge.RidgeConfig,
  quantile: float,
) -> Part:
  """Part of a fitted probe; its bias_M is the policy's.

  Args:
    emb_NE, reward_NM, cfg: what the probe was fitted on, and how.
    quantile: of training leverages, from which on a prompt is out of
      distribution.
  """
  features = feature_map.FeatureMap(
    width=len(probe.theta_EM), embedding=probe.embedding
  )
  penalty_M = probe.beta_M
  if cfg.loss == 'mean':
    penalty_M = penalty_M * probe.num_prompts_M
  return Part(
    features=features,
    theta_EM=probe.theta_EM,
    posterior=posterior_lib.fit(
      features.apply(emb_NE),
      reward_NM,
      ridge.predict(probe, emb_NE),
      penalty_M,
      cfg.intercept,
      quantile,
    ),
  )


def calibrate(
  *,
  name: str,
  arms: Sequence[str],
  cost_M: np.ndarray,
  mean_M: np.ndarray,
  bias_M: np.ndarray,
  parts: Sequence[Part],
  emb_NE: np.ndarray,
  margin_M: np.ndarray | float = 0.0,
  max_points: int = MAX_POINTS,
  out_of_distribution: str = FLAG,
) -> Policy:
  """A policy whose budgets hold on these (unlabelled) prompts.

  Arguments are as in Policy, but for `emb_NE`, the prompts, which the parts
  should not have been fitted on, and `max_points`, the most that the ladder
  may have. With STATIC_MIXTURE, prompts out of distribution are left out: they
  keep to the budget by themselves.
  """
  cost_M = np.asarray(cost_M, np.float64)
  check_costs(arms, cost_M)
  reward_NM, _, ood_N = predict(bias_M, parts, emb_NE)
  score_NM = reward_NM + margin_M
  if out_of_distribution == STATIC_MIXTURE:
    score_NM = score_NM[~ood_N]
  if not len(score_NM):
    raise errors.UserError(
      f'all {len(emb_NE)} prompts to set budgets on are out of distribution: '
      f'give others, or set out_of_distribution={FLAG}.'
    )
  return Policy(
    name=name,
    arms=tuple(arms),
    cost_M=cost_M,
    mean_M=np.asarray(mean_M, np.float64),
    bias_M=bias_M,
    parts=tuple(parts),
    margin_M=np.zeros(len(cost_M)) + margin_M,
    ladder=ladder.build(score_NM, cost_M, max_points),
    out_of_distribution=out_of_distribution,
  )


def best_single(train_mean_M: np.ndarray, cost_M: np.ndarray) -> int:
  """Arm of the highest training mean, ties to the cheaper one."""
  return int(
    path.choose(np.asarray(train_mean_M)[None], cost_M, np.zeros(1))[0]
  )


def check_costs(arms: Sequence[str], cost_M: np.ndarray) -> None:
  """UserError for a cost that is negative or not finite."""
  for name, cost in zip(arms, cost_M, strict=True):
    if not (np.isfinite(cost) and cost >= 0):
      raise errors.UserError(
        f'the cost of {name} is {cost}; give a finite number of 0 or more.'
      )


def _draws(emb_NE: np.ndarray, prompt_ids: Sequence[str]) -> np.ndarray:
  """draw_N, uniform in [0, 1): what each prompt always gets."""
  names = [name.encode(errors='surrogatepass') for name in prompt_ids] or [
    np.ascontiguousarray(row, np.float32).tobytes() for row in emb_NE
  ]
  words = [hashlib.sha256(b'mix\n' + name).digest()[:6] for name in names]
  return np.array([int.from_bytes(word) for word in words]) / 2**48
