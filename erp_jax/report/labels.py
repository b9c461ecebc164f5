"""Names beside points of a plot, where they cover no line and no other name."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes as axes_lib
from matplotlib import patheffects, transforms

from erp_jax.report import figures

_SIDE = 8  # Points between a point's centre and its name.
_CLEAR = 4  # Points kept free around a name; half a marker.
_NEAR = 12  # A name further above or below is tied to its point by a line.
# Points up (or down) from the point to the middle of its name, nearest first.
_OFFSETS = (0, *(sign * up for up in range(_NEAR, 200, 4) for sign in (1, -1)))


def place(
  panels: Sequence[axes_lib.Axes], points: Mapping[str, tuple[float, float]]
) -> None:
  """Writes {name: its point} in each panel that shows the point.

  Names stand right of points in the left half, left of the others, at the
  nearest height that is inside the axes and free; with none free, just above.
  Call it last: lines, limits and legends decide what is free.
  """
  figure = panels[0].get_figure()
  figures.literal(figure)
  figure.draw_without_rendering()  # The layout settles where pixels are.
  for axes in panels:
    taken = [_pixels(line) for line in axes.lines]
    taken_P2 = np.concatenate(taken) if taken else np.zeros((0, 2))
    boxes: list[transforms.Bbox] = []
    for name, point in points.items():
      if axes.get_window_extent().contains(*axes.transData.transform(point)):
        boxes.append(_place(axes, name, point, taken_P2, boxes))


def _place(axes, name, point, taken_P2, boxes) -> transforms.Bbox:
  """Writes one name; returns the pixels it takes."""
  inside = axes.get_window_extent()
  pixels = axes.get_figure().dpi / 72  # Of one point.
  left = axes.transData.transform(point)[0] < (inside.x0 + inside.x1) / 2
  label = axes.annotate(
    figures.in_font(figures.in_lines(name, 0.45)),
    point,
    parse_math=False,
    xytext=(_SIDE if left else -_SIDE, 0),
    textcoords='offset points',
    ha='left' if left else 'right',
    va='center',
    fontsize=9,
    path_effects=[patheffects.withStroke(linewidth=3, foreground='white')],
    zorder=5,
  )
  middle = label.get_window_extent()

  def is_free(up: int) -> bool:
    box = middle.translated(0, up * pixels)
    wide = box.padded(_CLEAR * pixels)
    return (
      inside.y0 <= box.y0
      and box.y1 <= inside.y1
      and not wide.count_contains(taken_P2)
      and not wide.count_overlaps(boxes)
    )

  up = next(filter(is_free, _OFFSETS), _NEAR)
  label.set_position((label.get_position()[0], up))
  if abs(up) > _NEAR:
    axes.annotate(
      '',
      point,
      xytext=(label.get_position()[0], up),
      textcoords='offset points',
      arrowprops={
        'arrowstyle': '-',
        'color': figures.GREY,
        'linewidth': 0.8,
        'shrinkA': 0,
        'shrinkB': 0,
      },
      zorder=1.5,  # Behind what it passes, and its point.
    )
  return middle.translated(0, up * pixels)


def _pixels(line) -> np.ndarray:
  """Pixels along a line, a few apart, so that no name fits between them."""
  at_P2 = line.get_transform().transform(line.get_xydata())
  at_P2 = at_P2[np.isfinite(at_P2).all(axis=1)]
  if not len(at_P2):
    return at_P2
  steps = np.hypot(*np.diff(at_P2, axis=0).T)
  along_P = np.concatenate([[0], np.cumsum(steps)])
  every = np.linspace(0, along_P[-1], 2 + int(along_P[-1] / 3))
  return np.stack([np.interp(every, along_P, c) for c in at_P2.T], axis=1)
