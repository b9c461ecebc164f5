"""Embeds the prompts, embeddings/{encoder}, and records which: prompts.

python -m launch.embed --config=configs/quickstart.py --workdir=runs/mine
"""

from erp_jax.data import prompt_record, prompts
from erp_jax.embed import stage
from launch import app, pipeline_config


def main(cfg, workdir):
  selection = prompts.select(cfg.prompts)
  prompt_record.write(workdir, cfg.prompts, selection)
  stage.run(workdir, selection.prompts, cfg.embed)


if __name__ == '__main__':
  app.run_shared(main, pipeline_config.Pipeline)
