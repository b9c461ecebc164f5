"""All stages on one host, each resuming: from prompts to the report.

python -m launch.pipeline --config=configs/quickstart.py --workdir=runs/mine
"""

import dataclasses
import logging
import time

from erp_jax.data import prompt_record, prompts
from erp_jax.embed import stage as embed_stage
from erp_jax.probe import stage as fit_stage
from erp_jax.route import costs
from erp_jax.route import stage as route_stage
from erp_jax.sample import stage as sample_stage
from erp_jax.score import rewards
from erp_jax.score import stage as score_stage
from launch import app, pipeline_config, replay, report

_log = logging.getLogger(__name__)


def main(cfg, workdir):
  selection = prompts.select(cfg.prompts)
  loaded = selection.prompts
  rewards.check_prompts(cfg.rewards.values(), loaded)  # Not hours later.
  costs.check_arms(cfg.arms, cfg.route.cost)
  prompt_record.write(workdir, cfg.prompts, selection)
  encoder = embed_stage.folder(cfg.embed)
  stages = {
    'sample': lambda: sample_stage.run(workdir, cfg.arms, loaded, cfg.sample),
    'score': lambda: score_stage.run(workdir, cfg.rewards, cfg.arms, loaded),
    'embed': lambda: embed_stage.run(workdir, loaded, cfg.embed),
    'fit': lambda: fit_stage.run(
      workdir, cfg.rewards, cfg.arms, loaded, encoder, cfg.fit
    ),
    'route': lambda: route_stage.run(
      workdir, cfg.rewards, cfg.arms, loaded, encoder, cfg.fit, cfg.route
    ),
    'replay': lambda: _replay(cfg, workdir),
    'report': lambda: report.main(cfg, workdir),
  }
  for name, run in stages.items():
    start = time.monotonic()
    run()
    _log.info('%s: done in %.1f s', name, time.monotonic() - start)


def _replay(cfg, workdir):
  for name, recorded in cfg.replays.items():
    folder = dataclasses.replace(workdir, path=workdir.path / 'replay' / name)
    replay.run(folder, recorded, cfg.embed, cfg.replay)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
