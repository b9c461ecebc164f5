"""How often 95 % intervals hold the truth, simulated: WORKDIR/coverage.json.

python -m launch.coverage --config=configs/coverage.py --workdir=DIR \
  --config.sets=500 --config.sizes='(250,)'

A router is fitted to simulated prompts, and thousands of test sets are drawn
from a large simulated population of which its true numbers are known. No number
here is of a real model.
"""

from rich import console

from erp_jax.report import coverage as tables_lib
from erp_jax.route import coverage
from launch import app, pipeline_config


def main(cfg, workdir):
  content = coverage.run(workdir, cfg)
  out = console.Console()
  for table in tables_lib.tables(content):
    out.print(table)


if __name__ == '__main__':
  app.run(main, pipeline_config.Coverage)
