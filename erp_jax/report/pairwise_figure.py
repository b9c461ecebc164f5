"""AUROC of both predictors on each pair, as dots with their intervals."""

from collections.abc import Sequence

from matplotlib import figure as figure_lib

from erp_jax.probe import pair_intervals
from erp_jax.report import figures

# Of each predictor: label, colour, marker, and how far off the pair's line.
_LOOK = {
  'erp': ('ERP: σ(predicted reward − predicted reward)', figures.BLUE, 'o', -1),
  'logistic': ('logistic regression on the embedding', figures.RED, 's', 1),
}
_APART = 0.17
_AVERAGE = 'average over pairs'
_LONG = 36  # Letters: longer names of pairs take two lines.


def wrap(name: str) -> str:
  """'a or b' on one line, or two or more if it is long."""
  if len(name) <= _LONG:
    return name
  lines = name.replace(' or ', ' or\n', 1).split('\n')
  return '\n'.join(figures.in_lines(line, 0.45) for line in lines)


def draw(
  names: Sequence[str], intervals: pair_intervals.Intervals
) -> figure_lib.Figure:
  """A row of each pair, and of their average below a line."""
  rows = [wrap(name) for name in names]
  lines = max([2, *(row.count('\n') + 1 for row in rows)])
  figure = figures.new(figures.WIDTH, 1.7 + 0.21 * lines * len(names))
  axes = figure.subplots()
  last = len(names) + 0.3  # Where the average is.
  for name, (label, colour, marker, side) in _LOOK.items():
    leaves = [*intervals.by_pair[name], intervals.over_pairs[name]]
    for y, leaf in zip([*range(len(names)), last], leaves, strict=True):
      if leaf['mean'] is None:
        continue
      axes.errorbar(
        leaf['mean'],
        y + side * _APART,
        xerr=[
          [max(leaf['mean'] - leaf['lo'], 0)],
          [max(leaf['hi'] - leaf['mean'], 0)],
        ],
        fmt=marker,
        color=colour,
        markersize=6,
        markeredgecolor='white',
        markeredgewidth=0.6,
        elinewidth=1.4,
        capsize=3,
        label=label,
        zorder=3,
      )
  axes.axvline(0.5, color=figures.GREY, linestyle='--', linewidth=1)
  axes.axhline(last - 0.65, color=figures.GREY, linewidth=0.8)
  axes.set_yticks([*range(len(names)), last], [*rows, _AVERAGE])
  axes.set_ylim(last + 0.6, -0.6)
  figures.plain_axes(
    axes, 'AUROC of pairwise wins (0.5 is a coin, right is better)', ''
  )
  axes.grid(visible=False, axis='y')
  handles, labels = axes.get_legend_handles_labels()
  unique = dict(zip(labels, handles, strict=True))
  figures.legend(figure, unique.values(), unique, columns=len(unique))
  return figure
