"""Who wins how often, and Proposition 1 (E7, E8): experiments/winrates.

python -m launch.winrates --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper
"""

from erp_jax.report import winrates
from launch import app, experiments, pipeline_config

_LEAD = [
  'On what share of the prompts is each model the best, and does the '
  'prediction know it? True and predicted win shares, by category.',
  'Proposition 1 says how likely a model of higher expected reward gives the '
  'better answer: its bounds are put beside what happens.',
]


def main(cfg, workdir):
  experiments.run(cfg, workdir, 'winrates', _LEAD, winrates.build)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
