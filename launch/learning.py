"""Learning curves in prompts and samples: experiments/learning.

python -m launch.learning --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper
"""

from erp_jax.report import learning
from launch import app, experiments, pipeline_config

_LEAD = [
  'Would more prompts help, or more samples of each? Routers are fitted on '
  'parts of the training prompts and samples, and judged on the same test '
  'prompts.'
]


def main(cfg, workdir):
  experiments.run(cfg, workdir, 'learning', _LEAD, learning.build)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
