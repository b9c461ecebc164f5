"""The figures, as PNG bytes. Colours are Okabe and Ito's, for every eye."""

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import axis as axis_lib
from matplotlib import figure as figure_lib
from matplotlib import font_manager, ticker
from matplotlib import legend as legend_lib
from matplotlib import text as text_lib
from matplotlib.backends import backend_agg

from erp_jax.report import evaluation as evaluation_lib

BLACK, ORANGE, SKY, GREEN = '#000000', '#E69F00', '#56B4E9', '#009E73'
YELLOW, BLUE, RED, PURPLE = '#F0E442', '#0072B2', '#D55E00', '#CC79A7'
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, BLACK)
DARK = (BLUE, RED, BLACK, GREEN)  # White text is legible on these.
MARKERS = 'os^DvP'
HATCHES = ('', '///', '...', 'xxx')
GREY = '#666666'
DPI = 160
WIDTH = 8.4  # Inches; text is 10 points at the width of a printed page.
_LETTERS = 115  # That WIDTH holds of 10-point text; legends have 9 points.
_MAX_GROUPS = 10
_GROUP = 'mean of a group of like predictions'
_MIN_GROUP = 20  # Prompts: fewer make a mean of noise.


def new(width: float, height: float) -> figure_lib.Figure:
  """An empty figure, in inches."""
  figure = figure_lib.Figure((width, height), dpi=DPI, layout='constrained')
  backend_agg.FigureCanvasAgg(figure)
  return figure


def plain_axes(axes, x_label: str, y_label: str) -> None:
  """Plain axes: no box, light grid, labels."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(color='#dddddd', linewidth=0.6)
  axes.set_axisbelow(True)
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)


def legend(
  figure: figure_lib.Figure,
  handles: Iterable[Any],
  names: Iterable[str],
  columns: int,
  side: str = 'center',
) -> legend_lib.Legend:
  """The figure's legend, below its panels."""
  return figure.legend(
    handles,
    names,
    loc=f'outside lower {side}',
    ncols=columns,
    frameon=False,
    fontsize=9,
  )


def in_lines(name: str, share: float) -> str:
  """The name in lines that take at most this share of WIDTH."""
  return textwrap.fill(name, int(_LETTERS * share))


def legend_columns(names: Sequence[str], most: int) -> int:
  """How many columns of these names fit beside each other."""
  longest = 7 + max(map(len, names))  # With a colour before it.
  return max(1, min(most, len(names), round(_LETTERS * 10 / 9) // longest))


def literal(figure: figure_lib.Figure) -> None:
  """Takes names as they are: no $ begins a formula, no glyph is missing.

  What the font lacks becomes its code point, which tells names apart; pages and
  tables have the names themselves. Call it before anything is drawn.
  """
  for text in figure.findobj(text_lib.Text):
    text.set_parse_math(False)
    text.set_text(in_font(text.get_text()))
  for axis in figure.findobj(axis_lib.Axis):
    shown = axis.get_major_formatter()
    if isinstance(shown, ticker.FuncFormatter):  # What set_yticks makes.
      axis.set_major_formatter(_in_font_at(shown))


def _in_font_at(shown: ticker.FuncFormatter) -> ticker.FuncFormatter:
  return ticker.FuncFormatter(lambda *at: in_font(shown(*at)))


def in_font(text: str) -> str:
  """The text, with code points for what the figures' font lacks."""
  if text.isascii():
    return text
  font = font_manager.get_font(font_manager.findfont('DejaVu Sans'))
  return ''.join(
    c if c == '\n' or font.get_char_index(ord(c)) else f'U+{ord(c):04X}'
    for c in text
  )


def png(figure: figure_lib.Figure) -> bytes:
  """The figure as a PNG file."""
  literal(figure)
  sink = io.BytesIO()
  # Not savefig: it lays out and draws everything twice.
  figure.canvas.print_png(sink, metadata={'Software': None})
  return sink.getvalue()


def stamp(figure: figure_lib.Figure, text: str) -> None:
  """Writes a mark into the figure's lower left corner, for what it is made of.

  A second time changes nothing.
  """
  if not any(found.get_gid() == 'stamp' for found in figure.texts):
    figure.text(
      *(0.005, 0.005, text),
      fontsize=8,
      color=BLACK,
      backgroundcolor=YELLOW,
      gid='stamp',
    )


class Points(NamedTuple):
  """Predicted and actual rewards of prompts, and their categories."""

  predicted_N: np.ndarray
  actual_N: np.ndarray
  category_N: np.ndarray


def predicted(evaluation: evaluation_lib.Evaluation) -> figure_lib.Figure:
  """Predicted against actual reward of the test prompts, a panel per arm."""
  table = evaluation.predictions
  valid = (table['split'] == 'test') & np.isfinite(table['reward'])
  panels = {}
  for model in evaluation.models:
    rows = valid & (table['arm'] == model)
    panels[evaluation.names[model]] = Points(
      table['prediction'][rows], table['reward'][rows], table['category'][rows]
    )
  return scatter(panels, evaluation.categories)


def scatter(
  panels: Mapping[str, Points], categories: Sequence[str]
) -> figure_lib.Figure:
  """Predicted against actual rewards: a panel each, a colour per category."""
  columns = 2 if len(panels) == 4 else min(len(panels), 3)
  rows = -(-len(panels) // columns)
  named = [*categories, _GROUP]
  beside = legend_columns(named, 3)
  figure = new(WIDTH, 0.7 + 2.9 * rows + 0.2 * max(1, len(named) / beside - 1))
  grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
  handles = {}
  for i, (axes, title) in enumerate(zip(grid.flat, panels, strict=False)):
    points = panels[title]
    few = len(points.actual_N) < 300
    for c, category in enumerate(categories):
      of_category = points.category_N == category
      (handles[category],) = axes.plot(
        points.predicted_N[of_category],
        points.actual_N[of_category],
        linestyle='none',
        marker=MARKERS[c // len(CYCLE) % len(MARKERS)],
        color=CYCLE[c % len(CYCLE)],
        markeredgewidth=0,
        markersize=4.5 if few else 2.5,  # So that no category hides another.
        alpha=0.6 if few else 0.4,
      )
    (handles[_GROUP],) = axes.plot(
      *_group_means(points.predicted_N, points.actual_N),
      'o',
      markerfacecolor='white',
      markeredgecolor=BLACK,
      markersize=6,
    )
    axes.axline((0, 0), slope=1, color=GREY, linestyle='--', linewidth=1)
    axes.set_title(in_lines(title, 0.85 / columns), fontsize=10)
    first, last = i % columns == 0, i + columns >= len(panels)
    plain_axes(
      axes,
      'predicted (reward units)' if last else '',
      'actual (reward units)' if first else '',
    )
    axes.tick_params(labelbottom=last)
  for axes in grid.flat[len(panels) :]:
    axes.set_visible(False)
  x = np.concatenate([points.predicted_N for points in panels.values()])
  y = np.concatenate([points.actual_N for points in panels.values()])
  if x.size:
    pad = 0.05 * max(np.ptp(x), 1e-3)
    grid.flat[0].set_xlim(x.min() - pad, x.max() + pad)
    pad = 0.05 * max(np.ptp(y), 1e-3)
    grid.flat[0].set_ylim(y.min() - pad, y.max() + pad)
  # A stamp stands at the left.
  drawn = legend(figure, handles.values(), handles, beside, 'right')
  for handle in drawn.legend_handles:
    handle.set_alpha(1)
    handle.set_markersize(6)
  return figure


def _group_means(x: np.ndarray, y: np.ndarray) -> tuple[list, list]:
  """Means of up to ten equal groups by x; none where there are too few."""
  num_groups = min(_MAX_GROUPS, x.size // _MIN_GROUP)
  if num_groups < 2:
    return [], []
  parts = np.array_split(np.argsort(x, kind='stable'), num_groups)
  return [x[p].mean() for p in parts], [y[p].mean() for p in parts]


def wins(evaluation: evaluation_lib.Evaluation) -> figure_lib.Figure:
  """True and predicted win shares: two stacked bars per category."""
  kinds = ('true', 'predicted')
  return share_bars(
    {
      f'{category}, {kind}': [
        evaluation.win_share(category, model, kind)
        for model in evaluation.models
      ]
      for category in evaluation.categories
      for kind in kinds
    },
    [evaluation.names[model] for model in evaluation.models],
    'share of test prompts on which the arm is best (%)',
    group=len(kinds),
  )


def share_bars(
  shares: Mapping[str, Sequence[float]],
  arms: Sequence[str],
  x_label: str,
  group: int,
) -> figure_lib.Figure:
  """A stacked bar for each of `shares`, {label: share of each arm}, from above.

  `group` neighbours stand together. A share that is NaN is not drawn.
  """
  ticks = [(group + 0.4) * (i // group) + i % group for i in range(len(shares))]
  beside = legend_columns(arms, 4)
  height = 1.87 + 0.26 * ticks[-1] + 0.2 * max(0, len(arms) / beside - 2)
  figure = new(WIDTH, height)
  axes = figure.subplots()
  named: dict[int, Any] = {}
  for y, share_M in zip(ticks, shares.values(), strict=True):
    left = 0.0
    for i, share in enumerate(share_M):
      if math.isnan(share):
        continue
      colour = CYCLE[i % len(CYCLE)]
      bar = axes.barh(
        y,
        100 * share,
        left=100 * left,
        height=0.9,
        color=colour,
        hatch=HATCHES[i // len(CYCLE) % len(HATCHES)],
        edgecolor='white',
        linewidth=0.8,
      )
      named.setdefault(i, bar)
      if share >= 0.08:
        axes.text(
          100 * (left + share / 2),
          y,
          f'{100 * share:.0f}',
          ha='center',
          va='center',
          fontsize=8,
          color='white' if colour in DARK else BLACK,
        )
      left += share
  axes.set_yticks(ticks, [in_lines(name, 0.4) for name in shares])
  axes.set_ylim(ticks[-1] + 0.7, -0.7)
  axes.set_xlim(0, 100)
  plain_axes(axes, x_label, '')
  axes.grid(visible=False, axis='y')
  names = [in_lines(arms[i], 0.9) for i in named]
  legend(figure, named.values(), names, beside)
  return figure
