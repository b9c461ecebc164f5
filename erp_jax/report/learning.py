"""Learning curves: what more prompts, or more samples of each, would bring."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure as figure_lib

from erp_jax.core import errors
from erp_jax.probe import records as records_lib
from erp_jax.report import cells, document, experiment, figures, words
from erp_jax.route import allocation, learning

_BUDGET = '0.5'  # Of the table and the figure of regret.


def build(
  records: Sequence[records_lib.Records],
  cfg: learning.LearningConfig,
  common: experiment.ExperimentConfig,
) -> experiment.Result:
  """A section per records, a part of it per reward model; first split."""

  def say(one: records_lib.Records) -> experiment.Part:
    train_N = next(common.masks(one))
    used = _fitting(one, train_N, cfg)
    return experiment.Part(
      text=[_scope(train_N, cfg, used)],
      rewards={
        reward: (_section(one, reward, curve), _metrics(curve))
        for reward, curve in learning.of_records(one, train_N, used).items()
      },
    )

  return experiment.gather(records, say)


def _fitting(
  records: records_lib.Records,
  train_N: np.ndarray,
  cfg: learning.LearningConfig,
) -> learning.LearningConfig:
  """The part of the grid that these records have prompts and samples for."""
  most = min(r_NKM.shape[1] for r_NKM in records.reward_NKM.values())
  prompts = tuple(n for n in cfg.num_prompts if n <= train_N.sum())
  samples = tuple(k for k in cfg.num_samples if k <= most)
  if not (prompts and samples):
    raise errors.UserError(
      f'{records.title} has {train_N.sum()} training prompts and {most} '
      'samples of each, fewer than any of learning.num_prompts and '
      'learning.num_samples: lower them.'
    )
  return dataclasses.replace(cfg, num_prompts=prompts, num_samples=samples)


def _scope(
  train_N: np.ndarray,
  cfg: learning.LearningConfig,
  used: learning.LearningConfig,
) -> str:
  left_out = [
    *(f'N = {n}' for n in cfg.num_prompts if n not in used.num_prompts),
    *(f'K = {k}' for k in cfg.num_samples if k not in used.num_samples),
  ]
  more = f' There are too few for {words.join(left_out)}.' if left_out else ''
  return (
    f'{used.repeats} random subsamples of {words.count(int(train_N.sum()))} '
    f'training prompts, judged on {words.count(int((~train_N).sum()))} others. '
    'The more of the training prompts a cell takes, the less its subsamples '
    f'differ: the standard errors are of this training set.{more}'
  )


def _section(
  records: records_lib.Records, reward: str, curve: learning.LearningCurve
) -> document.Section:
  prefix = f'{records.name}-{reward}'
  truth = (
    'the known expected reward'
    if curve.knows_er
    else ('the mean of all samples')
  )
  grids = {
    'r2': ('R², mean over arms', curve.r2_JNK),
    'contrast-r2': (
      'R² of contrasts between arms, which is what routing uses',
      curve.contrast_r2_JNK,
    ),
  }
  if len(records.arms) > 1:
    at = learning.BUDGETS.index(_BUDGET)
    grids['saved'] = (
      f'Regret that ERP saves against the static mixture at a budget of '
      f'{words.budget(_BUDGET)}',
      curve.advantage_JNKP[..., at],
    )
  return document.Section(
    title=f'Reward: {reward}',
    origin=records.origin,
    text=[f'R² and regret are against {truth}.'],
    tables=[
      *(
        _grid(f'{prefix}-{kind}', title, curve, value_JNK)
        for kind, (title, value_JNK) in grids.items()
      ),
      *([_best(prefix, curve)] if allocation.totals(curve) else []),
    ],
    figures=[
      document.Figure(
        f'{prefix}-learning',
        _draw(grids, curve),
        'Against the number of training prompts, a line per number of samples '
        'of each; bars: two standard errors over subsamples.',
      )
    ],
  )


def _grid(
  kind: str, title: str, curve: learning.LearningCurve, value_JNK: np.ndarray
) -> cells.Table:
  mean, se = learning.mean_se(value_JNK)
  rows = [
    [
      cells.Cell(words.count(int(n))),
      *(
        cells.number(
          mean[i, k],
          *(mean[i, k] - 2 * se[i, k], mean[i, k] + 2 * se[i, k]),
        )
        for k in range(len(curve.num_samples_K))
      ),
    ]
    for i, n in enumerate(curve.num_prompts_N)
  ]
  return cells.Table(
    kind,
    f'{title}; below it two standard errors over subsamples.',
    ['Prompts N', *(f'K = {k}' for k in curve.num_samples_K)],
    rows,
  )


def _best(prefix: str, curve: learning.LearningCurve) -> cells.Table:
  rows = []
  for total in allocation.totals(curve):
    for by in allocation.CRITERIA:
      best = allocation.best_allocation(curve, total, by)
      if math.isnan(best.value):
        continue
      lead = words.DASH
      if best.runner_up != (0, 0):
        n, k = best.runner_up
        lead = (
          f'{words.number(best.lead, 4)} ± {words.number(best.lead_se, 4)} '
          f'over {n} × {k}'
        )
      rows.append(
        [
          cells.Cell(words.count(total)),
          cells.Cell(by),
          cells.Cell(f'{best.num_prompts} × {best.num_samples}'),
          cells.number(best.value),
          cells.Cell(lead),
        ]
      )
  return cells.Table(
    f'{prefix}-best',
    'The best N × K for a fixed number of samples, and its lead over the '
    'second best with the standard error; the best of several noisy means '
    'looks a little better than it is.',
    ['Samples', 'By', 'Best N × K', 'Value', 'Lead'],
    rows,
    labels=3,
  )


def _draw(
  grids: dict[str, tuple[str, np.ndarray]], curve: learning.LearningCurve
) -> figure_lib.Figure:
  figure = figures.new(figures.WIDTH, 3.6)
  panels = figure.subplots(1, len(grids), squeeze=False)[0]
  for axes, (title, value_JNK) in zip(panels, grids.values(), strict=True):
    mean, se = learning.mean_se(value_JNK)
    for k, num in enumerate(curve.num_samples_K):
      axes.errorbar(
        curve.num_prompts_N,
        mean[:, k],
        np.nan_to_num(2 * se[:, k]),
        color=figures.CYCLE[k % len(figures.CYCLE)],
        marker=figures.MARKERS[k % len(figures.MARKERS)],
        markersize=4,
        linewidth=1.4,
        capsize=2,
        label=f'K = {num}',
      )
    axes.set_xscale('log')
    axes.set_xticks(
      curve.num_prompts_N, [str(n) for n in curve.num_prompts_N], minor=False
    )
    axes.minorticks_off()
    figures.plain_axes(axes, 'training prompts', '')
    axes.set_title(title.split(',')[0].split(' at ')[0], fontsize=9, wrap=True)
  named = panels[0].get_legend_handles_labels()
  figures.legend(figure, *named, columns=len(curve.num_samples_K))
  return figure


def _metrics(curve: learning.LearningCurve) -> dict[str, Any]:
  """Means and standard errors, None where undefined, [N][K] and by budget."""

  def plain(value):
    if isinstance(value, list):
      return [plain(item) for item in value]
    return value if math.isfinite(value) else None

  def leaf(value_J):
    mean, se = learning.mean_se(value_J)
    return {'mean': plain(mean.tolist()), 'se': plain(se.tolist())}

  return {
    'num_prompts': curve.num_prompts_N.tolist(),
    'num_samples': curve.num_samples_K.tolist(),
    'num_test': curve.num_test,
    'r2': leaf(curve.r2_JNK),
    'contrast_r2': leaf(curve.contrast_r2_JNK),
    'regret': {
      policy: {
        budget: leaf(regret_JNKP[..., p])
        for p, budget in enumerate(learning.BUDGETS)
      }
      for policy, regret_JNKP in curve.regret_JNKP.items()
    },
  }
