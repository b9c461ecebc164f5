"""Every policy's cost-regret curve on a split: ERP and what it must beat."""

import dataclasses

import numpy as np

from erp_jax.route import path
from erp_jax.route import split as split_lib


@dataclasses.dataclass(frozen=True)
class BlindPath:
  """Points of a policy that does not look at the prompt, dearest first.

  Attributes:
    lam_P: price at which each point is reached.
    cost_P: mean cost.
    share_PM: probability of each arm, the same for every prompt.
    num_prompts: how many prompts it is for.
  """

  lam_P: np.ndarray
  cost_P: np.ndarray
  share_PM: np.ndarray
  num_prompts: int

  def accumulate(self, value_NM: np.ndarray) -> np.ndarray:
    """Expected mean over prompts of the chosen arm's value, at every point."""
    return self.share_PM @ value_NM.mean(axis=0)

  def share(self, mix: path.Mix) -> np.ndarray:
    """share_NM, the probability of each arm for each prompt."""
    share_M = (1 - mix.next_frac) * self.share_PM[mix.point]
    if mix.next_frac:
      share_M = share_M + mix.next_frac * self.share_PM[mix.point + 1]
    return np.tile(share_M, (self.num_prompts, 1))


@dataclasses.dataclass(frozen=True)
class Curve:
  """A policy on the complete test prompts of a split, along λ.

  Attributes:
    path: its decisions.
    predicted_P: mean reward that the policy itself expects.
    regret_P: mean regret (4.2), against the best observed reward.
    spent_P: realised mean cost. path.cost_P is what decisions go by.
  """

  path: path.LambdaPath | BlindPath
  predicted_P: np.ndarray
  regret_P: np.ndarray
  spent_P: np.ndarray


def curves(split: split_lib.Split) -> dict[str, Curve]:
  """Curves by policy name.

  `erp`: (4.4) on the predictions. `same:<model>`: one point each.
  `static_mixture`: upper hull of the training means over cost. `random`:
  uniform over arms. `permuted`: ERP's decisions dealt to other prompts.
  `per_category`: the λ path over training category means, told the true
  category. Random ones are expected values, in closed form.
  """
  complete_N = split.complete_N
  num = int(complete_N.sum())
  num_models = len(split.models)
  prediction_NM = split.prediction_NM[complete_N]
  category_mean_NM = split.category_mean_NM()
  mean_NM = np.tile(split.train_mean_M, (num, 1))
  erp = path.trace(prediction_NM, split.cost_M)
  hull = path.trace(split.train_mean_M[None], split.cost_M)

  def blind(lam_P, share_PM):
    return BlindPath(lam_P, share_PM @ split.cost_M, share_PM, num)

  result = {'erp': _curve(split, erp, prediction_NM)}
  for name, share_M in zip(split.models, np.eye(num_models), strict=True):
    result[f'same:{name}'] = _curve(
      split, blind(np.zeros(1), share_M[None]), mean_NM
    )
  result['static_mixture'] = _curve(
    split, blind(hull.lam_P, hull.share_PM), mean_NM
  )
  result['random'] = _curve(
    split,
    blind(np.zeros(1), np.full((1, num_models), 1 / num_models)),
    mean_NM,
  )
  result['permuted'] = _curve(
    split, blind(erp.lam_P, erp.share_PM), prediction_NM
  )
  result['per_category'] = _curve(
    split, path.trace(category_mean_NM, split.cost_M), category_mean_NM
  )
  return result


def spent(split: split_lib.Split) -> np.ndarray:
  """Cost of each answer on complete test prompts; cost_M where not recorded."""
  spent_NM = split.spent_NM[split.complete_N]
  return np.where(np.isfinite(spent_NM), spent_NM, split.cost_M)


def _curve(
  split: split_lib.Split,
  lam_path: path.LambdaPath | BlindPath,
  prediction_NM: np.ndarray,
) -> Curve:
  reward_NM = split.reward_NM[split.complete_N]
  oracle = reward_NM.max(axis=1).mean()
  return Curve(
    path=lam_path,
    predicted_P=lam_path.accumulate(prediction_NM),
    regret_P=oracle - lam_path.accumulate(reward_NM),
    spent_P=lam_path.accumulate(spent(split)),
  )
