"""How often each arm is the best one, in truth and as predicted.

The paper's Figures 4 and 9, and what Proposition 1 is judged with.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erp_jax.core import config as config_lib
from erp_jax.core import errors, resample
from erp_jax.probe import ceiling
from erp_jax.route import split as split_lib
from erp_jax.route import winprob

# Values this near, of the largest magnitude, differ by rounding alone: means of
# equal rewards, and what is predicted where all are equal.
_TIED = 1e-11
_NODES = 64  # Of Gauss-Hermite quadrature: error 2e-5 where variances are 16:1.
GAPS = ('samples', 'other_half', 'known', 'predicted')


@dataclasses.dataclass(frozen=True, kw_only=True)
class WinRatesConfig:
  """Win shares (PAPER.md 16) and Proposition 1."""

  # 'means': on each prompt the arm of the highest mean reward wins; 'samples':
  # the one whose sample is rewarded best, one sample drawn from each arm.
  win_share: str = 'means'
  # {reward model: (lowest, highest) reward}, for Hoeffding's proxy. One that is
  # not here has no bounds, as raw logits have none.
  bounds: dict[str, tuple[float, ...]] = dataclasses.field(
    default_factory=lambda: {'correct01': (0.0, 1.0)}
  )
  # The two arms of the figure; () takes the best one in training and the
  # cheapest (if that is the best one itself, the best of the others).
  pair: tuple[str, ...] = ()
  # What the figure's gap ER_1 - ER_0 is: 'samples', the means of the samples
  # that the win rate is of; 'other_half', of the other samples; 'known', of
  # simulated rewards; 'predicted' by the ridge. 'best_known' is 'known' where
  # it is, 'samples' where there are several, otherwise 'predicted'.
  gap: str = 'best_known'
  groups: int = 12  # Of prompts of like gaps, equally many in each.

  def __post_init__(self):
    for name, allowed in (
      ('win_share', ('means', 'samples')),
      ('gap', ('best_known', *GAPS)),
    ):
      errors.check_choice(f'winrates.{name}', getattr(self, name), allowed)
    for reward, bounds in self.bounds.items():
      if len(bounds) != 2:
        raise errors.UserError(
          f'winrates.bounds.{reward} is {bounds}: give the lowest and the '
          'highest reward.'
        )
      winprob.hoeffding_proxy(*bounds)
    if len(self.pair) not in (0, 2) or len(set(self.pair)) < len(self.pair):
      raise errors.UserError(
        f'winrates.pair is {self.pair}: name two different arms, or none.'
      )
    errors.check_least('winrates.groups', self.groups, 2)

  def proxy(self, reward: str, reward_NKM: np.ndarray) -> float:
    """Hoeffding's proxy of a reward model; NaN for one without bounds.

    UserError for a reward that is out of bounds.
    """
    if reward not in self.bounds:
      return float('nan')
    low, high = self.bounds[reward]
    found = reward_NKM[np.isfinite(reward_NKM)]
    if len(found) and not low <= found.min() <= found.max() <= high:
      raise errors.UserError(
        f'winrates.bounds.{reward} is ({low}, {high}), but its rewards run '
        f'from {found.min():.4g} to {found.max():.4g}: widen the bounds.'
      )
    return winprob.hoeffding_proxy(low, high)


def choose_pair(
  pair: Sequence[str],
  arms: Sequence[str],
  train_mean_NM: np.ndarray,
  cost_NM: np.ndarray,
) -> tuple[int, int]:
  """Indices of the config's pair, the lower one first.

  By default the highest mean training reward, and the lowest mean cost; of
  equals the first. UserError for a name that is not an arm's.
  """
  for name in pair:
    if name not in arms:
      raise errors.UserError(
        f'winrates.pair names {name!r}; {config_lib.did_you_mean(name, arms)}'
      )
  if pair:
    first, second = sorted(arms.index(name) for name in pair)
    return first, second
  mean_M, cost_M = (
    np.where(np.isfinite(value_NM), value_NM, 0.0).sum(axis=0)
    / np.maximum(np.isfinite(value_NM).sum(axis=0), 1)
    for value_NM in (train_mean_NM, cost_NM)
  )
  mean_M[~np.isfinite(train_mean_NM).any(axis=0)] = -np.inf
  cost_M[~np.isfinite(cost_NM).any(axis=0)] = np.inf
  top = int(np.argmax(mean_M))
  other = int(np.argmin(cost_M))
  if other == top:
    mean_M[top] = -np.inf
    other = int(np.argmax(mean_M))
    if other == top:  # No other arm has a reward.
      other = int(top == 0)
  return min(top, other), max(top, other)


def best(value_NM: np.ndarray) -> np.ndarray:
  """share_NM: who has the highest value; m tied arms 1/m each.

  Values that differ by rounding alone tie. NaN for a prompt of which a value
  is missing.
  """
  top_N = value_NM.max(axis=1, keepdims=True)
  largest = np.abs(value_NM[np.isfinite(value_NM)]).max(initial=0)
  wins_NM = value_NM >= top_N - _TIED * largest
  with np.errstate(invalid='ignore'):
    share_NM = wins_NM / wins_NM.sum(axis=1, keepdims=True)
  return np.where(np.isfinite(top_N), share_NM, np.nan)


def best_of_samples(reward_NKM: np.ndarray) -> np.ndarray:
  """share_NM: the chance that an arm's sample is the best one, exactly.

  Over one sample of each arm, independently: all K^M choices. m tied samples
  count 1/m each. Samples that are not finite leave; NaN for a prompt of which
  an arm has none.
  """
  num, num_samples, num_arms = reward_NKM.shape
  # Samples of all arms together, ascending; missing ones are last.
  value_NK = np.where(np.isfinite(reward_NKM), reward_NKM, np.nan)
  value_NK = value_NK.reshape(num, num_samples * num_arms)
  order_NK = np.argsort(value_NK, axis=1, kind='stable')
  value_NK = np.take_along_axis(value_NK, order_NK, axis=1)
  known_NK = np.isfinite(value_NK)
  arm_NK = order_NK % num_arms
  count_NKM = np.zeros((*value_NK.shape, num_arms))
  np.put_along_axis(count_NKM, arm_NK[:, :, None], known_NK[:, :, None], axis=2)
  total_NM = count_NKM.sum(axis=1)
  # How many samples of each arm come before each place: first to one past.
  before_NKM = np.zeros((num, value_NK.shape[1] + 1, num_arms))
  np.cumsum(count_NKM, axis=1, out=before_NKM[:, 1:])
  place = np.arange(value_NK.shape[1])
  is_first_NK = np.ones(value_NK.shape, bool)
  is_first_NK[:, 1:] = value_NK[:, 1:] != value_NK[:, :-1]
  start_NK = np.maximum.accumulate(np.where(is_first_NK, place, 0), axis=1)
  is_last_NK = np.concatenate([is_first_NK[:, 1:], np.ones((num, 1), bool)], 1)
  end_NK = np.where(is_last_NK, place + 1, len(place) + 1)[:, ::-1]
  end_NK = np.minimum.accumulate(end_NK, axis=1)[:, ::-1]
  below_NKM, upto_NKM = (
    np.take_along_axis(before_NKM, at_NK[:, :, None], axis=1)
    for at_NK in (start_NK, end_NK)
  )
  with np.errstate(divide='ignore', invalid='ignore'):
    below_NKM = below_NKM / total_NM[:, None]
    equal_NKM = upto_NKM / total_NM[:, None] - below_NKM
  share_NM = np.empty((num, num_arms))
  for m in range(num_arms):
    # Coefficient t of the product is the chance of t ties and nobody above.
    ties = [np.ones(value_NK.shape)]
    for other in range(num_arms):
      if other != m:
        below_NK, equal_NK = below_NKM[:, :, other], equal_NKM[:, :, other]
        ties = [
          below * below_NK + equal * equal_NK
          for below, equal in zip([*ties, 0.0], [0.0, *ties], strict=True)
        ]
    chance_NK = sum(tie / (t + 1) for t, tie in enumerate(ties))
    own_NK = count_NKM[:, :, m] > 0
    share_NM[:, m] = np.where(own_NK, chance_NK, 0.0).sum(axis=1)
  missing_N = (total_NM == 0).any(axis=1)
  share_NM /= np.maximum(total_NM, 1)
  share_NM[missing_N] = np.nan
  return share_NM


def best_of_gaussians(mean_NM: np.ndarray, var_M: np.ndarray) -> np.ndarray:
  """share_NM: the chance that an arm's sample is the best one.

  One sample of each arm, Gaussian around these means, independent. NaN
  variances give NaN; without variance it is `best`.
  """
  if not np.isfinite(var_M).all():
    return np.full(mean_NM.shape, np.nan)
  if not var_M.all():
    if var_M.any():
      raise ValueError(f'variances {var_M}: all or none must be 0.')
    return best(mean_NM)
  node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
  weight = weight / weight.sum()
  sd_M = np.sqrt(var_M)
  share_NM = np.empty(mean_NM.shape)
  for m in range(mean_NM.shape[1]):
    value_NK = mean_NM[:, m, None] + sd_M[m] * node
    chance_NK = np.ones(value_NK.shape)
    for other in range(mean_NM.shape[1]):
      if other != m:
        gap_NK = value_NK - mean_NM[:, other, None]
        chance_NK *= winprob.normal_cdf(gap_NK / sd_M[other])
    share_NM[:, m] = chance_NK @ weight
  return share_NM / share_NM.sum(axis=1, keepdims=True)


def sample_variance(reward_NKM: np.ndarray) -> np.ndarray:
  """var_M: mean variance of an arm's samples; NaN where K = 1 everywhere."""
  cells = ceiling.summarise(reward_NKM)
  several_NM = cells.num_NM > 1
  total_M = np.where(several_NM, cells.var_NM, 0.0).sum(axis=0)
  num_M = several_NM.sum(axis=0)
  var_M = np.full(len(num_M), np.nan)
  return np.divide(total_M, num_M, out=var_M, where=num_M > 0)


def intervals(
  share_NM: Mapping[str, np.ndarray],
  category_N: np.ndarray,
  cfg: resample.BootstrapConfig,
) -> dict[str | None, dict[str, list[dict[str, Any]]]]:
  """{mean, lo, hi} by category (None: all), kind, and arm.

  Kinds are those of `share_NM`, and 'difference', the second minus the first.
  Prompts are drawn again, the same ones for all kinds, which are judged on
  prompts of which none is missing.
  """
  kinds = list(share_NM)
  stacked_NM = np.concatenate(list(share_NM.values()), axis=1)
  known_N = np.isfinite(stacked_NM).all(axis=1)
  stacked_NM, category_N = stacked_NM[known_N], category_N[known_N]
  if not len(stacked_NM):
    return {}
  groups = {None: np.ones(len(category_N), bool)} | {
    category: category_N == category
    for category in split_lib.category_rows(category_N)
  }
  columns = np.concatenate(
    [
      np.where(rows_N[:, None], np.c_[rows_N, stacked_NM], 0.0)
      for rows_N in groups.values()
    ],
    axis=1,
  )
  sums = np.concatenate(
    [columns.sum(axis=0)[None]]
    + [c @ columns for c in resample.draw_counts(len(columns), cfg)]
  ).reshape(-1, len(groups), 1 + stacked_NM.shape[1])
  with np.errstate(invalid='ignore'):
    mean = sums[:, :, 1:] / sums[:, :, :1]
  mean = mean.reshape(len(sums), len(groups), len(kinds), -1)
  # The first draw is the prompts themselves.
  leaf = lambda value_Q: resample.interval(value_Q[0], value_Q[1:])
  result = {}
  for g, category in enumerate(groups):
    by_kind = {kind: mean[:, g, i] for i, kind in enumerate(kinds)}
    if len(kinds) > 1:
      by_kind['difference'] = by_kind[kinds[1]] - by_kind[kinds[0]]
    result[category] = {
      kind: [leaf(column_Q) for column_Q in value_QM.T]
      for kind, value_QM in by_kind.items()
    }
  return result
