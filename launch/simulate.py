"""How many prompts and samples a router needs: simulated, WORKDIR/metrics.json.

python -m launch.simulate --config=configs/simulate.py --workdir=DIR \
  --config.simulation.noise_spread=0.6

Rewards with known expectation are drawn (`--config.simulation.…` says what they
are like), routers fitted on N prompts with K samples each, and their true
regret measured on other prompts. No number here is of a real model.
"""

from rich import console

from erp_jax.report import simulation as tables_lib
from erp_jax.route import simulation
from launch import app, pipeline_config


def main(cfg, workdir):
  metrics = simulation.run(workdir, cfg)
  out = console.Console()
  for table in tables_lib.tables(metrics):
    out.print(table)


if __name__ == '__main__':
  app.run(main, pipeline_config.Simulate)
