"""Which of two arms wins: ERP against logistic regression (Figures 3 and 8)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.data import splits as splits_lib
from erp_jax.probe import pair_intervals
from erp_jax.probe import pairwise as pairwise_lib
from erp_jax.probe import records as records_lib
from erp_jax.report import cells, document, experiment, pairwise_figure, words

Cell = cells.Cell
NO_BETTER, BETTER, UNDECIDED = 'confirmed', 'refuted', 'undecided'
UNKNOWN = 'not measured'
_LABELS = {
  'matched': 'k-th against k-th sample',
  'soft': 'all pairs of samples',
  'means': 'means of the samples',
}
_KINDS = (*pair_intervals.PREDICTORS, pair_intervals.DIFFERENCE)


class _Found(NamedTuple):
  """What one reward model's pairs show.

  Attributes:
    by_label: intervals on the first split, the config's label first.
    splits: `resample.split_corrected` of each pair by kind, then of their
      average, with the config's label.
    is_single: whether no prompt has two samples, so that labels are the same.
  """

  by_label: dict[str, pair_intervals.Intervals]
  splits: dict[str, list[dict[str, Any]]]
  is_single: bool


def build(
  records: Sequence[records_lib.Records],
  cfg: pairwise_lib.PairwiseConfig,
  common: experiment.ExperimentConfig,
) -> experiment.Result:
  """AUROC of both predictors on every pair, for every reward model."""

  def say(one: records_lib.Records) -> experiment.Part:
    if len(one.arms) < 2:
      text = [f'{one.arms[0]} is the only arm: there are no pairs.']
      return experiment.Part(text, {})
    by_reward = _measure(one, cfg, common)
    return experiment.Part(
      text=_lead(cfg, common),
      tables=[_claim_table(one, by_reward, cfg)],
      rewards={
        reward: (_section(one, reward, found, cfg), _metrics(one, found, cfg))
        for reward, found in by_reward.items()
      },
    )

  return experiment.gather(records, say)


def no_better(lo: float | None, hi: float | None, margin: float) -> str:
  """The claim about logistic minus ERP, from the difference's interval.

  Confirmed where even the upper bound is below the margin; refuted where the
  lower one is above 0.
  """
  if lo is None or hi is None:
    return UNKNOWN
  if hi < margin:
    return NO_BETTER
  return BETTER if lo > 0 else UNDECIDED


def _measure(
  records: records_lib.Records,
  cfg: pairwise_lib.PairwiseConfig,
  common: experiment.ExperimentConfig,
) -> dict[str, _Found]:
  """By reward model."""
  rewards = records.rewards
  single = {
    reward: bool(
      (np.isfinite(records.reward_NKM[reward]).sum(axis=1) <= 1).all()
    )
    for reward in rewards
  }
  num_pairs = len(pairwise_lib.arm_pairs(len(records.arms)))
  value_JI = {(reward, kind): [] for reward in rewards for kind in _KINDS}
  by_label = {reward: {} for reward in rewards}
  test_over_train = 1.0
  for seed, train_N in enumerate(common.track(records, 'pairwise')):
    if not seed:
      test_over_train = splits_lib.test_over_train(train_N)
    prediction_NM = records_lib.predict_rewards(records, train_N, common.ridge)
    fitted = {}
    if not cfg.splits or seed < cfg.splits:
      fitted = _fit(records, train_N, cfg, single, every_label=not seed)
    for reward in rewards:
      test = (
        records.emb_NE[~train_N],
        records.reward_NKM[reward][~train_N],
        prediction_NM[reward][~train_N],
      )
      if not seed:
        by_label[reward] = {
          label: pair_intervals.bootstrap(
            fitted[reward, label], *test, common.bootstrap
          )
          for label in _labels(cfg, single[reward])
        }
        comparison = by_label[reward][cfg.label].comparison
      elif fitted:
        comparison = pairwise_lib.compare(fitted[reward, cfg.label], *test)
      else:
        wins = pairwise_lib.count_wins(test[1], cfg.label)
        erp = pairwise_lib.aurocs(wins, pairwise_lib.margins(test[2]))
        value_JI[reward, 'erp'].append(erp.value_I)
        continue
      erp_I, logistic_I = comparison.erp.value_I, comparison.logistic.value_I
      for kind, value_I in zip(
        _KINDS, (erp_I, logistic_I, logistic_I - erp_I), strict=True
      ):
        value_JI[reward, kind].append(value_I)
  result = {}
  for reward in rewards:
    used_I = by_label[reward][cfg.label].used_I
    splits = {}
    for kind in _KINDS:
      values = np.array(value_JI[reward, kind]).reshape(-1, num_pairs)
      over = values[:, used_I]
      mean_J = over.mean(axis=1) if used_I.any() else np.full(len(over), np.nan)
      splits[kind] = [
        resample.split_corrected(column_J, test_over_train)
        for column_J in (*values.T, mean_J)
      ]
    result[reward] = _Found(by_label[reward], splits, single[reward])
  return result


def _fit(records, train_N, cfg, single, every_label):
  """{(reward model, label): regression}: one solve for all of them."""
  keys = [
    (reward, label)
    for reward in records.rewards
    for label in (_labels(cfg, single[reward]) if every_label else (cfg.label,))
  ]
  labelled = [
    (
      label,
      pairwise_lib.count_wins(records.reward_NKM[reward][train_N], label),
    )
    for reward, label in keys
  ]
  fitted = pairwise_lib.fit_wins(records.emb_NE[train_N], labelled, cfg)
  return dict(zip(keys, fitted, strict=True))


def _labels(cfg: pairwise_lib.PairwiseConfig, is_single: bool) -> list[str]:
  """The config's first; alone where all are the same."""
  others = [label for label in pairwise_lib.LABELS if label != cfg.label]
  return [cfg.label] + ([] if is_single else others)


def _names(records: records_lib.Records) -> list[tuple[str, str]]:
  return [
    (records.arms[i], records.arms[j])
    for i, j in pairwise_lib.arm_pairs(len(records.arms))
  ]


def _lead(
  cfg: pairwise_lib.PairwiseConfig, common: experiment.ExperimentConfig
) -> list[str]:
  num = min(common.splits, cfg.splits or common.splits)
  return [
    'AUROC: how often a comparison that the first arm wins is scored above '
    'one that it loses; 0.5 is a coin. ERP scores a prompt by the difference '
    'of two predicted rewards, logistic regression is fitted to the wins of '
    'each pair. Ties are left out and counted.',
    'Intervals of one split are 95 % bootstrap intervals over its test '
    'prompts, both predictors on the same draws. Intervals over splits '
    '(Nadeau and Bengio) also hold what another draw of training prompts '
    f'changes: {common.splits} splits for ERP, {num} for the regression and '
    'the difference.',
  ]


def _claim_table(
  records: records_lib.Records,
  found: Mapping[str, _Found],
  cfg: pairwise_lib.PairwiseConfig,
) -> cells.Table:
  rows = []
  for reward, one in found.items():
    intervals = one.by_label[cfg.label]
    first = intervals.over_pairs[pair_intervals.DIFFERENCE]
    splits = one.splits[pair_intervals.DIFFERENCE][-1]
    rows.append(
      [
        Cell(reward),
        Cell(f'{intervals.used_I.sum()} of {len(intervals.used_I)}'),
        cells.leaf(first, words.difference),
        Cell(no_better(first['lo'], first['hi'], cfg.margin)),
        cells.leaf(splits, words.difference),
        Cell(no_better(splits['lo'], splits['hi'], cfg.margin)),
      ]
    )
  return cells.Table(
    f'{records.name}-pairwise-claim',
    'The paper’s claim that logistic regression is no better than ERP: AUROC '
    'of the regression minus that of ERP, averaged over pairs. Confirmed: the '
    f'upper 95 % bound is below {words.number(cfg.margin)}; refuted: the lower '
    'one is above 0.',
    ['Reward model', 'Pairs', 'First split', 'Claim', 'Over splits', 'Claim '],
    rows,
  )


def _section(
  records: records_lib.Records,
  reward: str,
  found: _Found,
  cfg: pairwise_lib.PairwiseConfig,
) -> document.Section:
  text = []
  if found.is_single:
    text.append(
      'No prompt has two samples of an arm: wins from matched samples, from '
      'all pairs of samples and from means are the same.'
    )
  intervals = found.by_label[cfg.label]
  tied_I = intervals.comparison.tied_share_I
  if (tied_I == 1).all():
    text.append('All rewards of a prompt are equal: nobody wins.')
  elif np.isfinite(tied_I).any():
    tied = words.share(float(np.nanmean(tied_I)))
    text.append(f'On average over pairs {tied} of the comparisons are ties.')
  figures = []
  if any(leaf['mean'] is not None for leaf in intervals.by_pair['erp']):
    figures.append(
      document.Figure(
        f'{records.name}-{reward}-pairs',
        pairwise_figure.draw(
          [' or '.join(pair) for pair in _names(records)], intervals
        ),
        f'AUROC on each pair of arms by {reward}, wins from '
        f'{_LABELS[cfg.label]}; lines are 95 % bootstrap intervals over the '
        'test prompts of the first split.',
      )
    )
  return document.Section(
    title=reward,
    text=text,
    tables=[_table(records, reward, found, cfg)],
    figures=figures,
  )


def _table(
  records: records_lib.Records,
  reward: str,
  found: _Found,
  cfg: pairwise_lib.PairwiseConfig,
) -> cells.Table:
  names = [' or '.join(pair) for pair in _names(records)]
  rows = []
  for label, intervals in found.by_label.items():
    for row, name, leaves, reasons, tied in _rows(names, intervals):
      rows.append(
        [
          Cell(_LABELS[label]),
          Cell(name),
          *(
            Cell(words.DASH, reason)
            if reason and leaf['mean'] is None
            else cells.leaf(leaf, write)
            for leaf, reason, write in zip(
              leaves,
              reasons,
              (words.number, words.number, words.difference),
              strict=True,
            )
          ),
          cells.number(tied, write=words.share),
          *(
            cells.leaf(found.splits[kind][row], write)
            if label == cfg.label
            else Cell(words.DASH)
            for kind, write in (
              ('erp', words.number),
              (pair_intervals.DIFFERENCE, words.difference),
            )
          ),
        ]
      )
  return cells.Table(
    f'{records.name}-{reward}-pairs',
    f'AUROC of pairwise wins by {reward} on the first split, and over splits. '
    'The average is over pairs on which both predictors are defined.',
    [
      'Wins from',
      'Pair',
      'ERP',
      'Logistic regression',
      'Logistic − ERP',
      'Tied',
      'ERP, over splits',
      'Logistic − ERP, over splits',
    ],
    rows,
    labels=2,
  )


def _rows(
  names: Sequence[str], intervals: pair_intervals.Intervals
) -> Iterator[tuple[int, str, list, tuple[str, str, str], float]]:
  """Index, name, leaves by kind, their reasons and tied share; average last."""
  comparison = intervals.comparison
  for index, name in enumerate(names):
    leaves = [intervals.by_pair[kind][index] for kind in _KINDS]
    reasons = comparison.erp.reasons[index], comparison.logistic.reasons[index]
    tied = float(comparison.tied_share_I[index])
    yield index, name, leaves, (*reasons, ''), tied
  tied_I = comparison.tied_share_I
  tied = float(np.nanmean(tied_I)) if np.isfinite(tied_I).any() else math.nan
  leaves = [intervals.over_pairs[kind] for kind in _KINDS]
  yield -1, 'average over pairs', leaves, ('', '', ''), tied


def _metrics(
  records: records_lib.Records,
  found: _Found,
  cfg: pairwise_lib.PairwiseConfig,
) -> dict[str, Any]:
  names = ['|'.join(pair) for pair in _names(records)]
  by_label = {}
  for label, intervals in found.by_label.items():
    comparison = intervals.comparison
    by_label[label] = {
      'pairs': {
        name: {
          **{kind: intervals.by_pair[kind][index] for kind in _KINDS},
          'tied_share': resample.defined(comparison.tied_share_I[index]),
          'num_untied': float(comparison.num_untied_I[index]),
        }
        for index, name in enumerate(names)
      },
      'over_pairs': dict(intervals.over_pairs),
      'num_pairs': int(intervals.used_I.sum()),
    }
  first = found.by_label[cfg.label].over_pairs[pair_intervals.DIFFERENCE]
  splits = found.splits[pair_intervals.DIFFERENCE][-1]
  return {
    'label': cfg.label,
    'by_label': by_label,
    'over_splits': {
      kind: dict(zip([*names, 'over_pairs'], leaves, strict=True))
      for kind, leaves in found.splits.items()
    },
    'claim': {
      'margin': cfg.margin,
      'first_split': no_better(first['lo'], first['hi'], cfg.margin),
      'over_splits': no_better(splits['lo'], splits['hi'], cfg.margin),
    },
  }
