"""Fits one ridge probe per reward model and arm: probes/{reward}/{arm}.

python -m launch.fit --config=configs/quickstart.py --workdir=runs/mine
"""

from erp_jax.data import prompts
from erp_jax.embed import stage as embed_stage
from erp_jax.probe import stage
from launch import app, pipeline_config


def main(cfg, workdir):
  encoder = embed_stage.folder(cfg.embed)
  loaded = prompts.load(cfg.prompts)
  stage.run(workdir, cfg.rewards, cfg.arms, loaded, encoder, cfg.fit)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
