"""How well expected rewards are predicted: the numbers of E1 to E4.

Arms of all reward models are columns of one fit, so a split costs one
factorisation however many there are.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from erp_jax.core import errors, resample
from erp_jax.data import splits
from erp_jax.probe import ceiling as ceiling_lib
from erp_jax.probe import decomposition, explained, response_flags
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictabilityConfig:
  """What is reported of R²; the switches of PAPER.md 6, 7, 8 and 22."""

  # What a category's variance is about: 'test_mean' is its own mean over test
  # prompts; 'train_mean' that over training prompts; 'global_mean' the mean of
  # all test prompts.
  baseline: str = explained.TEST_MEAN
  ceiling: bool = True  # Whether noise ceilings stand beside R².
  compare_fits: bool = True  # Whether other ridges are fitted (`fits`).
  # Flags of responses without which R² is also reported: each of them, and all.
  exclude: tuple[str, ...] = response_flags.FLAGS

  def __post_init__(self):
    errors.check_choice(
      'predictability.baseline', self.baseline, explained.BASELINES
    )
    for flag in self.exclude:
      if flag not in response_flags.FLAGS:
        raise errors.UserError(
          f'predictability.exclude has {flag!r}; allowed: '
          f'{", ".join(response_flags.FLAGS)}.'
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Without:
  """R² without some responses, in training and test.

  Attributes:
    flags: what is left out.
    reason: why this is not known; then there is nothing else.
    share_M: of each arm's scored responses that are left out, on all prompts.
    scores: of the rewards that are left, predicted by a fit to them.
  """

  flags: tuple[str, ...]
  reason: str = ''
  share_M: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
  scores: explained.Table = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What one reward model's rewards show.

  Attributes:
    scores: of the first split, by category and arm.
    contrasts: of the first split, by arm, and all together.
    over_splits: {mean, lo, hi, sd, n_splits} of each arm, and last of their
      mean, by category; the interval is `resample.split_corrected`.
    contrasts_over_splits: of each arm's contrasts, and last of all together.
    decomposition: of the variance of rewards, over all prompts.
    true_decomposition: of the known ER; None where that is not known.
    without: by what is left out.
    fits: scores of the first split by the name of another fit; no ceilings.
    category_N, prediction_NM, mean_NM: of the first split's test prompts.
  """

  scores: explained.Table
  contrasts: tuple[list[explained.Score], explained.Score]
  over_splits: Mapping[str | None, Sequence[Mapping[str, float | None]]]
  contrasts_over_splits: Sequence[Mapping[str, float | None]]
  decomposition: decomposition.Decomposition
  true_decomposition: decomposition.Decomposition | None
  without: Sequence[Without]
  fits: Mapping[str, explained.Table]
  category_N: np.ndarray
  prediction_NM: np.ndarray
  mean_NM: np.ndarray


def fits(ridge: ridge_lib.RidgeConfig) -> dict[str, ridge_lib.RidgeConfig]:
  """The readings of (3.2): the 2 × 2 of PAPER.md 6, and two more.

  The four have the penalty as it is given; the others differ from the given
  ridge in one thing.
  """
  result = {
    f'{loss}, {embedding}': dataclasses.replace(
      ridge, loss=loss, embedding=embedding, selection='fixed'
    )
    for loss in ('sum', 'mean')
    for embedding in ('unit', 'raw')
  }
  result['leave-one-out'] = dataclasses.replace(
    ridge, selection='leave_one_out'
  )
  result['no intercept'] = dataclasses.replace(ridge, intercept=False)
  return result


def evaluate(
  records: records_lib.Records,
  train_masks: Iterable[np.ndarray],
  ridge: ridge_lib.RidgeConfig,
  bootstrap: resample.BootstrapConfig,
  cfg: PredictabilityConfig,
) -> dict[str, Found]:
  """By reward model. `train_masks` are train_N of each split."""
  truths = {
    reward: explained.Truth.of_samples(records.reward_NKM[reward])
    for reward in records.rewards
  }
  points: dict[str, list] = {reward: [] for reward in records.rewards}
  train_first_N = ratio = first = None
  for train_N in train_masks:
    predictions = records_lib.predict_rewards(records, train_N, ridge)
    if first is None:
      train_first_N, first = train_N, predictions
      ratio = splits.test_over_train(train_N)
    for reward in records.rewards:
      points[reward].append(
        _point(records, truths[reward], predictions[reward], train_N, cfg)
      )
  test_N = ~train_first_N
  drawn = list(resample.draw_counts(int(test_N.sum()), bootstrap))
  counts = lambda: drawn  # Counted once: every number is of the same draws.
  score = _scorer(records, train_first_N, counts, cfg)
  fitted = {}
  if cfg.compare_fits:
    fitted = {
      name: first
      if one == ridge
      else records_lib.predict_rewards(records, train_first_N, one)
      for name, one in fits(ridge).items()
    }
  without = {
    flags: _predict_without(records, train_first_N, ridge, flags)
    for flags in _flag_sets(records, cfg)
  }
  result = {}
  for reward in records.rewards:
    truth = truths[reward]
    arms_JM, contrasts_JM = zip(*points[reward], strict=True)
    result[reward] = Found(
      scores=score(truth, first[reward]),
      contrasts=explained.score_contrasts(
        _rows(truth, test_N),
        first[reward][test_N],
        counts,
        cfg.ceiling,
      ),
      over_splits={
        category: _over_splits([found[category] for found in arms_JM], ratio)
        for category in arms_JM[0]
      },
      contrasts_over_splits=_over_splits(contrasts_JM, ratio),
      decomposition=decomposition.decompose(
        ceiling_lib.summarise(records.reward_NKM[reward]),
        resample.draw_counts(len(test_N), bootstrap),
      ),
      true_decomposition=_known(records, reward),
      without=[
        *(
          Without(flags=(flag,), reason='not known of these records')
          for flag in cfg.exclude
          if flag not in records.flag_NKM
        ),
        *(
          Without(
            flags=flags,
            share_M=_share(records, reward, flags),
            scores=score(*left[reward]),
          )
          for flags, left in without.items()
        ),
      ],
      fits={
        name: score(truth, predictions[reward], with_ceiling=False)
        for name, predictions in fitted.items()
      },
      category_N=records.category_N[test_N],
      prediction_NM=first[reward][test_N],
      mean_NM=truth.mean_NM[test_N],
    )
  return result


def _rows(truth: explained.Truth, rows_N: np.ndarray) -> explained.Truth:
  return explained.Truth(*(part[rows_N] for part in truth))


def _scorer(
  records: records_lib.Records,
  train_N: np.ndarray,
  counts: explained.Counts,
  cfg: PredictabilityConfig,
) -> Callable[..., explained.Table]:
  """Scores a truth and predictions of all prompts, on the test prompts."""

  def score(truth, prediction_NM, with_ceiling=cfg.ceiling):
    return explained.score(
      _rows(truth, ~train_N),
      prediction_NM[~train_N],
      records.category_N[~train_N],
      counts,
      cfg.baseline,
      (truth.mean_NM[train_N], records.category_N[train_N]),
      with_ceiling,
    )

  return score


def _point(
  records: records_lib.Records,
  truth: explained.Truth,
  prediction_NM: np.ndarray,
  train_N: np.ndarray,
  cfg: PredictabilityConfig,
) -> tuple[dict[str | None, list[float]], list[float]]:
  """R² of a split, without intervals: the arms' and their mean, and contrasts'.

  NaN where undefined.
  """
  found = explained.score(
    _rows(truth, ~train_N),
    prediction_NM[~train_N],
    records.category_N[~train_N],
    baseline=cfg.baseline,
    train=(truth.mean_NM[train_N], records.category_N[train_N]),
    with_ceiling=False,
  )
  arms, together = explained.score_contrasts(
    _rows(truth, ~train_N), prediction_NM[~train_N], with_ceiling=False
  )
  number = lambda leaf: resample.number(leaf['mean'])
  return {
    category: [*(number(s.r2) for s in row), number(explained.mean_of(row))]
    for category, row in found.items()
  }, [number(s.r2) for s in [*arms, together]]


def _over_splits(
  value_JM: Sequence[Sequence[float]], ratio: float
) -> list[dict[str, Any]]:
  return [
    resample.split_corrected(value_J, ratio) for value_J in np.array(value_JM).T
  ]


def _flag_sets(
  records: records_lib.Records, cfg: PredictabilityConfig
) -> list[tuple[str, ...]]:
  """Each flag that is known, and all of these."""
  known = tuple(flag for flag in cfg.exclude if flag in records.flag_NKM)
  return [*((f,) for f in known), *([known] if len(known) > 1 else [])]


def _predict_without(
  records: records_lib.Records,
  train_N: np.ndarray,
  ridge: ridge_lib.RidgeConfig,
  flags: tuple[str, ...],
) -> dict[str, tuple[explained.Truth, np.ndarray]]:
  """Truths and predictions by reward model, from the responses left.

  An arm with fewer than two training prompts left has NaN predictions.
  """
  truths = {
    reward: explained.Truth.of_samples(records.without(reward, *flags))
    for reward in records.rewards
  }
  mean_NM = np.concatenate([t.mean_NM for t in truths.values()], axis=1)
  enough_M = np.isfinite(mean_NM[train_N]).sum(axis=0) >= 2
  prediction_NM = np.full(mean_NM.shape, np.nan)
  if enough_M.any():
    emb_NE = records.emb_NE
    probe = ridge_lib.fit(emb_NE[train_N], mean_NM[train_N][:, enough_M], ridge)
    prediction_NM[:, enough_M] = ridge_lib.predict(probe, emb_NE)
  parts = np.split(prediction_NM, len(truths), axis=1)
  return {
    reward: (truth, part)
    for (reward, truth), part in zip(truths.items(), parts, strict=True)
  }


def _share(
  records: records_lib.Records, reward: str, flags: tuple[str, ...]
) -> np.ndarray:
  """share_M of the rewards that are finite, NaN of an arm without any."""
  scored_NKM = np.isfinite(records.reward_NKM[reward])
  left_NKM = np.isfinite(records.without(reward, *flags))
  num_M = scored_NKM.sum(axis=(0, 1))
  with np.errstate(invalid='ignore'):
    return 1 - left_NKM.sum(axis=(0, 1)) / num_M


def _known(
  records: records_lib.Records, reward: str
) -> decomposition.Decomposition | None:
  """The parts of the known ER; its noise, 0, says nothing about samples'."""
  if reward not in records.er_NM:
    return None
  er_NM = records.er_NM[reward]
  none_NM = np.zeros(er_NM.shape)
  return decomposition.decompose(
    ceiling_lib.Cells(
      er_NM, np.ones(er_NM.shape, int), none_NM, none_NM.astype(bool)
    )
  )
