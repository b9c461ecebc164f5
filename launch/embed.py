"""Embeds the prompts: embeddings/{encoder}.

python -m launch.embed --config=configs/quickstart.py --workdir=runs/mine
"""

from erp_jax.data import prompts
from erp_jax.embed import stage
from launch import app, pipeline_config


def main(cfg, workdir):
  stage.run(workdir, prompts.load(cfg.prompts), cfg.embed)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
