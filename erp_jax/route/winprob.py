"""Proposition 1: how likely an arm of higher ER gives the better answer.

The chance that a response of arm 1 is rewarded above one of arm 0, from their
gap d = ER_1 - ER_0: two lower bounds, a plug-in, and the empirical rate.
"""

import math

import numpy as np

from erp_jax.core import errors


def win_rate(
  reward_1_NK: np.ndarray, reward_0_NK: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """strict_N and half_ties_N: the U-statistics, unbiased for P(r_1 > r_0).

  The share of all pairs of one sample each in which r_1 > r_0, and the same
  with equal rewards counted one half. The arms may have different numbers of
  samples; those that are not finite leave. NaN where an arm has none.
  """
  reward_1_NK, reward_0_NK = (
    np.where(np.isfinite(reward_NK), reward_NK, np.nan)
    for reward_NK in (reward_1_NK, reward_0_NK)
  )
  wins_N = np.zeros(len(reward_1_NK))
  ties_N = np.zeros(len(reward_1_NK))
  for k in range(reward_1_NK.shape[1]):  # NaN is neither above nor equal.
    wins_N += (reward_1_NK[:, k, None] > reward_0_NK).sum(axis=1)
    ties_N += (reward_1_NK[:, k, None] == reward_0_NK).sum(axis=1)
  pairs_N = np.isfinite(reward_1_NK).sum(axis=1) * np.isfinite(reward_0_NK).sum(
    axis=1
  )
  rates = np.full((2, len(pairs_N)), np.nan)
  np.divide(wins_N, pairs_N, out=rates[0], where=pairs_N > 0)
  np.divide(wins_N + ties_N / 2, pairs_N, out=rates[1], where=pairs_N > 0)
  return rates[0], rates[1]


def independent_bound(
  gap_N: np.ndarray, proxy_1: np.ndarray, proxy_0: np.ndarray
) -> np.ndarray:
  """1 - exp(-d² / (2 (σ_0² + σ_1²))) <= P(r_1 > r_0): independent responses.

  With equal proxies 1 - exp(-d² / (4σ²)). A proxy is a σ² for which the reward
  is σ²-subgaussian: `hoeffding_proxy`, or a Gaussian's variance. A sample's
  variance is none. For d < 0, which the proposition leaves out, the bound is 0.
  """
  return _bound(gap_N, 2 * (np.asarray(proxy_1, np.float64) + proxy_0))


def any_bound(
  gap_N: np.ndarray, proxy_1: np.ndarray, proxy_0: np.ndarray
) -> np.ndarray:
  """1 - exp(-d² / (2 (σ_0 + σ_1)²)) <= P(r_1 > r_0): however dependent.

  With equal proxies 1 - exp(-d² / (8σ²)); otherwise as `independent_bound`.
  """
  return _bound(gap_N, 2 * (np.sqrt(proxy_1) + np.sqrt(proxy_0)) ** 2)


def hoeffding_proxy(low: float, high: float) -> float:
  """(high - low)² / 4: a proxy of every reward that lies in [low, high].

  Raises UserError unless low < high, both finite: raw logits have no bounds.
  """
  if not (math.isfinite(low) and math.isfinite(high) and low < high):
    raise errors.UserError(
      f'rewards in [{low}, {high}]: give two finite bounds, the lower first.'
    )
  return (high - low) ** 2 / 4


def plug_in(
  gap_N: np.ndarray, var_1_N: np.ndarray, var_0_N: np.ndarray
) -> np.ndarray:
  """Φ(d / sqrt(s_0² + s_1²)); without variance 1, 1/2 or 0 by the sign of d."""
  scale_N = np.sqrt(np.asarray(var_1_N, np.float64) + var_0_N)
  gap_N = np.asarray(gap_N, np.float64)
  with np.errstate(divide='ignore', invalid='ignore'):
    z_N = np.where((scale_N == 0) & (gap_N == 0), 0.0, gap_N / scale_N)
  return normal_cdf(z_N)


def normal_cdf(z: np.ndarray) -> np.ndarray:
  """Φ(z), of any shape."""
  # erfc, not 1 - erf: it keeps the digits of small probabilities.
  return np.vectorize(math.erfc, otypes=[np.float64])(-z / math.sqrt(2)) / 2


def _bound(gap_N: np.ndarray, scale_N: np.ndarray) -> np.ndarray:
  """1 - exp(-d² / scale), 0 for d <= 0, NaN for NaN."""
  gap_N = np.asarray(gap_N, np.float64)
  with np.errstate(divide='ignore', invalid='ignore'):
    exponent_N = gap_N**2 / scale_N  # Infinite without variance.
  return np.where(gap_N <= 0, 0.0, -np.expm1(-exponent_N))
