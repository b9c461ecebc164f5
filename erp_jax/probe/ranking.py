"""AUROC of many bootstrap draws, exactly: scores are sorted once for all."""

from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
  """Which losses each win is scored above.

  Attributes:
    win_rows, win: prompts with wins, and their weight of them.
    loss_rows, loss: prompts with losses, ascending in score, and their weight.
    num_below: for each of `win_rows`, how many of `loss_rows` score lower.
    num_not_above: and how many score lower or the same.
  """

  win_rows: np.ndarray
  win: np.ndarray
  loss_rows: np.ndarray
  loss: np.ndarray
  num_below: np.ndarray
  num_not_above: np.ndarray


def rank(win_N: np.ndarray, loss_N: np.ndarray, score_N: np.ndarray) -> Ranking:
  """Of N prompts with these weights of wins and losses (`pairwise.Wins`).

  A prompt may have both, which tie with each other. Ties of rewards have
  neither.
  """
  win_rows, loss_rows = np.flatnonzero(win_N), np.flatnonzero(loss_N)
  loss_rows = loss_rows[np.argsort(score_N[loss_rows], kind='stable')]
  sorted_scores = score_N[loss_rows]
  return Ranking(
    win_rows=win_rows,
    win=np.asarray(win_N, np.float64)[win_rows],
    loss_rows=loss_rows,
    loss=np.asarray(loss_N, np.float64)[loss_rows],
    num_below=np.searchsorted(sorted_scores, score_N[win_rows], 'left'),
    num_not_above=np.searchsorted(sorted_scores, score_N[win_rows], 'right'),
  )


def aurocs(ranking: Ranking, counts_NQ: np.ndarray) -> np.ndarray:
  """auroc_Q of draws that have each prompt this often; NaN where undefined.

  P(score of a win > score of a loss), equal scores counted half. Prompts come
  first, so that a draw's sums run along contiguous draws.
  """
  num_draws = counts_NQ.shape[1]
  below = np.zeros((len(ranking.loss_rows) + 1, num_draws))
  loss = counts_NQ[ranking.loss_rows] * ranking.loss[:, None]
  np.cumsum(loss, axis=0, out=below[1:])
  win = counts_NQ[ranking.win_rows] * ranking.win[:, None]
  beaten = below[ranking.num_below]
  tied = ranking.num_not_above != ranking.num_below
  if tied.any():
    beaten[tied] = (beaten[tied] + below[ranking.num_not_above[tied]]) / 2
  total_Q = win.sum(axis=0) * below[-1]
  auroc_Q = np.full(num_draws, np.nan)
  above_Q = (win * beaten).sum(axis=0)
  return np.divide(above_Q, total_Q, out=auroc_Q, where=total_Q > 0)
