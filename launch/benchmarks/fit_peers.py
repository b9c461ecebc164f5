"""What else fits ridges: scikit-learn, on rows that are scaled beforehand."""

import numpy as np
from sklearn import linear_model

from launch.benchmarks import contest, fit_ours


def ridge_float64(part):
  """Ridge on float64 rows."""
  return _ridge(part, np.float64)


def ridge_float32(part):
  """Ridge on float32 rows, in which it then computes."""
  return _ridge(part, np.float32)


def _ridge(part, dtype):
  emb_NE, reward_NM = fit_ours.problem(part.work, part.num)
  emb_NE = emb_NE.astype(dtype)

  def run() -> contest.Work:
    for _ in range(part.repeats):
      model = linear_model.Ridge(alpha=1.0).fit(emb_NE, reward_NM)
    return contest.Work(
      part.repeats, detail={'theta': float(model.coef_[0, 0])}
    )

  return run


def ridge_cv(part):
  """RidgeCV with a penalty for each target, on float64 rows."""
  emb_NE, reward_NM = fit_ours.problem(part.work, part.num)
  emb_NE = emb_NE.astype(np.float64)

  def run() -> contest.Work:
    for _ in range(part.repeats):
      model = linear_model.RidgeCV(
        alphas=fit_ours.PENALTIES, alpha_per_target=True
      ).fit(emb_NE, reward_NM)
    return contest.Work(
      part.repeats, detail=fit_ours.chosen(model.alpha_, -model.best_score_)
    )

  return run
