"""Predictability, E1 to E4: R², its ceilings, and what is predicted of it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import decomposition, explained, predictability
from erp_jax.probe import records as records_lib
from erp_jax.report import (
  cells,
  document,
  experiment,
  figures,
  paper,
  predictability_tables,
  words,
)

_ABOUT = {
  explained.TEST_MEAN: 'the same test prompts’ own mean',
  explained.TRAIN_MEAN: 'the mean over the same category’s training prompts',
  explained.GLOBAL_MEAN: 'the mean over all test prompts',
}


def build(
  records: Sequence[records_lib.Records],
  cfg: predictability.PredictabilityConfig,
  common: experiment.ExperimentConfig,
) -> experiment.Result:
  """A section per records, a part of it per reward model."""

  def say(one: records_lib.Records) -> experiment.Part:
    masks = common.track(one, 'predictability')
    by_reward = predictability.evaluate(
      one, masks, common.ridge, common.bootstrap, cfg
    )
    return experiment.Part(
      text=_scope(one, cfg, common),
      tables=[_variance(one, by_reward)],
      rewards={
        reward: (
          _section(one, reward, found, cfg, common),
          _metrics(one.arms, found),
        )
        for reward, found in by_reward.items()
      },
    )

  return experiment.gather(records, say)


def _scope(
  records: records_lib.Records,
  cfg: predictability.PredictabilityConfig,
  common: experiment.ExperimentConfig,
) -> list[str]:
  train_N = next(common.masks(records))
  length = float(np.linalg.norm(records.emb_NE, axis=1).mean())
  return [
    f'{words.count(len(train_N))} prompts, '
    f'{words.count(int(train_N.sum()))} of them for training; '
    f'{len(records.arms)} models: {words.join(list(records.arms))}. '
    f'Embeddings are {records.emb_NE.shape[1]} wide, '
    f'{words.number(length)} long on average before any scaling.',
    'R² is the share of the variance of mean rewards over test prompts that '
    'the prediction explains; below 0 it is worse than a constant. The '
    f'variance is about {_ABOUT[cfg.baseline]}. Targets are means of K '
    'samples, so even a perfect prediction stays below 1, at the noise '
    'ceiling 1 − mean(s²/K) / variance.',
  ]


def _variance(
  records: records_lib.Records, found: dict[str, predictability.Found]
) -> cells.Table:
  num = {one.decomposition.num_prompts for one in found.values()}
  counts = words.join([words.count(n) for n in sorted(num)])
  return predictability_tables.variance(
    records.name,
    found,
    'Where rewards vary, in squared reward units and as shares of the variance '
    'of one reward (of ER, where it is known, as shares of its own), over the '
    f'{counts} prompts with rewards of all models. '
    'Prompt: common to all models on a prompt; a router cannot use it. Model: '
    'the same on all prompts. Interaction: what a model is better on one '
    'prompt than another, which is all that routing by prompt can use. Noise: '
    'between samples. Estimates without bias, so small ones may be below 0; '
    '95 % bootstrap intervals over prompts.',
  )


def _section(
  records: records_lib.Records,
  reward: str,
  found: predictability.Found,
  cfg: predictability.PredictabilityConfig,
  common: experiment.ExperimentConfig,
) -> document.Section:
  kind, arms = f'{records.name}-{reward}', records.arms
  tables = [
    predictability_tables.r2(
      *(kind, arms, found),
      f'R² by {reward}, first split, with 95 % bootstrap intervals over its '
      f'{words.count(len(found.category_N))} test prompts.',
    ),
    predictability_tables.over_splits(
      *(kind, arms, found),
      f'R² by {reward} over {common.splits} random splits: mean, standard '
      'deviation (±), and the 95 % interval that is corrected for the prompts '
      'that splits share (Nadeau and Bengio).',
    ),
  ]
  if _has_ceiling(found):
    tables.append(
      predictability_tables.ceilings(
        *(kind, arms, found),
        'Noise ceilings of the R² of the first split, on the same prompts, and '
        'the part of them that is reached, where the ceiling is clear of 0 '
        '(95 % lower bound above 0.05).',
      )
    )
  if any(not math.isnan(paper.r2(reward, arm, None)) for arm in arms):
    tables.append(
      predictability_tables.beside_paper(
        *(kind, reward, arms, found), _beside_title(records, common)
      )
    )
  tables.append(
    predictability_tables.contrasts(
      *(kind, arms, found),
      'R² of contrasts: a model’s reward minus the prompt’s mean over models. '
      'Knowing which model is better on average counts for nothing: this is '
      'what routing by prompt has to go by.',
    )
  )
  if not all(one.reason for one in found.without):
    tables.append(
      predictability_tables.without(
        *(kind, arms, found),
        'R² over all prompts without the responses named at the left, in the '
        'means that are fitted and in those that are predicted. First split.',
      )
    )
  if found.fits:
    tables.append(
      predictability_tables.fits(
        *(kind, found),
        f'R² under other readings of the ridge with β = {common.ridge.beta:g}: '
        'the penalty against the sum of squared errors or their mean, '
        'embeddings of unit length or raw; β chosen by leave-one-out; no '
        'intercept. Means over models, first split.',
      )
    )
  return document.Section(
    title=f'Reward model {reward}',
    text=_notes(records, found, cfg),
    tables=tables,
    figures=[_figure(records, reward, found)],
    origin=records.origin,
  )


def _beside_title(
  records: records_lib.Records, common: experiment.ExperimentConfig
) -> str:
  here = {
    records_lib.SIMULATED: 'SIMULATED rewards, tuned to resemble the paper’s '
    'columns, so likeness is no confirmation',
    records_lib.RECORDED: 'recorded outcomes of other prompts',
    records_lib.RUN: 'this run',
  }[records.origin]
  return (
    f'Beside the paper (its Tables 1 and 2). Here: {here}; mean and standard '
    f'deviation of {common.splits} splits, with their interval. The paper '
    'prints one split, without intervals.'
  )


def _has_ceiling(found: predictability.Found) -> bool:
  return any(
    not one.ceiling.reason for row in found.scores.values() for one in row
  )


def _notes(
  records: records_lib.Records,
  found: predictability.Found,
  cfg: predictability.PredictabilityConfig,
) -> list[str]:
  """What of this reward model's rewards needs to be said before the tables."""
  notes = []
  whole = found.scores[None]
  num_test = len(found.category_N)
  missing = [
    f'{arm} {words.count(one.num_prompts)}'
    for arm, one in zip(records.arms, whole, strict=True)
    if one.num_prompts < num_test
  ]
  if missing:
    notes.append(
      'Rewards are used where they are present. Test prompts with one, of '
      f'{words.count(num_test)}: {words.join(missing)}.'
    )
  if cfg.ceiling and not _has_ceiling(found):
    reasons = dict.fromkeys(one.ceiling.reason for one in whole)
    notes.append(f'No noise ceilings: {words.join(list(reasons))}.')
  unknown = [flag for one in found.without for flag in one.flags if one.reason]
  if unknown:
    notes.append(
      f'Not known of these records: which responses are {words.join(unknown)}.'
    )
  undefined = {
    f'{arm}, {paper.title(category)}: {one.reason}'
    for category, row in found.scores.items()
    for arm, one in zip(records.arms, row, strict=True)
    if one.reason
  }
  if undefined:
    notes.append(f'R² is undefined for {"; ".join(sorted(undefined))}.')
  return notes


def _figure(
  records: records_lib.Records, reward: str, found: predictability.Found
) -> document.Figure:
  panels = {}
  categories = paper.ordered([c for c in found.scores if c is not None])
  titles_N = np.array([paper.title(c) for c in found.category_N.tolist()])
  for m, arm in enumerate(records.arms):
    known_N = np.isfinite(found.mean_NM[:, m])
    value = found.scores[None][m].r2['mean']
    text = 'R² undefined' if value is None else f'R² {words.number(value, 2)}'
    panels[f'{arm} ({text})'] = figures.Points(
      found.prediction_NM[known_N, m],
      found.mean_NM[known_N, m],
      titles_N[known_N],
    )
  return document.Figure(
    f'{records.name}-{reward}-predicted',
    figures.scatter(panels, [paper.title(c) for c in categories]),
    f'Predicted against actual mean reward by {reward} on the first split’s '
    'test prompts, a panel per model, a colour per category. On the dashed '
    'line a prediction is exactly right.',
  )


def _metrics(
  arms: Sequence[str], found: predictability.Found
) -> dict[str, Any]:
  scores, together = found.contrasts
  split_M = found.contrasts_over_splits
  return {
    'r2': _table_metrics(arms, found.scores),
    'r2_over_splits': _nested(
      {
        category: _with(arms, row[:-1], 'mean', row[-1])
        for category, row in found.over_splits.items()
      }
    ),
    'contrasts': {
      'first_split': _with(
        arms,
        [one.as_metrics() for one in scores],
        *('together', together.as_metrics()),
      ),
      'over_splits': _with(arms, split_M[:-1], 'together', split_M[-1]),
    },
    'variance': _parts(found.decomposition),
    'variance_of_er': _parts(found.true_decomposition)
    if found.true_decomposition is not None
    else None,
    'without': {
      '+'.join(one.flags): {'reason': one.reason}
      if one.reason
      else {
        'share': dict(zip(arms, _numbers(one.share_M), strict=True)),
        'r2': _table_metrics(arms, one.scores),
      }
      for one in found.without
    },
    'fits': {
      name: _table_metrics(arms, table) for name, table in found.fits.items()
    },
  }


def _table_metrics(
  arms: Sequence[str], table: explained.Table
) -> dict[str, Any]:
  return _nested(
    {
      category: _with(
        arms,
        [one.as_metrics() for one in row],
        *('mean', explained.mean_of(row)),
      )
      for category, row in table.items()
    }
  )


def _nested(by_category: dict[str | None, dict[str, Any]]) -> dict[str, Any]:
  """{'aggregate': …, 'by_category': {category: …}}."""
  return {
    'aggregate': by_category[None],
    'by_category': {c: v for c, v in by_category.items() if c is not None},
  }


def _with(
  arms: Sequence[str], values: Sequence[Any], name: str, more: Any
) -> dict[str, Any]:
  """{'arms': values by arm, name: more}."""
  return {'arms': dict(zip(arms, values, strict=True)), name: more}


def _parts(found: decomposition.Decomposition) -> dict[str, Any]:
  names = ('prompt', 'arm', 'interaction', 'noise')
  names += ('prompt_upper', 'interaction_upper')
  values = _numbers([getattr(found, name) for name in names])
  return dict(zip(names, values, strict=True)) | {
    'intervals': {n: list(pair) for n, pair in found.intervals.items()},
    'num_prompts': found.num_prompts,
    'num_pooled': found.num_pooled,
    'reason': found.reason,
  }


def _numbers(values) -> list[float | None]:
  return [resample.defined(value) for value in values]
