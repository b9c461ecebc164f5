"""The points of a config file's sweep: what each is called and runs."""

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Sequence

from erp_jax.core import errors
from launch.sweeps import grid

_MAX_NAME = 96  # Of the readable part; file systems allow 255 in all.


@dataclasses.dataclass(frozen=True)
class Point:
  """One run of a sweep.

  Attributes:
    index: its place in the sweep.
    name: its folder, the same wherever it stands in the sweep.
  """

  index: int
  name: str
  overrides: tuple[str, ...]

  def command(
    self, binary: str, config: str, workdir: str, extra: Sequence[str]
  ) -> list[str]:
    """Its command line; the sweep's overrides win over those of `extra`."""
    return [
      *(sys.executable, '-m', binary, f'--config={config}'),
      f'--workdir={workdir}/{self.name}',
      *extra,
      *(f'--config.{override}' for override in self.overrides),
    ]


def load(config: str) -> list[Point]:
  """The sweep of 'configs/NAME.py' or 'configs/NAME.py:ARG'.

  Raises UserError without such a file or get_sweep(), and for one that returns
  no point, not lists of 'field=value', or the same point twice.
  """
  path = pathlib.Path(config.partition(':')[0])
  if not path.is_file():
    raise errors.UserError(
      f'--config={config}: there is no such file; see configs/.'
    )
  spec = importlib.util.spec_from_file_location('erp_sweep_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_sweep'):
    raise errors.UserError(
      f'{path} has no get_sweep(): let it return a list of points, each a list '
      "of overrides as 'sample.k=8' (launch/sweeps/grid.py)."
    )
  return named(module.get_sweep())


def named(sweep: grid.Sweep) -> list[Point]:
  """Points with their names; UserError as of `load`."""
  if not isinstance(sweep, list | tuple) or not sweep:
    raise errors.UserError(
      f'get_sweep() returns {sweep!r:.60}: let it return a list of points, at '
      'least one.'
    )
  for point in sweep:
    if not isinstance(point, list | tuple) or not all(
      isinstance(item, str) and '=' in item for item in point
    ):
      raise errors.UserError(
        f"get_sweep() has the point {point!r}: give lists of 'field=value'."
      )
  points = [
    Point(index, name(overrides), tuple(overrides))
    for index, overrides in enumerate(sweep)
  ]
  seen: dict[str, int] = {}
  for point in points:
    if point.name in seen:
      raise errors.UserError(
        f'points {seen[point.name]} and {point.index} of get_sweep() are the '
        f'same, {list(point.overrides)}: leave one out.'
      )
    seen[point.name] = point.index
  return points


def name(overrides: Sequence[str]) -> str:
  """Such as 'k=8,seed=1-4f1d2c9a': readable, then unique.

  Of each field its last word alone, and what no file system minds.
  """
  words = []
  for override in overrides:
    field, _, value = override.partition('=')
    words.append(f'{field.split(".")[-1]}={value}')
  readable = re.sub(r'[^A-Za-z0-9._=,+-]+', '_', ','.join(words) or 'default')
  digest = hashlib.sha256(json.dumps(list(overrides)).encode()).hexdigest()
  return f'{readable[:_MAX_NAME].strip(".")}-{digest[:8]}'
