"""How the time of each stage grows with its work: figures, and exponents.

python -m launch.growth --config=configs/growth.py --workdir=DIR

WORKDIR has points.csv, exponents.md and, for each stage, a figure. Each stage
runs in a process of its own; devices are parts of this machine's one CPU, which
shows what splitting costs, not what more hardware brings.
"""

import concurrent.futures
import logging
import multiprocessing
import sys

from erp_jax.core import store
from erp_jax.report import cells, figures, growth
from launch import app, growth_config, growth_work

_log = logging.getLogger(__name__)


def main(cfg, workdir):
  curves = [
    curve
    for stage, sizes in cfg.stages.items()
    for curve in _curves(stage, sizes, cfg.repeats)
  ]
  table = cells.markdown(growth.exponents(curves))
  files = {
    'points.csv': cells.csv_text(growth.points(curves)).encode(),
    'exponents.md': table.encode(),
  }
  for stage, figure in growth.draw(curves).items():
    files[f'{stage}.png'] = figures.png(figure)
  for name, data in files.items():
    store.write_bytes(workdir.path / name, data)
  sys.stdout.write(table)


def _curves(stage, sizes, repeats):
  """A curve for each thing that is varied."""
  works = {
    (against, n): sizes.base | {against: n}
    for against, values in sizes.varied.items()
    for n in values
  }
  secs = {}
  for devices in sorted({work.get('devices', 1) for work in works.values()}):
    same = [w for w in works.values() if w.get('devices', 1) == devices]
    unique = list({_key(work): work for work in same}.values())
    found = _alone(growth_work.measure, stage, unique, repeats, devices)
    secs |= zip(map(_key, unique), found, strict=True)
  return [
    growth.Curve(
      *(stage, against, values),
      [secs[_key(works[against, n])] for n in values],
    )
    for against, values in sizes.varied.items()
  ]


def _key(work):
  return tuple(work.values())


def _alone(function, *args):
  """function(*args) in a process that ends with it."""
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
    return pool.submit(function, *args).result()


if __name__ == '__main__':
  app.run(main, growth_config.Growth)
