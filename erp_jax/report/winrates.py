"""Who is best how often (Figures 4 and 9), and Proposition 1."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.data import splits
from erp_jax.probe import records as records_lib
from erp_jax.report import (
  cells,
  document,
  experiment,
  figures,
  proposition,
  words,
)
from erp_jax.route import proposition as proposition_lib
from erp_jax.route import winrates as winrates_lib

Cell = cells.Cell
_ALL = 'all prompts'
_NO_VARIANCE = (
  'K = 1: one sample has no variance, so the chance that a sample wins cannot '
  'be predicted: see winrates.win_share=means.'
)


class _Found(NamedTuple):
  """What one reward model shows.

  Attributes:
    shares: of the first split, as `winrates.intervals` returns them.
    splits: corrected leaves over splits by kind, one per arm.
    counted, num: test prompts with rewards of all arms, and all of them.
    are_equal: whether all its rewards are.
    proposition: what is judged on the first split's test prompts.
  """

  shares: dict
  splits: dict[str, list[dict[str, Any]]]
  counted: int
  num: int
  are_equal: bool
  proposition: proposition.Found | None


def build(
  records: Sequence[records_lib.Records],
  cfg: winrates_lib.WinRatesConfig,
  common: experiment.ExperimentConfig,
) -> experiment.Result:
  """A section per records, a part of it per reward model."""

  def say(one: records_lib.Records) -> experiment.Part:
    return experiment.Part(
      text=_lead(cfg, common),
      rewards={
        reward: (_section(one, reward, found, cfg), _metrics(one, found))
        for reward, found in _measure(one, cfg, common).items()
      },
    )

  return experiment.gather(records, say)


def _measure(
  records: records_lib.Records,
  cfg: winrates_lib.WinRatesConfig,
  common: experiment.ExperimentConfig,
) -> dict[str, _Found]:
  """By reward model; fits are shared between them."""
  over: dict[str, list[dict]] = {reward: [] for reward in records.rewards}
  first = {}
  for train_N in common.track(records, 'win share'):
    prediction_NM = records_lib.predict_rewards(records, train_N, common.ridge)
    for reward in records.rewards:
      shares = _shares(
        records, reward, train_N, prediction_NM[reward], cfg.win_share
      )
      over[reward].append(shares)
      first.setdefault(reward, (train_N, prediction_NM[reward], shares))
  result = {}
  for reward in records.rewards:
    train_N, prediction_NM, shares = first[reward]
    known_N = _known(shares)
    reward_NKM = records.reward_NKM[reward]
    finite = reward_NKM[np.isfinite(reward_NKM)]
    several = len(records.arms) > 1
    result[reward] = _Found(
      shares=winrates_lib.intervals(
        shares, records.category_N[~train_N], common.bootstrap
      ),
      splits=_over_splits(over[reward], splits.test_over_train(train_N)),
      counted=int(known_N.sum()),
      num=len(known_N),
      are_equal=not len(finite) or finite.min() == finite.max(),
      proposition=_propose(
        records, reward, train_N, prediction_NM, cfg, common.bootstrap
      )
      if several
      else None,
    )
  return result


def _shares(
  records: records_lib.Records,
  reward: str,
  train_N: np.ndarray,
  prediction_NM: np.ndarray,
  win_share: str,
) -> dict[str, np.ndarray]:
  """share_NM of the test prompts by kind, 'true' first."""
  reward_NKM = records.reward_NKM[reward]
  if win_share == 'samples':
    var_M = winrates_lib.sample_variance(reward_NKM[train_N])
    shares = {'true': winrates_lib.best_of_samples(reward_NKM[~train_N])}
    if np.isfinite(var_M).all():
      shares['predicted'] = winrates_lib.best_of_gaussians(
        prediction_NM[~train_N], var_M
      )
    return shares
  shares = {
    'true': winrates_lib.best(records.mean_NM(reward)[~train_N]),
    'predicted': winrates_lib.best(prediction_NM[~train_N]),
  }
  if reward in records.er_NM:
    shares['known'] = winrates_lib.best(records.er_NM[reward][~train_N])
  return shares


def _known(shares: Mapping[str, np.ndarray]) -> np.ndarray:
  return np.all(
    [np.isfinite(share_NM).all(axis=1) for share_NM in shares.values()], axis=0
  )


def _over_splits(
  over: Sequence[Mapping[str, np.ndarray]], test_over_train: float
) -> dict[str, list[dict[str, Any]]]:
  mean_JM = {kind: [] for kind in over[0]}
  for shares in over:
    known_N = _known(shares)
    for kind in mean_JM:
      share_NM = shares[kind][known_N]
      mean_JM[kind].append(
        share_NM.mean(axis=0)
        if len(share_NM)
        else np.full(share_NM.shape[1], np.nan)
      )
  values = {kind: np.array(rows) for kind, rows in mean_JM.items()}
  if 'predicted' in values:
    values['difference'] = values['predicted'] - values['true']
  return {
    kind: [
      resample.split_corrected(column_J, test_over_train)
      for column_J in value_JM.T
    ]
    for kind, value_JM in values.items()
  }


def _propose(
  records: records_lib.Records,
  reward: str,
  train_N: np.ndarray,
  prediction_NM: np.ndarray,
  cfg: winrates_lib.WinRatesConfig,
  bootstrap: resample.BootstrapConfig,
) -> proposition.Found:
  reward_NKM = records.reward_NKM[reward]
  unknown = np.full(prediction_NM.shape, np.nan)
  evidence = proposition_lib.Evidence(
    reward_NKM=reward_NKM[~train_N],
    prediction_NM=prediction_NM[~train_N],
    er_NM=records.er_NM.get(reward, unknown)[~train_N],
    noise_sd_N=records.noise_sd_N.get(reward, unknown[:, 0])[~train_N],
    proxy=cfg.proxy(reward, reward_NKM),
  )
  pair = winrates_lib.choose_pair(
    cfg.pair,
    records.arms,
    records.mean_NM(reward)[train_N],
    records.cost_NM,
  )
  return proposition.measure(evidence, records.arms, pair, cfg, bootstrap)


def _lead(
  cfg: winrates_lib.WinRatesConfig, common: experiment.ExperimentConfig
) -> list[str]:
  what = {
    'means': 'On each test prompt the arm with the highest mean reward wins; '
    'predicted to win is the one with the highest predicted reward.',
    'samples': 'On each test prompt one sample of each arm is compared, over '
    'all choices; predicted with Gaussian samples around the predicted '
    'rewards, of the arm’s variance in training.',
  }
  return [
    f'{what[cfg.win_share]} Of m tied arms each gets 1/m. Intervals are 95 % '
    'bootstrap intervals over the test prompts of the first split; those over '
    f'splits (Nadeau and Bengio) are of {common.splits}.'
  ]


def _section(
  records: records_lib.Records,
  reward: str,
  found: _Found,
  cfg: winrates_lib.WinRatesConfig,
) -> document.Section:
  text = []
  if len(records.arms) < 2:
    text.append(f'{records.arms[0]} is the only arm: it always wins.')
  if found.are_equal:
    text.append(
      'All rewards are equal: every prompt is a tie, and there is nothing to '
      'predict.'
    )
  if found.counted < found.num:
    text.append(
      f'Win shares are over the {words.count(found.counted)} of '
      f'{words.count(found.num)} test prompts with a reward of every arm.'
    )
  has_prediction = 'predicted' in found.splits
  if not has_prediction:
    text.append(_NO_VARIANCE)
  drawn = []
  if found.shares:
    kinds = ('true', 'predicted') if has_prediction else ('true',)
    drawn.append(
      document.Figure(
        f'{records.name}-{reward}-wins',
        figures.share_bars(
          {
            f'{category or _ALL}, {kind}': [leaf['mean'] for leaf in by[kind]]
            for category, by in found.shares.items()
            for kind in kinds
          },
          records.arms,
          'share of test prompts that the arm wins (%)',
          group=len(kinds),
        ),
        f'Who wins how often by {reward}, in truth'
        f'{" and as predicted" if has_prediction else ""}: the first split’s '
        'test prompts.',
      )
    )
  sections = []
  if found.proposition:
    prefix = f'{records.name}-{reward}'
    sections = [proposition.section(prefix, reward, found.proposition, cfg)]
  return document.Section(
    title=reward,
    text=text,
    tables=[_table(records, reward, found)],
    figures=drawn,
    sections=sections,
  )


def _table(
  records: records_lib.Records, reward: str, found: _Found
) -> cells.Table:
  names = {
    'true': 'true',
    'predicted': 'predicted',
    'difference': 'predicted − true',
    'known': 'true, by the known ER',
  }
  rows = []
  for category, by_kind in found.shares.items():
    for kind, name in names.items():
      if kind in by_kind:
        write = words.signed_share if kind == 'difference' else words.share
        rows.append(
          [Cell(category or _ALL), Cell(name)]
          + [cells.leaf(leaf, write) for leaf in by_kind[kind]]
        )
  for kind, name in names.items():
    if kind in found.splits:
      write = words.signed_share if kind == 'difference' else words.share
      rows.append(
        [Cell(f'{_ALL}, over splits'), Cell(name)]
        + [cells.leaf(leaf, write) for leaf in found.splits[kind]]
      )
  return cells.Table(
    f'{records.name}-{reward}-wins',
    f'Share of test prompts that each arm wins by {reward}.',
    ['Prompts', 'Share', *records.arms],
    rows,
    labels=2,
  )


def _metrics(records: records_lib.Records, found: _Found) -> dict[str, Any]:
  by_arm = lambda leaves: dict(zip(records.arms, leaves, strict=True))
  shares = {
    category: {kind: by_arm(leaves) for kind, leaves in by_kind.items()}
    for category, by_kind in found.shares.items()
  }
  result = {
    'win_share': {
      'aggregate': shares.pop(None, {}),
      'by_category': shares,
    },
    'over_splits': {
      kind: by_arm(leaves) for kind, leaves in found.splits.items()
    },
    'num_prompts': found.counted,
    'num_incomplete': found.num - found.counted,
  }
  if found.proposition:
    result['proposition'] = proposition.metrics(found.proposition)
  return result
