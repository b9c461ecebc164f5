"""Sweeps as plain lists: a sweep is a list of points, a point of overrides.

  product(over('sample.k', (8, 32)), over('sample.seed', (0, 1)))

has four points, the first of them ['sample.k=8', 'sample.seed=0'].
"""

import itertools
from collections.abc import Iterable
from typing import Any

from erp_jax.core import errors

Point = list[str]
Sweep = list[Point]


def over(name: str, values: Iterable[Any]) -> Sweep:
  """One field, a point for each of its values; UserError for a text alone."""
  if isinstance(values, str):
    raise errors.UserError(
      f'over({name!r}, {values!r}) would sweep its letters: give a list.'
    )
  return [[f'{name}={value}'] for value in values]


def product(*sweeps: Sweep) -> Sweep:
  """Every point of each with every point of the others, the last fastest."""
  return [_joined(parts) for parts in itertools.product(*sweeps)]


def zipped(*sweeps: Sweep) -> Sweep:
  """Their first points together, their second, …; UserError if not as many."""
  lengths = [len(sweep) for sweep in sweeps]
  if len(set(lengths)) > 1:
    raise errors.UserError(
      f'zipped sweeps have {lengths} points: give each as many.'
    )
  return [_joined(parts) for parts in zip(*sweeps, strict=True)]


def chain(*sweeps: Sweep) -> Sweep:
  """All points of the first, then those of the second, …"""
  return [list(point) for sweep in sweeps for point in sweep]


def _joined(parts: Iterable[Point]) -> Point:
  point = [override for part in parts for override in part]
  names = [override.partition('=')[0] for override in point]
  if len(set(names)) < len(names):
    raise errors.UserError(
      f'a point sets a field twice: {point}; sweep each field once.'
    )
  return point
