"""Which of two arms wins on a prompt (E5, E6): experiments/pairwise.

python -m launch.pairwise --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper
"""

from erp_jax.report import pairwise
from launch import app, experiments, pipeline_config

_LEAD = [
  'Which of two models wins on a prompt? The difference of two predicted '
  'rewards, which never saw a comparison, against a logistic regression fitted '
  'to the comparisons of that very pair. The paper claims that the regression '
  'is no better.'
]


def main(cfg, workdir):
  experiments.run(cfg, workdir, 'pairwise', _LEAD, pairwise.build)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
