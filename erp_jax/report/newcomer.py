"""One more arm: what it changes, and how many of its prompts to score first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as figure_lib

from erp_jax.core import resample
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.report import cells, document, figures, words
from erp_jax.route import enlarged, evaluate, learning
from erp_jax.route import newcomer as newcomer_lib

# Of each variant of its probe: name, colour, marker, dashes.
_LOOK = {
  newcomer_lib.POOLED: ('shrunken toward the pool', figures.BLUE, 'o', '-'),
  newcomer_lib.ALONE: (
    *('not shrunken, penalty by leave-one-out', figures.ORANGE),
    *('s', (0, (6, 1.5))),
  ),
  newcomer_lib.PLAIN: (
    *('not shrunken, as the pool’s arms', figures.RED),
    *('^', (0, (1, 1.5))),
  ),
}
_COMPARED = (newcomer_lib.PLAIN, newcomer_lib.POOLED)  # From all its prompts.
_SURE = 2.0  # Standard errors.


def measure(
  records: records_lib.Records,
  arm: str,
  train_N: np.ndarray,
  ridge: ridge_lib.RidgeConfig,
  cfg: newcomer_lib.NewcomerConfig,
  bootstrap: resample.BootstrapConfig,
) -> dict[str, Any]:
  """The numbers, by reward model; JSON-able, None where undefined.

  `compared` is `enlarged.compare` by variant of the newcomer's probe, from all
  its training prompts; `curve` has a row per number of scored prompts and
  variant, each number {mean, se} over random choices of them.
  """
  found = {}
  for reward in records.rewards:
    known = newcomer_lib.setting(records, reward, arm, train_N, ridge)
    every = np.arange(len(known.train_reward_N))
    compared = {}
    for variant in _COMPARED:
      probe, _ = newcomer_lib.fit(known, every, variant, ridge, cfg.pool)
      prediction_N = ridge_lib.predict(probe, known.test_emb_NE)[:, 0]
      compared[variant] = enlarged.compare(known, prediction_N, bootstrap)
    curves = newcomer_lib.learn(known, ridge, cfg)
    found[reward] = {
      'arms': list(known.arms),
      'costs': dict(zip(known.arms, known.cost_M.tolist(), strict=True)),
      'best_arm': known.best_arm,
      'counts': known.counts,
      'compared': compared,
      'curve': [_row(*key, curve) for key, curve in curves.items()],
    }
  return {
    'name': records.name,
    'title': records.title,
    'origin': records.origin,
    'cost_unit': records.cost_unit,
    'newcomer': arm,
    'repeats': cfg.repeats,
    'rewards': found,
  }


def section(metrics: Mapping[str, Any]) -> document.Section:
  """What a reader sees of `measure`."""
  return document.Section(
    title=metrics['title'],
    origin=metrics['origin'],
    text=[
      'Regret of both pools is against the best arm of the enlarged one, so a '
      'difference of regrets is one of rewards. Budgets are shares of the cost '
      'of the old pool’s best single arm. Costs are in '
      f'{metrics["cost_unit"]}.',
      'Traffic: the share of prompts that the newcomer gets. Change: of the '
      'regret, at equal cost. Old and new cost: the least for which each pool, '
      'along its curve, has the old one’s regret at the budget; saved: the '
      'part that falls away. A curve can dip below that regret at a lower cost '
      'than the budget, for either pool.',
    ],
    sections=[
      document.Section(
        title=reward,
        text=[_pool(found), _first(metrics, found)],
        tables=tables(metrics, reward),
        figures=[
          document.Figure(
            f'{metrics["name"]}-{reward}-newcomer',
            draw(found['curve']),
            f'Regret that {metrics["newcomer"]} takes off the old pool’s '
            f'({reward}), by the number of its prompts that are scored; above '
            'the line is better. Bars: two standard errors over '
            f'{metrics["repeats"]} random choices of these prompts (the last '
            'points are all there are), for one set of test prompts.',
          )
        ],
      )
      for reward, found in metrics['rewards'].items()
    ],
  )


def tables(metrics: Mapping[str, Any], reward: str) -> list[cells.Table]:
  """What the newcomer changes, by variant of its probe; and the curve."""
  found = metrics['rewards'][reward]
  prefix = f'{metrics["name"]}-{reward}'
  what = reward
  if metrics['origin'] == records_lib.SIMULATED:
    what = f'Simulated {reward}'  # Tables go to the terminal too.
  shown = [
    cells.Table(
      kind=f'{prefix}-compared-{variant}',
      title=f'{what}: the pool with {metrics["newcomer"]} (new) and without '
      f'(old), its probe {_LOOK[variant][0]}; with 95 % intervals over test '
      'prompts',
      head=(
        *('budget', 'traffic', 'old regret', 'new regret', 'change'),
        *('old cost', 'new cost', 'saved'),
      ),
      rows=[
        _compared_row(name, values)
        for name, values in found['compared'][variant].items()
      ],
    )
    for variant in _COMPARED
  ]
  feasible = _feasible(found['curve'])
  shown.append(
    cells.Table(
      kind=f'{prefix}-curve',
      title=f'{what}: regret that {metrics["newcomer"]} takes off the old '
      'pool’s, by scored prompts and budget, with R² of its probe and the '
      'share that the pool’s mean has in it; in brackets the standard error '
      f'in the last digits over {metrics["repeats"]} random choices',
      head=(
        *('scored', 'probe', 'R²', 'share'),
        *map(_budget, feasible),
      ),
      rows=[_curve_row(row, feasible) for row in found['curve']],
      labels=2,
    )
  )
  return shown


def draw(curve: list[Mapping[str, Any]]) -> figure_lib.Figure:
  """Regret saved against scored prompts, a panel per feasible budget."""
  feasible = _feasible(curve)
  columns = min(3, len(feasible))
  rows = -(-len(feasible) // columns)
  figure = figures.new(figures.WIDTH, 0.9 + 2.6 * rows)
  grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
  numbers = sorted({row['prompts'] for row in curve})
  for i, (axes, name) in enumerate(zip(grid.flat, feasible, strict=False)):
    for v, (variant, look) in enumerate(_LOOK.items()):
      label, colour, marker, dashes = look
      beside = 1.06 ** (v - 1)  # Bars would hide each other.
      points = [row for row in curve if row['variant'] == variant]
      axes.errorbar(
        [beside * row['prompts'] for row in points],
        [row['saved'][name]['mean'] for row in points],
        yerr=[_SURE * (row['saved'][name]['se'] or 0.0) for row in points],
        color=colour,
        marker=marker,
        linestyle=dashes,
        markersize=5,
        linewidth=1.6,
        elinewidth=1.2,
        capsize=3,
        label=label,
      )
    axes.axhline(0, color=figures.GREY, linestyle='--', linewidth=1)
    axes.set_xscale('log')
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.set_xticks([], minor=True)
    axes.set_title(_title(name), fontsize=10)
    figures.plain_axes(
      axes,
      'its scored prompts' if i + columns >= len(feasible) else '',
      'regret saved' if i % columns == 0 else '',
    )
    axes.tick_params(labelbottom=i + columns >= len(feasible))
  for axes in grid.flat[len(feasible) :]:
    axes.set_visible(False)
  named = grid.flat[0].get_legend_handles_labels()
  figures.legend(figure, *named, columns=3)
  return figure


def _row(variant: str, num: int, curve: newcomer_lib.Curve) -> dict[str, Any]:
  by_budget = lambda value_JP: dict(
    zip(learning.BUDGETS, learning.leaves(value_JP), strict=True)
  )
  limited_JP = curve.saved_JP[:, : len(evaluate.BUDGETS)]
  limited_JP = limited_JP[:, np.isfinite(limited_JP).all(axis=0)]
  over_J = limited_JP.mean(axis=1) if limited_JP.size else limited_JP.sum(1)
  return {
    'variant': variant,
    'prompts': num,
    'r2': learning.leaves(curve.r2_J),
    'share': learning.leaves(curve.share_J),
    'saved': by_budget(curve.saved_JP),
    'saved_mean': learning.leaves(
      over_J if limited_JP.size else over_J * np.nan
    ),
    'traffic': by_budget(curve.traffic_JP),
  }


def _feasible(curve: Sequence[Mapping[str, Any]]) -> list[str]:
  """The budgets with numbers."""
  first = curve[0]['saved']
  return [name for name, leaf in first.items() if leaf['mean'] is not None]


def _budget(name: str) -> str:
  return 'no limit' if name == learning.UNLIMITED else words.budget(name)


def _title(name: str) -> str:
  text = _budget(name)
  return text if name == learning.UNLIMITED else f'budget {text}'


def _compared_row(name: str, values: Mapping[str, Any]) -> list[cells.Cell]:
  leaf = lambda key, write: cells.leaf(values[key], write)
  needed, saved = (
    leaf('enlarged_cost', words.cost),
    leaf('saved_frac', words.share),
  )
  reached = values['reached']
  if reached is not None and reached < 1:
    how_often = f'in {words.share(reached)} of draws'
    if values['enlarged_cost']['mean'] is None:
      needed = cells.Cell('not reached', f'reached {how_often}')
    else:
      needed = cells.leaf(
        values['enlarged_cost'], words.cost, f'reached {how_often}'
      )
  return [
    cells.Cell(_budget(name)),
    leaf('traffic', words.share),
    leaf('old', words.number),
    leaf('enlarged', words.number),
    leaf('change', words.difference),
    leaf('old_cost', words.cost),
    needed,
    saved,
  ]


def _curve_row(row: Mapping[str, Any], feasible: list[str]) -> list[cells.Cell]:
  def cell(leaf, digits=3):
    text = words.uncertain(leaf['mean'], leaf['se'], digits)
    return cells.Cell(text, value=resample.number(leaf['mean']))

  return [
    cells.Cell(words.count(row['prompts'])),
    cells.Cell(_LOOK[row['variant']][0]),
    cell(row['r2']),
    cell(row['share'], 2),
    *(cell(row['saved'][name], 4) for name in feasible),
  ]


def _pool(found: Mapping[str, Any]) -> str:
  counts = found['counts']
  costs = [f'{arm} {words.cost(cost)}' for arm, cost in found['costs'].items()]
  return (
    f'Pool and newcomer (last), with costs: {", ".join(costs)}. Best single '
    f'arm of the old pool: {found["best_arm"]}. The newcomer has rewards of '
    f'{words.count(counts["train_scored"])} of '
    f'{words.count(counts["train"])} training prompts; judged on '
    f'{words.count(counts["test_complete"])} of {words.count(counts["test"])} '
    'test prompts, those with rewards of all arms.'
  )


def _first(metrics: Mapping[str, Any], found: Mapping[str, Any]) -> str:
  """How many prompts to score first."""
  name = metrics['newcomer']
  rows = [
    row
    for row in found['curve']
    if row['variant'] == newcomer_lib.POOLED
    and row['saved_mean']['se'] is not None
  ]
  if not rows:
    return (
      'There are too few scored prompts, or no feasible budget, for a curve.'
    )
  for row in rows:
    mean, se = (row['saved_mean'][key] for key in ('mean', 'se'))
    if mean > _SURE * se:
      return (
        f'With {row["prompts"]} scored prompts, the fewest tried for which '
        f'that holds, {name} with a shrunken probe takes '
        f'{words.number(mean, 4)} off the regret (mean over the budgets), more '
        'than two standard errors above zero.'
      )
  return (
    f'With none of {", ".join(str(row["prompts"]) for row in rows)} scored '
    f'prompts does {name} with a shrunken probe take off regret, in the mean '
    'over the budgets, by more than two standard errors.'
  )
