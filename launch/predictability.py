"""How well reward is predicted before an answer (E1 to E4).

python -m launch.predictability --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper
"""

from erp_jax.report import predictability
from launch import app, experiments, pipeline_config

_LEAD = [
  'How much of the reward that a model will earn on a prompt can be predicted '
  'from the prompt alone? R² of the mean reward of K samples, on prompts that '
  'the probes were not fitted on, for each model and reward model.',
  'Beside each R² stands what noise allows: the mean of K samples is not the '
  'expected reward, and no prediction can follow its noise. Routing needs only '
  'the contrasts between models, which have an R² of their own.',
]


def main(cfg, workdir):
  experiments.run(cfg, workdir, 'predictability', _LEAD, predictability.build)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
