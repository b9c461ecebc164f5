"""Regret against cost of every policy (E9 to E11): experiments/routing.

python -m launch.routing --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper
"""

from erp_jax.report import routing
from launch import app, experiments, pipeline_config

_LEAD = [
  'What does reading the prompt buy? Each policy sends every prompt to one '
  'arm; its regret is the reward that it loses against the best arm of each '
  'prompt.',
  'The paper claims that the curve of expected reward prediction (ERP) '
  'contains every baseline that does not know test labels, and that Zooter is '
  'alike. Each claim is put here with an interval. Two kinds: over random '
  'splits, corrected for the prompts that splits share, which says how a new '
  'fit on new prompts would do; and a paired bootstrap over the test prompts '
  'of the first split, for the router fitted there.',
]


def main(cfg, workdir):
  experiments.run(cfg, workdir, 'routing', _LEAD, routing.build)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
