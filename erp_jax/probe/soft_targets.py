"""What Zooter learns to predict: rewards softened into shares of the arms."""

from collections.abc import Sequence

import numpy as np

from erp_jax.probe import targets


def soften(
  reward_NKM: np.ndarray,
  *,
  tau: float = 1.0,
  average: str = 'mean',
  category_weight: float = 0.0,
  category_N: Sequence[str] = (),
) -> np.ndarray:
  """target_NM, float64: what each prompt's arms should get, with sum 1.

  softmax(ÊR / τ) with average='mean', the mean over k of softmax(r_k / τ) with
  'samples'. `category_weight` is the share of the prompt's category's mean
  reward, over the prompts given here, that replaces each reward.

  A reward that is not finite is missing; an arm without any on a prompt is
  absent there: NaN, and the softmax is over the others. With 'samples' those k
  count in which every present arm has a reward. A prompt with fewer than two
  arms, or no such k, has nothing to teach: NaN throughout.
  """
  reward_NKM = np.asarray(reward_NKM, np.float64)
  finite_NKM = np.isfinite(reward_NKM)
  reward_NKM = np.where(finite_NKM, reward_NKM, np.nan)
  mean_NM = targets.expected_reward(reward_NKM, finite_NKM).mean_NM
  present_NM = np.isfinite(mean_NM)
  if category_weight:
    shared_NM = _category_means(mean_NM, category_N)
    own = 1 - category_weight
    mean_NM = own * mean_NM + category_weight * shared_NM
    reward_NKM = own * reward_NKM + category_weight * shared_NM[:, None, :]
  if average == 'mean':
    target_NM = _softmax(mean_NM / tau, present_NM)
  else:
    whole_NK = (finite_NKM | ~present_NM[:, None, :]).all(axis=2)
    share_NKM = _softmax(reward_NKM / tau, finite_NKM & whole_NK[:, :, None])
    target_NM = targets.expected_reward(
      share_NKM, np.isfinite(share_NKM)
    ).mean_NM
  target_NM[present_NM.sum(axis=1) < 2] = np.nan
  return target_NM


def _category_means(
  mean_NM: np.ndarray, category_N: Sequence[str]
) -> np.ndarray:
  """Each prompt's category's mean over the prompts that have the arm."""
  category_N = np.asarray(category_N)
  shared_NM = np.empty(mean_NM.shape)
  for category in np.unique(category_N):
    rows_N = category_N == category
    group = mean_NM[rows_N][None]
    shared_NM[rows_N] = targets.expected_reward(
      group, np.isfinite(group)
    ).mean_NM
  return shared_NM


def _softmax(logits: np.ndarray, present: np.ndarray) -> np.ndarray:
  """Over the last axis, of what is present; NaN elsewhere."""
  logits = np.where(present, logits, -np.inf)
  peak = logits.max(axis=-1, keepdims=True)
  weight = np.exp(logits - np.where(np.isfinite(peak), peak, 0.0))
  result = np.full(weight.shape, np.nan)
  total = weight.sum(axis=-1, keepdims=True)
  return np.divide(weight, total, out=result, where=present)
