"""Samples K responses per prompt from each arm: responses/{arm}.

python -m launch.sample --config=configs/quickstart.py --workdir=runs/mine
"""

from absl import flags

from erp_jax.data import prompts
from erp_jax.sample import stage
from launch import app, pipeline_config

_ARMS = flags.DEFINE_list('arms', [], 'Only these arms of the config.')


def main(cfg, workdir):
  arms = app.only(_ARMS.value, cfg.arms, 'arm')
  stage.run(workdir, arms, prompts.load(cfg.prompts), cfg.sample)


if __name__ == '__main__':
  app.run_shared(main, pipeline_config.Pipeline)
