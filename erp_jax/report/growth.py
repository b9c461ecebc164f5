"""How time grows with the size of the work: exponents, tables, figures."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import figure as figure_lib
from matplotlib import ticker

from erp_jax.report import cells, figures

# What is varied, as titles call it.
LABELS = {
  'prompts': 'prompts (N)',
  'k': 'responses each (K)',
  'arms': 'arms (M)',
  'prompt_tokens': 'tokens of a prompt',
  'response_tokens': 'tokens of a response',
  'width': 'width of a vector (E)',
  'devices': 'devices of one CPU',
}
_COLUMNS = 3


class Curve(NamedTuple):
  """Seconds of a stage at several sizes of one thing, all else the same."""

  stage: str
  against: str  # One of LABELS.
  sizes: Sequence[int]
  secs: Sequence[float]


class PowerLaw(NamedTuple):
  """secs = factor * size ** exponent, and the exponent's standard error."""

  exponent: float
  error: float
  factor: float


def fit(curve: Curve) -> PowerLaw:
  """Least squares of log seconds on log size.

  The error is that of independent, equally large errors of the logarithms; NaN
  for two sizes, which any line meets. A curve that is no power law has an
  exponent between those of its ends, and a large error.
  """
  x, y = np.log(curve.sizes), np.log(curve.secs)
  centred = x - x.mean()
  spread = centred @ centred
  exponent = centred @ y / spread
  resid = y - y.mean() - exponent * centred
  error = math.nan
  if len(x) > 2:
    error = math.sqrt(resid @ resid / (len(x) - 2) / spread)
  factor = math.exp(y.mean() - exponent * x.mean())
  return PowerLaw(float(exponent), error, factor)


def points(curves: Sequence[Curve]) -> cells.Table:
  """Every measurement."""
  rows = [
    [
      cells.Cell(curve.stage),
      cells.Cell(curve.against),
      cells.number(size, write=str),
      cells.number(secs),
    ]
    for curve in curves
    for size, secs in zip(curve.sizes, curve.secs, strict=True)
  ]
  head = ['stage', 'against', 'size', 'seconds']
  return cells.Table('points', 'Seconds of each run.', head, rows, labels=2)


def exponents(curves: Sequence[Curve]) -> cells.Table:
  """A row for each curve: its ends and its power law."""
  rows = []
  for curve in curves:
    law = fit(curve)
    rows.append(
      [
        cells.Cell(curve.stage),
        cells.Cell(LABELS[curve.against]),
        cells.Cell(f'{curve.sizes[0]:,} to {curve.sizes[-1]:,}'),
        cells.Cell(f'{curve.secs[0]:.2g} to {curve.secs[-1]:.2g}'),
        cells.Cell(_said(law)),
      ]
    )
  head = ['stage', 'against', 'sizes', 'seconds', 'exponent']
  title = 'Time grows with this power of the size, ± its standard error.'
  return cells.Table('exponents', title, head, rows, labels=2)


def draw(curves: Sequence[Curve]) -> Mapping[str, figure_lib.Figure]:
  """A figure for each stage, with a panel for each thing that is varied."""
  stages = dict.fromkeys(curve.stage for curve in curves)
  return {
    stage: _draw([curve for curve in curves if curve.stage == stage])
    for stage in stages
  }


def _draw(curves: Sequence[Curve]) -> figure_lib.Figure:
  columns = min(len(curves), _COLUMNS)
  rows = -(-len(curves) // columns)
  figure = figures.new(figures.WIDTH, 0.3 + 2.2 * rows)
  grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
  for axes in grid.flat[len(curves) :]:
    axes.set_visible(False)
  for i, (axes, curve) in enumerate(zip(grid.flat, curves, strict=False)):
    law = fit(curve)
    sizes = np.array(curve.sizes, float)
    line = law.factor * sizes**law.exponent
    axes.loglog(sizes, line, color=figures.SKY, zorder=1)
    axes.plot(sizes, curve.secs, 'o', color=figures.BLUE, markersize=4)
    label = '' if i % columns else 'seconds'
    figures.plain_axes(axes, LABELS[curve.against], label)
    axes.set_title(f'exponent {_said(law)}', fontsize=9)
    axes.set_xticks(sizes, [f'{size:g}' for size in sizes], fontsize=8)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter('{x:g}'))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
  figure.suptitle(curves[0].stage, fontsize=11)
  return figure


def _said(law: PowerLaw) -> str:
  error = '' if math.isnan(law.error) else f' ± {law.error:.2f}'
  return f'{law.exponent:.2f}{error}'.replace('-', '−')
