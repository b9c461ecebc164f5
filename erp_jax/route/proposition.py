"""Proposition 1 against what happens: win rates of prompts by their gap.

Axis I is that of pairs of arms in `pairwise.arm_pairs`'s order; where the
samples are halved each pair is there twice, once in either direction.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import ceiling, pairwise
from erp_jax.route import winprob

# Bounds by what σ² is: Hoeffding's proxy; the variance of simulated Gaussian
# noise; the samples' variance, which is no proxy.
HOEFFDING, KNOWN, VARIANCE = 'hoeffding', 'known', 'variance'
_ANY = '_any'  # Of responses that may depend on each other.
_CHANCE = 0.05  # How often a true bound looks broken by the samples alone.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
  """What is known of N prompts; NaN where it is not.

  Attributes:
    reward_NKM: samples.
    prediction_NM: predicted rewards.
    er_NM: known ER, of simulated rewards.
    noise_sd_N: known standard deviation of their Gaussian noise.
    proxy: Hoeffding's, of bounded rewards.
  """

  reward_NKM: np.ndarray
  prediction_NM: np.ndarray
  er_NM: np.ndarray
  noise_sd_N: np.ndarray
  proxy: float

  def missing(self, gap: str) -> str:
    """Why the gap is not to be had; empty if it is."""
    single = (np.isfinite(self.reward_NKM).sum(axis=1) <= 1).all()
    if gap == 'known' and not np.isfinite(self.er_NM).any():
      return 'ER is known of simulated rewards alone'
    if gap == 'samples' and single:
      return 'K = 1: gap and win would be of the same two answers'
    if gap == 'other_half' and single:
      return 'K = 1: there is no other half'
    return ''


class Rates(NamedTuple):
  """Arm 1 against arm 0 of each prompt and pair, so named that gap >= 0.

  Attributes:
    gap_NI: d; NaN where any of the others is missing too.
    strict_NI, half_ties_NI: empirical win rates, of all pairs of samples.
    plug_in_NI: Φ(d / sqrt(s_0² + s_1²)).
    bounds: bound_NI by what σ² is; with '_any' however dependent.
    num_NI: samples of the arm that has fewer.
    reason: why plug_in_NI and the bound of VARIANCE are not available.
  """

  gap_NI: np.ndarray
  strict_NI: np.ndarray
  half_ties_NI: np.ndarray
  plug_in_NI: np.ndarray
  bounds: dict[str, np.ndarray]
  num_NI: np.ndarray
  reason: str = ''

  def take(self, columns: np.ndarray) -> 'Rates':
    """Those pairs alone."""
    return Rates(
      *(array[:, columns] for array in self[:4]),
      {name: bound_NI[:, columns] for name, bound_NI in self.bounds.items()},
      self.num_NI[:, columns],
      self.reason,
    )


def rates(evidence: Evidence, gap: str) -> Rates:
  """Win rates of all pairs, by the gap that `WinRatesConfig.gap` names.

  Variances are of all samples, also where the gap is of half of them. Raises
  ValueError for a gap that is missing.
  """
  if reason := evidence.missing(gap):
    raise ValueError(f'gap {gap!r}: {reason}.')
  reward_NKM = evidence.reward_NKM
  if gap == 'other_half':
    halves = reward_NKM[:, ::2], reward_NKM[:, 1::2]
    sides = [
      (ceiling.summarise(one_NKM).mean_NM, other_NKM)
      for one_NKM, other_NKM in (halves, halves[::-1])
    ]
  else:
    value_NM = {
      'samples': ceiling.summarise(reward_NKM).mean_NM,
      'known': evidence.er_NM,
      'predicted': evidence.prediction_NM,
    }[gap]
    sides = [(value_NM, reward_NKM)]
  var_NM = ceiling.summarise(reward_NKM).var_NM
  known_sd_N = evidence.noise_sd_N if gap == 'known' else np.array([np.nan])
  parts = [
    _rates(value_NM, r_NKM, var_NM, evidence.proxy, known_sd_N)
    for value_NM, r_NKM in sides
  ]
  join = lambda arrays: np.concatenate(list(arrays), axis=1)
  return Rates(
    *(join(arrays) for arrays in list(zip(*parts, strict=True))[:4]),
    {
      name: join(part.bounds[name] for part in parts)
      for name in parts[0].bounds
    },
    join(part.num_NI for part in parts),
    parts[0].reason,
  )


def _rates(value_NM, reward_NKM, var_NM, proxy, known_sd_N) -> Rates:
  first, second = np.array(pairwise.arm_pairs(value_NM.shape[1])).T
  signed_NI = pairwise.margins(value_NM)
  strict_NI, half_NI = np.empty((2, *signed_NI.shape))
  for index, (i, j) in enumerate(zip(first, second, strict=True)):
    strict_NI[:, index], half_NI[:, index] = winprob.win_rate(
      reward_NKM[:, :, i], reward_NKM[:, :, j]
    )
  known_NI = np.isfinite(signed_NI) & np.isfinite(strict_NI)
  # The other arm's wins are what neither this one's wins nor ties are.
  swap_NI = signed_NI < 0
  strict_NI = np.where(swap_NI, 1 - 2 * half_NI + strict_NI, strict_NI)
  half_NI = np.where(swap_NI, 1 - half_NI, half_NI)
  gap_NI = np.where(known_NI, np.abs(signed_NI), np.nan)
  var = var_NM[:, first], var_NM[:, second]
  reason = ''
  if not np.isfinite((var[0] + var[1])[known_NI]).all():
    reason = 'K = 1: one sample has no variance'
    var = np.full(gap_NI.shape, np.nan), np.full(gap_NI.shape, np.nan)
  proxies = {HOEFFDING: (proxy, proxy), VARIANCE: var}
  known_var = np.broadcast_to(known_sd_N[:, None] ** 2, gap_NI.shape)
  proxies[KNOWN] = known_var, known_var
  bounds = {}
  for name, (proxy_1, proxy_0) in proxies.items():
    if np.isfinite(proxy_1).any():
      bounds[name] = winprob.independent_bound(gap_NI, proxy_1, proxy_0)
      bounds[name + _ANY] = winprob.any_bound(gap_NI, proxy_1, proxy_0)
  num_NM = np.isfinite(reward_NKM).sum(axis=1)
  return Rates(
    gap_NI=gap_NI,
    strict_NI=strict_NI,
    half_ties_NI=half_NI,
    plug_in_NI=winprob.plug_in(gap_NI, *var),
    bounds=bounds,
    num_NI=np.minimum(num_NM[:, first], num_NM[:, second]),
    reason=reason,
  )


def beyond_chance(
  rate: np.ndarray, bound: np.ndarray, num: np.ndarray
) -> np.ndarray:
  """Whether a rate is so far below a bound that samples explain it rarely.

  Were the chance of a win the bound itself, at most 5 % of prompts would be:
  Chernoff's inequality, which holds for U-statistics with the smaller number
  of samples (Hoeffding, 1963).
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    won = np.where(rate > 0, rate * np.log(rate / bound), 0.0)
    lost = np.where(rate < 1, (1 - rate) * np.log((1 - rate) / (1 - bound)), 0)
  return (rate < bound) & (num * (won + lost) > -math.log(_CHANCE))


def summarise(
  found: Rates, cfg: resample.BootstrapConfig
) -> dict[str, dict[str, Any]]:
  """{mean, lo, hi} of what a table says, prompts drawn again.

  'tied'; 'strict_error' and 'half_ties_error', the mean |Φ - rate|, and
  'strict_bias' and 'half_ties_bias', that of Φ - rate; of each bound 'NAME
  below', 'NAME beyond' chance, and 'NAME margin', the mean of strict rate
  minus bound.
  """
  values = {'tied': 2 * (found.half_ties_NI - found.strict_NI)}
  for name in ('strict', 'half_ties'):
    off_NI = found.plug_in_NI - getattr(found, f'{name}_NI')
    values[f'{name}_error'] = np.abs(off_NI)
    values[f'{name}_bias'] = off_NI
  for name, bound_NI in found.bounds.items():
    values[f'{name} below'] = 1.0 * (found.strict_NI < bound_NI)
    values[f'{name} beyond'] = 1.0 * beyond_chance(
      found.strict_NI, bound_NI, found.num_NI
    )
    values[f'{name} margin'] = found.strict_NI - bound_NI
  known_NI = np.isfinite(found.gap_NI)
  return _means({name: (v_NI, known_NI) for name, v_NI in values.items()}, cfg)


def groups(
  found: Rates, num: int, cfg: resample.BootstrapConfig
) -> list[dict[str, Any]]:
  """Prompts (and pairs) of like gaps, from small to large.

  Of each group {mean, lo, hi} of 'gap', 'strict', 'half_ties', 'plug_in' and
  each bound, and the number of its 'rows'. Equal gaps stay together, so there
  may be fewer groups than asked for.
  """
  known_NI = np.isfinite(found.gap_NI)
  if not known_NI.any():
    return []
  gaps = found.gap_NI[known_NI]
  edges = np.unique(np.quantile(gaps, np.linspace(0, 1, num + 1)[1:-1]))
  group_NI = np.searchsorted(edges, found.gap_NI, side='right')
  values = {
    'gap': found.gap_NI,
    'strict': found.strict_NI,
    'half_ties': found.half_ties_NI,
    'plug_in': found.plug_in_NI,
    **found.bounds,
  }
  rows = [known_NI & (group_NI == g) for g in range(len(edges) + 1)]
  rows = [rows_NI for rows_NI in rows if rows_NI.any()]
  leaves = _means(
    {
      (g, name): (value_NI, rows_NI)
      for g, rows_NI in enumerate(rows)
      for name, value_NI in values.items()
    },
    cfg,
  )
  return [
    {'rows': int(rows_NI.sum()), **{name: leaves[g, name] for name in values}}
    for g, rows_NI in enumerate(rows)
  ]


def binned_error(binned: list[dict[str, Any]], rate: str) -> float:
  """Mean over rows of their group's |mean Φ - mean rate|; NaN if unknown."""
  rows = sum(group['rows'] for group in binned)
  if not rows or binned[0]['plug_in']['mean'] is None:
    return math.nan
  off = (
    group['rows'] * abs(group['plug_in']['mean'] - group[rate]['mean'])
    for group in binned
  )
  return sum(off) / rows


def _means(
  values: Mapping[Any, tuple[np.ndarray, np.ndarray]],
  cfg: resample.BootstrapConfig,
) -> dict[Any, dict[str, Any]]:
  """Means of each (value_NI, rows_NI) over its rows.

  Prompts are drawn again, with all of their pairs.
  """
  drawn = np.any(
    [rows_NI.any(axis=1) for _, rows_NI in values.values()], axis=0
  )
  if not drawn.any():
    return {name: resample.undefined() for name in values}
  columns = []
  for value_NI, rows_NI in values.values():
    rows_NI = rows_NI[drawn]
    columns.append(rows_NI.sum(axis=1))
    columns.append(np.where(rows_NI, value_NI[drawn], 0.0).sum(axis=1))
  columns = np.stack(columns, axis=1)
  sums = [columns.sum(axis=0)[None]]
  sums += [c @ columns for c in resample.draw_counts(len(columns), cfg)]
  sums = np.concatenate(sums)
  with np.errstate(invalid='ignore'):  # A draw may have no row of a group.
    mean = sums[:, 1::2] / sums[:, ::2]
  return {
    name: resample.interval(mean[0, i], mean[1:, i])
    for i, name in enumerate(values)
  }
