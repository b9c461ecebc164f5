"""Regret between two bounds: the best of noisy means is not the best arm.

The maximum over arms of means of K samples is above the maximum of ER, so
plug-in regret (the paper's) is biased up. Choosing the best arm on one half of
the samples and valuing it on the other is biased down, since no arm is better
than the best one (PAPER.md 9). The policy itself is valued without bias in
both. So in expectation plug-in >= regret >= split-half.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import errors, resample
from erp_jax.probe import ceiling, decomposition
from erp_jax.route import curve as curve_lib
from erp_jax.route import evaluate
from erp_jax.route import split as split_lib

NUM_HALVINGS = 20


class Regret(NamedTuple):
  """Regret of each prompt, for means and for the bootstrap over prompts.

  Attributes:
    plug_in_N: against the highest mean: an upper bound, in expectation.
    split_half_N: a lower bound, in expectation; NaN where not available.
  """

  plug_in_N: np.ndarray
  split_half_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Oracle:
  """The value of the best arm, estimated in both ways, for any policy.

  Attributes:
    rows: the prompts, as indices: those with two samples or more of every arm.
      If there are none, those with one sample or more.
    mean_NM: mean rewards of these.
    best_N: the highest of them.
    half_mean_NM: means over the halves, averaged over the halvings; `mean_NM`
      itself where the numbers of samples are even. NaN where not available.
    half_best_N: value on one half of the arm that is best on the other.
    num_left_out: prompts not in `rows`.
    reason: why the split-half values are not available; empty if they are.
  """

  rows: np.ndarray
  mean_NM: np.ndarray
  best_N: np.ndarray
  half_mean_NM: np.ndarray
  half_best_N: np.ndarray
  num_left_out: int
  reason: str = ''

  def regret(self, share_NM: np.ndarray) -> Regret:
    """Of a policy: share_NM, the probability of each arm, for `rows`."""
    if share_NM.shape != self.mean_NM.shape:
      raise ValueError(
        f'shares are {share_NM.shape}, rewards are {self.mean_NM.shape}.'
      )
    return Regret(
      self.best_N - (share_NM * self.mean_NM).sum(axis=1),
      self.half_best_N - (share_NM * self.half_mean_NM).sum(axis=1),
    )


def estimate(
  reward_NKM: np.ndarray, *, seed: int = 0, num_halvings: int = NUM_HALVINGS
) -> Oracle:
  """Both estimates from the samples; those that are not finite leave.

  Every halving cuts each cell's own samples into two halves, an odd one going
  to either side, and uses each half once to choose and once to value. Arms
  that tie on the choosing half share the choice.
  Raises UserError where no prompt has a sample of every arm.
  """
  if num_halvings < 1:
    raise errors.UserError(f'num_halvings is {num_halvings}; give 1 or more.')
  used_NKM = np.isfinite(reward_NKM)
  fewest_N = used_NKM.sum(axis=1).min(axis=1)
  if not (fewest_N > 0).any():
    raise errors.UserError(
      'no prompt has a sample of every arm; leave out the arm with the fewest.'
    )
  reason = ''
  needed = 2
  if not (fewest_N > 1).any():
    reason = 'K = 1: halves need two samples of every arm'
    needed = 1
  rows = np.flatnonzero(fewest_N >= needed)
  # Samples first: every operation below runs along contiguous prompts and arms.
  used_KNM = np.ascontiguousarray(used_NKM[rows].swapaxes(0, 1))
  reward_KNM = np.where(used_KNM, reward_NKM[rows].swapaxes(0, 1), 0.0)
  num_NM = used_KNM.sum(axis=0)
  sum_NM = reward_KNM.sum(axis=0)
  mean_NM = sum_NM / num_NM
  half_mean_NM = np.zeros(mean_NM.shape)
  half_best_N = np.zeros(len(rows))
  if reason:
    half_mean_NM[:] = np.nan
    half_best_N[:] = np.nan
  else:
    rng = np.random.default_rng(seed)
    for _ in range(num_halvings):
      order = rng.permutation(len(reward_KNM))
      first_sum_NM = _sum_of_half(reward_KNM, used_KNM, num_NM // 2, order)
      first_NM = first_sum_NM / (num_NM // 2)
      second_NM = (sum_NM - first_sum_NM) / (num_NM - num_NM // 2)
      half_mean_NM += (first_NM + second_NM) / 2
      half_best_N += _value_of_best(first_NM, second_NM) / 2
      half_best_N += _value_of_best(second_NM, first_NM) / 2
    half_mean_NM /= num_halvings
    half_best_N /= num_halvings
  return Oracle(
    rows=rows,
    mean_NM=mean_NM,
    best_N=mean_NM.max(axis=1),
    half_mean_NM=half_mean_NM,
    half_best_N=half_best_N,
    num_left_out=len(reward_NKM) - len(rows),
    reason=reason,
  )


def shrunken_best(reward_NKM: np.ndarray) -> np.ndarray:
  """best_N: the highest of the arms' means, shrunken by their noise.

  What an arm has on a prompt beyond the two main effects is multiplied by its
  reliability, interaction / (interaction + noise), of the variances estimated
  here. The highest posterior mean is at most the posterior mean of the highest
  ER: so this is biased down where the plug-in is biased up. NaN where noise is
  unknown (K = 1). Every prompt needs a sample of every arm.
  """
  cells = ceiling.summarise(reward_NKM)
  parts = decomposition.decompose(cells)
  present_NM = np.isfinite(cells.mean_NM)
  noise_NM = decomposition.contrast_noise(cells.noise_NM, present_NM)
  prompt_N = cells.mean_NM.mean(axis=1)
  arm_M = cells.mean_NM.mean(axis=0) - prompt_N.mean()
  rest_NM = cells.mean_NM - prompt_N[:, None] - arm_M
  signal = max(parts.interaction, 0.0)
  with np.errstate(invalid='ignore'):
    reliability_NM = np.where(
      noise_NM + signal > 0, signal / (noise_NM + signal), 1.0
    )
  reliability_NM[np.isnan(noise_NM)] = np.nan
  return prompt_N + (arm_M + reliability_NM * rest_NM).max(axis=1)


def intervals(
  split: split_lib.Split,
  curves: Mapping[str, curve_lib.Curve],
  reward_NKM: np.ndarray,
  er_NM: np.ndarray | None,
  shrinkage: bool,
  cfg: resample.BootstrapConfig,
) -> dict[str, Any]:
  """{estimate: {policy: {budget: {mean, lo, hi}}}} of regret, where feasible.

  Beside them `reason`, as in Oracle, and how many prompts there are. Estimates
  are plug_in and split_half; with `shrinkage`, against `shrunken_best`; and
  true, where `er_NM`, the known ER, is given. Regret is of the reward alone.
  `reward_NKM` and `er_NM` are of the split's test prompts.
  """
  complete = np.flatnonzero(split.complete_N)
  oracle = estimate(reward_NKM[complete])
  shrunken_N = known_NM = None
  if shrinkage:
    shrunken_N = shrunken_best(reward_NKM[complete][oracle.rows])
  if er_NM is not None:
    known_NM = er_NM[complete][oracle.rows]
  reference = split.cost_M[split.best_arm]
  columns = {}
  for policy, curve in curves.items():
    for key, budget in evaluate.BUDGETS.items():
      if not curve.is_feasible(budget * reference):
        continue
      share_NM = curve.share(budget * reference)[oracle.rows]
      regret = oracle.regret(share_NM)
      columns['plug_in', policy, key] = regret.plug_in_N
      columns['split_half', policy, key] = regret.split_half_N
      if shrunken_N is not None:
        value_N = (share_NM * oracle.mean_NM).sum(axis=1)
        columns['shrunken', policy, key] = shrunken_N - value_N
      if known_NM is not None:
        value_N = (share_NM * known_NM).sum(axis=1)
        columns['true', policy, key] = known_NM.max(axis=1) - value_N
  values = np.stack(list(columns.values()), axis=1)
  draws = np.concatenate(
    [counts_QN @ values for counts_QN in resample.draw_counts(len(values), cfg)]
  ) / len(values)
  result: dict[str, Any] = {
    'reason': oracle.reason,
    'num_prompts': len(oracle.rows),
    'num_left_out': oracle.num_left_out,
  }
  for i, (kind, policy, key) in enumerate(columns):
    leaf = resample.interval(values[:, i].mean(), draws[:, i])
    result.setdefault(kind, {}).setdefault(policy, {})[key] = leaf
  return result


def _sum_of_half(
  reward_KNM: np.ndarray,
  used_KNM: np.ndarray,
  size_NM: np.ndarray,
  order: np.ndarray,
) -> np.ndarray:
  """Sum over the first `size_NM` samples that a cell has, in this order.

  One order for all cells: their samples are independent, so that is as random
  as an order each.
  """
  sum_NM = np.zeros(size_NM.shape)
  taken_NM = np.zeros(size_NM.shape, np.int64)
  for k in order:
    takes_NM = used_KNM[k] & (taken_NM < size_NM)
    sum_NM += np.where(takes_NM, reward_KNM[k], 0.0)
    taken_NM += takes_NM
  return sum_NM


def _value_of_best(
  choosing_NM: np.ndarray, valuing_NM: np.ndarray
) -> np.ndarray:
  """Value of the highest arm of the one in the other; ties are averaged."""
  best_NM = choosing_NM == choosing_NM.max(axis=1, keepdims=True)
  return (best_NM * valuing_NM).sum(axis=1) / best_NM.sum(axis=1)
