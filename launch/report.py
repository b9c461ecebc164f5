"""Writes report/report.html and the terminal's table from a run's results.

python -m launch.report --config=configs/quickstart.py --workdir=runs/mine
"""

import json

from rich import console

from erp_jax.core import store, upstream
from erp_jax.data import prompts
from erp_jax.probe import rewards as rewards_lib
from erp_jax.report import page, terminal
from erp_jax.route import stage as route_stage
from launch import app, pipeline_config


def main(cfg, workdir):
  replays = {
    replay.title: workdir.path / 'replay' / name
    for name, replay in cfg.replays.items()
  }
  loaded = prompts.load(cfg.prompts)
  rewards = list(cfg.rewards)
  made = route_stage.made_with(loaded, cfg.fit, cfg.route)
  for name in rewards:
    scored = {arm: rewards_lib.folder(name, arm) for arm in cfg.arms}
    arms = {
      arm: {'rewards': upstream.digest(workdir.path / folder)}
      for arm, folder in scored.items()
    }
    store.check_made_with(workdir.path / 'routes' / name, made | {'arms': arms})
  file = page.build(workdir.path, rewards, replays, loaded)
  read = lambda folder: json.loads(store.read_file(folder, 'metrics.json'))
  store.write_json(
    workdir.path / 'metrics.json',
    {
      'live': {
        name: read(workdir.path / 'routes' / name) for name in cfg.rewards
      },
      'replay': {
        name: read(workdir.path / 'replay' / name) for name in cfg.replays
      },
    },
  )
  out = console.Console()
  out.print(terminal.terminal_table(workdir.path, rewards, replays))
  out.print(f'report: {file}', soft_wrap=True, highlight=False)


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
