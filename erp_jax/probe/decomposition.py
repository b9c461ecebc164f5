"""Where rewards vary: by prompt, by arm, and by both; routing uses the last.

reward = mean + prompt + arm + interaction + noise of the sample. Prompts are
drawn from a population, the arms are these ones. Adding any g(prompt) to all
rewards moves the prompt's part alone: contrasts between arms stay.
"""

import dataclasses

import numpy as np

from erp_jax.probe import ceiling, scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decomposition:
  """Variances in squared units of reward; those of ER without sampling noise.

  Per (prompt, arm) with arms drawn uniformly, so that prompt, arm, interaction
  and noise add up to the variance of one reward. Unbiased, hence sometimes
  below 0. NaN where there is a reason.

  Attributes:
    prompt: of the mean over arms.
    arm: of the arms' means over prompts, by the number of arms.
    interaction: of the rest: what an arm is better on one prompt than another.
    noise: of single samples about their (prompt, arm)'s mean.
    prompt_upper, interaction_upper: the same with the noise of the K samples'
      mean left in; there even where K = 1.
    num_prompts: prompts with rewards of all arms; the others are left out.
    num_pooled: cells of these with one sample (see ceiling.Cells).
    reason: why the noise, or anything, is not available; empty if it is.
  """

  prompt: float
  arm: float
  interaction: float
  noise: float
  prompt_upper: float
  interaction_upper: float
  num_prompts: int
  num_pooled: int
  reason: str = ''


def decompose(cells: ceiling.Cells) -> Decomposition:
  """The parts, from means and variances of cells with any numbers of samples.

  Sums of squares of the cells' unweighted means, minus what the noise of each
  cell, s²/K with its own K, adds to them in expectation.
  """
  complete_N = (cells.num_NM > 0).all(axis=1)
  mean_NM = cells.mean_NM[complete_N]
  noise = cells.noise_NM[complete_N].mean() if complete_N.any() else np.nan
  num, num_models = mean_NM.shape
  reason = ''
  if not np.isfinite(noise):
    reason = 'K = 1: one sample says nothing about the noise'
  if num < 2:
    reason = f'{num} prompts have rewards of all arms, a variance needs 2'
  if num_models < 2:
    reason = 'one arm: there is nothing to compare'
  if num < 2 or num_models < 2:
    prompt = arm = interaction = np.nan
  else:
    prompt_N = mean_NM.mean(axis=1)
    arm_M = mean_NM.mean(axis=0)
    rest_NM = mean_NM - prompt_N[:, None] - arm_M + arm_M.mean()
    prompt = prompt_N.var(ddof=1)
    interaction = (rest_NM**2).sum() / (num - 1) / num_models
    # Arms' means over N prompts scatter by interaction / N about the truth.
    arm = arm_M.var() - interaction / num
  clean = np.nan if reason else noise
  return Decomposition(
    prompt=float(prompt - clean / num_models),
    arm=float(arm),
    interaction=float(interaction - clean * (1 - 1 / num_models)),
    noise=float(np.nan if reason else cells.var_NM[complete_N].mean()),
    prompt_upper=float(prompt),
    interaction_upper=float(interaction),
    num_prompts=num,
    num_pooled=int(cells.pooled_NM[complete_N].sum()),
    reason=reason,
  )


def contrasts(value_NM: np.ndarray, present_NM: np.ndarray) -> np.ndarray:
  """Value minus the prompt's mean over the arms present; NaN elsewhere.

  A prompt with one arm has no contrast. Give predictions the rewards'
  `present_NM`: both are then about the mean of the same arms.
  """
  num_N = present_NM.sum(axis=1)
  kept_NM = present_NM & (num_N > 1)[:, None]
  sum_N = np.where(kept_NM, value_NM, 0.0).sum(axis=1)
  mean_N = sum_N / np.maximum(num_N, 1)
  return np.where(kept_NM, value_NM - mean_N[:, None], np.nan)


def contrast_noise(noise_NM: np.ndarray, present_NM: np.ndarray) -> np.ndarray:
  """Variance of each contrast from the (independent) cells' variances s²/K.

  With it `ceiling.noise_ceilings` gives the ceiling of the contrasts' R².
  """
  num_N = np.maximum(present_NM.sum(axis=1), 1)
  total_N = np.where(present_NM, noise_NM, 0.0).sum(axis=1)
  own_NM = noise_NM * (1 - 2 / num_N)[:, None]
  return np.where(present_NM, own_NM + (total_N / num_N**2)[:, None], np.nan)


def contrast_r2(
  mean_NM: np.ndarray, prediction_NM: np.ndarray
) -> tuple[np.ndarray, float]:
  """r2_M of each arm's contrasts, and the R² of all of them together.

  The baseline of each arm is its own mean contrast here, in both: knowing
  which arm is better on average counts for nothing. `mean_NM` is NaN where
  missing. NaN says undefined, as for `scores.r2`.
  """
  present_NM = np.isfinite(mean_NM)
  truth_NM = contrasts(mean_NM, present_NM)
  guess_NM = contrasts(prediction_NM, present_NM)
  num_models = mean_NM.shape[1]
  r2_M = np.array(
    [scores.r2(truth_NM[:, m], guess_NM[:, m]) for m in range(num_models)]
  )
  kept_NM = np.isfinite(truth_NM)
  num_M = np.maximum(kept_NM.sum(axis=0), 1)
  baseline_M = np.where(kept_NM, truth_NM, 0.0).sum(axis=0) / num_M
  # About each arm's mean the pooled mean is 0, which is what r2 compares with.
  pooled = scores.r2(
    (truth_NM - baseline_M).ravel(), (guess_NM - baseline_M).ravel()
  )
  return r2_M, pooled
