"""Scores the responses with each reward model: rewards/{reward}/{arm}.

python -m launch.score --config=configs/quickstart.py --workdir=runs/mine
"""

from absl import flags

from erp_jax.data import prompts
from erp_jax.score import stage
from launch import app, pipeline_config

_ARMS = flags.DEFINE_list('arms', [], 'Only these arms of the config.')
_REWARDS = flags.DEFINE_list('rewards', [], 'Only these reward models.')


def main(cfg, workdir):
  stage.run(
    workdir,
    app.only(_REWARDS.value, cfg.rewards, 'reward model'),
    app.only(_ARMS.value, cfg.arms, 'arm'),
    prompts.load(cfg.prompts),
  )


if __name__ == '__main__':
  app.run_shared(main, pipeline_config.Pipeline)
