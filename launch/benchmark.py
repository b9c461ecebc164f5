"""Ours against the peers in turns: a table, and last a JSON line per case.

python -m launch.benchmark --config=configs/benchmark.py:sample \
  --config.rounds=3 --config.device=cpu
"""

import json
import logging
import sys

from rich import console

from erp_jax.core import runtime
from launch import app, benchmark_config
from launch.benchmarks import ceilings, contest, table

_log = logging.getLogger(__name__)


def main(cfg):
  found = cfg.contests()
  summaries = [_measure(case, cfg) for case in found]
  provenance = runtime.provenance()
  machine, versions = provenance['machine'], provenance['versions']
  caption = ', '.join(
    (
      f'{machine["cpus"]} cores, {machine["cpu"]}, {machine["platform"]}',
      *(f'{name} {version}' for name, version in versions.items()),
    )
  )
  out = console.Console(width=None if sys.stdout.isatty() else 160)
  out.print(table.table(summaries, caption))
  for device in dict.fromkeys(case.device for case in found if case.device):
    out.print(f'device: {device}')
  for made in summaries:
    made |= {'machine': machine, 'versions': versions}
    sys.stdout.write(json.dumps(made) + '\n')


def _measure(case, cfg):
  limit = ceilings.contender(case.dtype)
  timings = contest.hold(
    [limit, case.ours, *case.peers], cfg.device, cfg.rounds, case.alone
  )
  return table.summary(case, timings, timings[limit.name], cfg.device)


if __name__ == '__main__':
  app.run_without_workdir(main, benchmark_config.Benchmark)
