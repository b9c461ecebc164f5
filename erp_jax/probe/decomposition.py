"""Where rewards vary: by prompt, by arm, and by both; routing uses the last.

reward = mean + prompt + arm + interaction + noise of the sample. Prompts are
drawn from a population, the arms are these ones. Adding any g(prompt) to all
rewards moves the prompt's part alone: contrasts between arms stay.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import ceiling, scores

_PARTS = (
  *('prompt', 'arm', 'interaction', 'noise'),
  *('prompt_upper', 'interaction_upper'),
)


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
    intervals: 95 % percentile intervals over prompts by attribute, where there
      are draws and the part is available.
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
  intervals: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )


def decompose(
  cells: ceiling.Cells, counts: Iterable[np.ndarray] = ()
) -> Decomposition:
  """The parts, from means and variances of cells with any numbers of samples.

  Sums of squares of the cells' unweighted means, minus what the noise of each
  cell, s²/K with its own K, adds to them in expectation. `counts` are
  counts_QN, how often each bootstrap draw has each prompt.
  """
  complete_N = (cells.num_NM > 0).all(axis=1)
  num, num_models = int(complete_N.sum()), cells.num_NM.shape[1]
  column_NS = np.zeros((len(complete_N), 6 + num_models))
  column_NS[complete_N] = _columns(cells, complete_N)
  all_counts = itertools.chain([np.ones((1, len(complete_N)))], counts)
  sums_QS = np.concatenate([counts_QN @ column_NS for counts_QN in all_counts])
  parts = {name: np.full(len(sums_QS), np.nan) for name in _PARTS}
  reason = ''
  if num and not np.isfinite(sums_QS[0, 3]):
    reason = 'K = 1: one sample says nothing about the noise'
  if num < 2:
    reason = f'{num} prompts have rewards of all arms, a variance needs 2'
  if num_models < 2:
    reason = 'one arm: there is nothing to compare'
  if num >= 2 and num_models >= 2:
    parts = _of_sums(sums_QS, num_models)
  return Decomposition(
    **{name: float(part_Q[0]) for name, part_Q in parts.items()},
    num_prompts=num,
    num_pooled=int(cells.pooled_NM[complete_N].sum()),
    reason=reason,
    intervals={
      name: resample.percentiles(part_Q[1:])
      for name, part_Q in parts.items()
      if len(part_Q) > 1 and np.isfinite(part_Q[0])
    },
  )


def _columns(cells: ceiling.Cells, rows_N: np.ndarray) -> np.ndarray:
  """What each of these prompts adds to `_of_sums`."""
  mean_NM = cells.mean_NM[rows_N]
  prompt_N = mean_NM.mean(axis=1)
  rest_NM = mean_NM - prompt_N[:, None]
  if len(prompt_N):
    prompt_N = prompt_N - prompt_N.mean()  # Digits; variances do not change.
  noise_N = cells.noise_NM[rows_N].mean(axis=1)
  return np.column_stack(
    [
      np.ones(len(prompt_N)),
      prompt_N,
      prompt_N**2,
      noise_N,
      cells.var_NM[rows_N].mean(axis=1),
      (rest_NM**2).sum(axis=1),
      rest_NM,
    ]
  )


def _of_sums(sums_QS: np.ndarray, num_models: int) -> dict[str, np.ndarray]:
  """The parts of each draw; those that need an unknown noise are NaN."""
  num_Q, first_Q, second_Q, noise_Q, var_Q, square_Q = sums_QS[:, :6].T
  rest_QM = sums_QS[:, 6:] / num_Q[:, None]
  arm_Q = (rest_QM**2).mean(axis=1)  # About the prompts' means they sum to 0.
  # A draw of one prompt has no variance.
  less_Q = np.where(num_Q > 1, num_Q - 1, np.nan)
  prompt_Q = (second_Q - first_Q**2 / num_Q) / less_Q
  interaction_Q = (square_Q / num_models - num_Q * arm_Q) / less_Q
  noise_Q = noise_Q / num_Q
  return {
    'prompt': prompt_Q - noise_Q / num_models,
    # Arms' means over N prompts scatter by interaction / N about the truth.
    'arm': arm_Q - interaction_Q / num_Q,
    'interaction': interaction_Q - noise_Q * (1 - 1 / num_models),
    'noise': var_Q / num_Q,
    'prompt_upper': prompt_Q,
    'interaction_upper': interaction_Q,
  }


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
