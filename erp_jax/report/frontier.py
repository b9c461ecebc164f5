"""Regret against cost (the paper's Figures 1b, 5 and 6)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from matplotlib import figure as figure_lib

from erp_jax.report import evaluation as evaluation_lib
from erp_jax.report import figures, labels, words
from erp_jax.route import evaluate

# Of each policy in every figure: colour, dashes, width. Those that ignore the
# prompt are thin; dashes tell lines apart where colours do not print.
_LINES = {
  'erp': (figures.BLUE, '-', 2.4),
  'erp_loo': (figures.BLUE, (0, (1, 1.5)), 1.8),
  'erp_guarded': (figures.BLACK, '-', 2.0),
  'zooter': (figures.ORANGE, (0, (6, 1.5)), 2.0),
  'static_mixture': (figures.RED, '-', 1.4),
  'static_mixture_hindsight': (figures.RED, (0, (2, 2)), 1.2),
  'permuted': (figures.SKY, (0, (8, 2, 2, 2)), 1.4),
  'per_category': (figures.GREEN, (0, (5, 2)), 1.6),
}
_FRONT = ('erp', 'erp_guarded')  # Drawn above the others.
_NEAR_FRAC = 0.1  # Of the way from the cheapest to the dearest arm.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frontier:
  """What the figure shows; NaN where a policy can't be had for that cost.

  Attributes:
    cost_P: mean costs.
    regret_P: by policy.
    band_P: (low, high) by policy, as a shade.
    marked_P: masks by policy: points that no cheaper point of it beats.
    arms: {name: (cost, regret)} of always one arm.
    random: (cost, regret) of the random arm; None leaves it out.
    names: what policies are called.
    cost_unit: of the costs.
  """

  cost_P: np.ndarray
  regret_P: Mapping[str, np.ndarray]
  arms: Mapping[str, tuple[float, float]]
  names: Mapping[str, str]
  cost_unit: str
  band_P: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(
    default_factory=dict
  )
  marked_P: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  random: tuple[float, float] | None = None


def from_evaluation(evaluation: evaluation_lib.Evaluation) -> Frontier:
  """The figure's content from an evaluation folder."""
  costs = evaluation.costs.values()
  known = evaluation.policies
  return Frontier(
    cost_P=np.linspace(min(costs), max(costs), evaluate.NUM_FRACTIONS),
    regret_P={
      policy: evaluation.frontier(policy)
      for policy in _LINES
      if policy in known
    },
    arms={
      words.policy(policy, evaluation.names): evaluation.point(policy)
      for policy in known
      if policy.startswith(evaluation_lib.SAME)
    },
    names={p: words.policy(p, evaluation.names) for p in known},
    cost_unit=evaluation.cost_unit,
    random=evaluation.point(evaluation_lib.RANDOM)
    if evaluation_lib.RANDOM in known
    else None,
  )


def not_dominated(regret_P: np.ndarray) -> np.ndarray:
  """Points, from cheap to dear, with less regret than all cheaper ones."""
  value_P = np.where(np.isnan(regret_P), np.inf, regret_P)
  before_P = np.append(np.inf, np.minimum.accumulate(value_P)[:-1])
  return value_P < before_P


def draw(content: Frontier) -> figure_lib.Figure:
  """Lines of policies, points of single arms.

  Where one cheap, bad arm would flatten the lines, a second panel shows them
  from nearer.
  """
  x = content.cost_P
  lines = {p: content.regret_P[p] for p in _LINES if p in content.regret_P}
  all_y = np.array(list(lines.values()))
  near_y = all_y[:, x >= x[0] + _NEAR_FRAC * np.ptp(x)]
  low, high = np.nanmin(near_y), np.nanmax(near_y)
  zoom = high - low < (np.nanmax(all_y) - np.nanmin(all_y)) / 3
  figure = figures.new(figures.WIDTH, 8.2 if zoom else 5.4)
  panels = figure.subplots(1 + zoom, 1, squeeze=False, sharex=True)[:, 0]
  for axes in panels:
    for policy in lines:
      _line(axes, policy, content)
    if content.random is not None:
      axes.plot(
        *content.random,
        'X',
        color=figures.PURPLE,
        markersize=9,
        label=content.names['random'],
        zorder=4,
      )
    for point in content.arms.values():
      axes.plot(*point, 'o', color=figures.BLACK, markersize=6, zorder=4)
    figures.plain_axes(axes, '', 'regret (reward units, lower is better)')
  panels[0].set_ylim(bottom=0)
  if zoom:
    pad = 0.15 * max(high - low, 1e-6)
    panels[1].set_ylim(low - pad, high + pad)
    panels[1].set_title('the same, nearer', fontsize=10, loc='left')
  panels[-1].set_xlabel(f'mean cost per prompt ({content.cost_unit})')
  figures.legend(figure, *panels[0].get_legend_handles_labels(), columns=2)
  labels.place(panels, content.arms)
  return figure


def _line(axes, policy: str, content: Frontier) -> None:
  colour, dashes, width = _LINES[policy]
  y, order = content.regret_P[policy], 3 if policy in _FRONT else 2
  axes.plot(
    content.cost_P,
    y,
    color=colour,
    linestyle=dashes,
    linewidth=width,
    label=content.names[policy],
    zorder=order,
  )
  if policy in content.band_P:
    axes.fill_between(
      content.cost_P,
      *content.band_P[policy],
      color=colour,
      alpha=0.12,
      linewidth=0,
      zorder=1,
    )
  if policy in content.marked_P:
    marked_P = content.marked_P[policy]
    axes.plot(
      content.cost_P[marked_P],
      y[marked_P],
      '.',
      color=colour,
      markersize=5,
      zorder=order,
    )
