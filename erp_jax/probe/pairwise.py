"""Which of two arms wins on a prompt: labels, logistic regression, AUROC.

Axis I is that of pairs of arms (i, j), i < j, in `arm_pairs`'s order; arm i
wins a comparison where its reward is the higher one (PAPER.md 13, 14).
A prompt's comparisons share its features, so counts of wins and losses per
prompt carry all that there is.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import logistic as logistic_lib
from erp_jax.probe import ridge, targets

LABELS = ('matched', 'soft', 'means')
_SEPARABLE = (
  'the training prompts can be separated, so without a penalty no weights are '
  'best'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseConfig:
  """Win labels (PAPER.md 13) and logistic regression on them (14).

  The objective is scikit-learn's, C · Σ log loss + ½‖θ‖², over comparisons,
  the intercept unpenalised.
  """

  # 'matched': k-th against k-th sample, K rows a prompt; 'soft': each of the
  # K² pairs of samples, weighted 1 / K, so that C means the same; 'means': one
  # row a prompt.
  label: str = 'matched'
  # 'fixed': c; 'cross_validated': each pair's best of `cs` by held-out log
  # loss; 'none': without a penalty.
  penalty: str = 'fixed'
  c: float = 1.0
  cs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)  # Ascending.
  folds: int = 5  # Of prompts, for 'cross_validated'.
  seed: int = 0  # Of the folds.
  embedding: str = 'unit'  # Rows scaled to length 1, or 'raw'.
  # Of the experiment's split seeds, how many the regression is fitted on: it
  # takes most of the time. 0 means all of them.
  splits: int = 5
  # "No better than ERP": by less than this much AUROC.
  margin: float = 0.01

  def __post_init__(self):
    for name, allowed in (
      ('label', LABELS),
      ('penalty', ('fixed', 'cross_validated', 'none')),
      ('embedding', ('unit', 'raw')),
    ):
      errors.check_choice(f'pairwise.{name}', getattr(self, name), allowed)
    if not (np.isfinite(self.c) and self.c > 0):
      raise errors.UserError(f'pairwise.c must be > 0, got {self.c}.')
    cs = self.cs
    if not cs or not all(np.isfinite(c) and c > 0 for c in cs):
      raise errors.UserError(
        f'pairwise.cs must be positive numbers, at least one, got {cs}.'
      )
    if any(a >= b for a, b in zip(cs, cs[1:], strict=False)):
      raise errors.UserError(f'pairwise.cs must ascend, got {cs}.')
    # With two, a rare class may be in neither fold's training part.
    errors.check_least('pairwise.folds', self.folds, 3)
    for name in ('seed', 'splits'):
      errors.check_least(f'pairwise.{name}', getattr(self, name), 0)
    if not 0 <= self.margin < 0.5:
      raise errors.UserError(
        f'pairwise.margin must be at least 0 and below 0.5, got {self.margin}.'
      )


class Wins(NamedTuple):
  """Comparisons of each prompt and pair, float64, as weights.

  A comparison of which either reward is missing is not counted at all.
  """

  win_NI: np.ndarray
  loss_NI: np.ndarray
  tied_NI: np.ndarray

  def tied_share(self) -> np.ndarray:
    """share_I of all comparisons; NaN where there are none."""
    tied_I = self.tied_NI.sum(axis=0)
    total_I = tied_I + self.win_NI.sum(axis=0) + self.loss_NI.sum(axis=0)
    share_I = np.full(len(total_I), np.nan)
    return np.divide(tied_I, total_I, out=share_I, where=total_I > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logistic:
  """Fitted regressions; NaN columns are undefined, and `reasons` say why.

  Attributes:
    theta_EI, bias_I: log-odds that arm i wins, given that it is no tie.
    c_I: the C of each pair; inf without a penalty.
    reasons: '' where a pair's regression is defined.
    tied_share_I: of the training comparisons.
    label, embedding: as in the config.
  """

  theta_EI: np.ndarray
  bias_I: np.ndarray
  c_I: np.ndarray
  reasons: tuple[str, ...]
  tied_share_I: np.ndarray
  label: str
  embedding: str

  def predict(self, emb_NE: np.ndarray) -> np.ndarray:
    """Log-odds [N, I]. UserError as `ridge.prepare`, and for another width."""
    x_NE = ridge.prepare_for(
      len(self.theta_EI), 'the regression was', emb_NE, self.embedding
    )
    return np.einsum('NE,EI->NI', x_NE, self.theta_EI) + self.bias_I


class Auroc(NamedTuple):
  """One predictor's AUROC on each pair; `reasons` are '' where defined."""

  value_I: np.ndarray
  reasons: tuple[str, ...]


class Comparison(NamedTuple):
  """Both predictors on test prompts, ties dropped.

  Attributes:
    pairs: arms (i, j) of each entry.
    erp: σ(ÊR_i − ÊR_j), judged by its argument, which never saturates.
    logistic: the regression.
    tied_share_I: of the test comparisons.
    num_untied_I: test comparisons that an AUROC is over, as weights.
  """

  pairs: list[tuple[int, int]]
  erp: Auroc
  logistic: Auroc
  tied_share_I: np.ndarray
  num_untied_I: np.ndarray


def arm_pairs(num_arms: int) -> list[tuple[int, int]]:
  """(i, j), i < j, in the order (0, 1), (0, 2), … (1, 2), …"""
  return list(itertools.combinations(range(num_arms), 2))


def count_wins(reward_NKM: np.ndarray, label: str = 'matched') -> Wins:
  """Wins, losses and ties of all pairs; rewards that are not finite miss.

  `label` as in the config. The weight of a 'soft' comparison is 1 over the
  larger of the two arms' numbers of samples on that prompt.
  """
  reward_NKM = np.asarray(reward_NKM, np.float64)
  finite_NKM = np.isfinite(reward_NKM)
  if label == 'means':
    reward_NKM = targets.expected_reward(reward_NKM, finite_NKM).mean_NM[
      :, None
    ]
    finite_NKM = np.isfinite(reward_NKM)
  pairs = arm_pairs(reward_NKM.shape[2])
  counts = np.empty((3, len(reward_NKM), len(pairs)))
  for index, (i, j) in enumerate(pairs):
    first, second = reward_NKM[:, :, i], reward_NKM[:, :, j]
    known = finite_NKM[:, :, i], finite_NKM[:, :, j]
    weight_N = 1.0
    if label == 'soft':
      first, second = first[:, :, None], second[:, None, :]
      largest_N = np.maximum(known[0].sum(axis=1), known[1].sum(axis=1))
      weight_N = 1 / np.maximum(largest_N, 1)
      known = known[0][:, :, None], known[1][:, None, :]
    both = known[0] & known[1]
    for kind, compare in enumerate((np.greater, np.less, np.equal)):
      hits = (compare(first, second) & both).reshape(len(reward_NKM), -1)
      counts[kind, :, index] = hits.sum(axis=1) * weight_N
  return Wins(*counts)


def fit(
  emb_NE: np.ndarray, reward_NKM: np.ndarray, cfg: PairwiseConfig
) -> Logistic:
  """One logistic regression per pair, in float64.

  Undefined, with the reason, for a pair of which one arm wins no comparison,
  and without a penalty for prompts that can be separated: fewer than features,
  with one comparison each, always can. Raises UserError as `ridge.prepare`
  does, and for fewer prompts than folds.
  """
  wins = count_wins(reward_NKM, cfg.label)
  (fitted,) = fit_wins(emb_NE, [(cfg.label, wins)], cfg)
  return fitted


def fit_wins(
  emb_NE: np.ndarray,
  labelled: Sequence[tuple[str, Wins]],
  cfg: PairwiseConfig,
) -> list[Logistic]:
  """As `fit`, for each (label, wins) of the same prompts, all at once.

  Of several reward models or labels; `cfg.label` is not read.
  """
  x_NE = ridge.prepare(emb_NE, cfg.embedding)
  # One factorisation of the prompts serves all of their columns.
  wins = Wins(
    *(
      np.concatenate(parts, axis=1)
      for parts in zip(*(wins for _, wins in labelled), strict=True)
    )
  )
  reasons = _one_class(wins, 'training')
  if cfg.penalty == 'cross_validated':
    c_I = _cross_validate(x_NE, wins, cfg)
  else:
    c_I = np.full(len(reasons), np.inf if cfg.penalty == 'none' else cfg.c)
  theta_EI, bias_I, converged_I = logistic_lib.solve(
    x_NE, wins.win_NI, wins.loss_NI, c_I
  )
  reasons = np.array(
    [
      reason or ('' if converged else _SEPARABLE)
      for reason, converged in zip(reasons, converged_I, strict=True)
    ],
    object,
  )
  undefined_I = reasons != ''
  theta_EI = np.where(undefined_I, np.nan, theta_EI)
  bias_I = np.where(undefined_I, np.nan, bias_I)
  tied_share_I = wins.tied_share()
  result, end = [], 0
  for label, part in labelled:
    here = slice(end, end := end + part.win_NI.shape[1])
    result.append(
      Logistic(
        theta_EI=theta_EI[:, here],
        bias_I=bias_I[here],
        c_I=c_I[here],
        reasons=tuple(reasons[here]),
        tied_share_I=tied_share_I[here],
        label=label,
        embedding=cfg.embedding,
      )
    )
  return result


def compare(
  logistic: Logistic,
  emb_NE: np.ndarray,
  reward_NKM: np.ndarray,
  prediction_NM: np.ndarray,
) -> Comparison:
  """ERP's predicted rewards against the regression, on test prompts.

  Labels are those that the regression was fitted to.
  """
  wins = count_wins(reward_NKM, logistic.label)
  return Comparison(
    pairs=arm_pairs(prediction_NM.shape[1]),
    erp=aurocs(wins, margins(prediction_NM)),
    logistic=aurocs(wins, logistic.predict(emb_NE), logistic.reasons),
    tied_share_I=wins.tied_share(),
    num_untied_I=(wins.win_NI + wins.loss_NI).sum(axis=0),
  )


def margins(prediction_NM: np.ndarray) -> np.ndarray:
  """margin_NI: ÊR_i − ÊR_j of each pair, ERP's log-odds that arm i wins."""
  pairs = arm_pairs(prediction_NM.shape[1])
  first, second = np.array(pairs, int).reshape(-1, 2).T
  return prediction_NM[:, first] - prediction_NM[:, second]


def aurocs(
  wins: Wins, score_NI: np.ndarray, reasons: tuple[str, ...] = ()
) -> Auroc:
  """AUROC of each pair's scores; `reasons` are why there are none to judge."""
  reasons = tuple(
    before or here
    for before, here in zip(
      reasons or [''] * score_NI.shape[1],
      _one_class(wins, 'test'),
      strict=True,
    )
  )
  value_I = np.full(len(reasons), np.nan)
  for index, reason in enumerate(reasons):
    if not reason:
      value_I[index] = weighted_auroc(
        wins.win_NI[:, index], wins.loss_NI[:, index], score_NI[:, index]
      )
  return Auroc(value_I, reasons)


def weighted_auroc(
  win_N: np.ndarray, loss_N: np.ndarray, score_N: np.ndarray
) -> float:
  """P(score of a win > score of a loss), equal scores counted half.

  A row may hold wins and losses, which tie with each other: they share its
  score. NaN (undefined) unless there are both.
  """
  total = win_N.sum() * loss_N.sum()
  if not total:
    return float('nan')
  _, rank_N = np.unique(score_N, return_inverse=True)
  win, loss = (np.bincount(rank_N, weight_N) for weight_N in (win_N, loss_N))
  return float(win @ (np.cumsum(loss) - loss / 2) / total)


def _cross_validate(
  x_NE: np.ndarray, wins: Wins, cfg: PairwiseConfig
) -> np.ndarray:
  """c_I of the least held-out log loss; the smallest C of equals.

  A fold without both classes in its training part has no fit: its weights stay
  0, and its loss is the same for every C.
  """
  num, num_pairs = wins.win_NI.shape
  if num < cfg.folds:
    raise errors.UserError(
      f'{num} training prompts are fewer than pairwise.folds, {cfg.folds}: use '
      'fewer folds, or pairwise.penalty=fixed.'
    )
  fold_N = np.random.default_rng(cfg.seed).permutation(num) % cfg.folds
  total = np.zeros((len(cfg.cs), num_pairs))
  for fold in range(cfg.folds):
    out_N = fold_N == fold
    for index, c in enumerate(cfg.cs):
      theta_EI, bias_I, _ = logistic_lib.solve(
        *(x_NE[~out_N], wins.win_NI[~out_N], wins.loss_NI[~out_N]),
        np.full(num_pairs, c),
      )
      logit_NI = x_NE[out_N] @ theta_EI + bias_I
      total[index] += (
        wins.win_NI[out_N] * np.logaddexp(0, -logit_NI)
        + wins.loss_NI[out_N] * np.logaddexp(0, logit_NI)
      ).sum(axis=0)
  return np.array(cfg.cs)[np.argmin(total, axis=0)]


def _one_class(wins: Wins, part: str) -> tuple[str, ...]:
  """Why each pair has no two classes; '' where it has."""
  reasons = {
    (True, True): '',
    (True, False): f'the second arm wins no {part} comparison',
    (False, True): f'the first arm wins no {part} comparison',
    (False, False): f'there is no untied {part} comparison',
  }
  classes = wins.win_NI.any(axis=0), wins.loss_NI.any(axis=0)
  return tuple(reasons[bool(i), bool(j)] for i, j in zip(*classes, strict=True))
