"""What was tried for routing, on recorded outcomes: WORKDIR/candidates/NAME.

python -m launch.candidates --config=configs/recorded.py:FOLDER --workdir=DIR

For every table of the config: each candidate's score on held-out training
prompts, and beside it the result on test prompts, as table.csv and table.md.
config.replay.splits says over how many splits.
"""

import dataclasses

from erp_jax.core import config, errors
from erp_jax.report import candidates as tables
from erp_jax.report import cells
from erp_jax.route import candidates
from launch import app, pipeline_config, sources

FORMAT_VERSION = 1


def main(cfg, workdir):
  if not cfg.replays:
    raise errors.UserError(
      'config.replays names no table: see configs/recorded.py.'
    )
  own = candidates.CandidatesConfig(
    splits=cfg.replay.splits, train_frac=cfg.replay.train_frac
  )
  homes = {}
  for name, one in cfg.replays.items():
    folder = dataclasses.replace(workdir, path=workdir.path / 'replay' / name)
    table, emb_NE, source = sources.recorded(folder, one, cfg.embed, homes)
    identity = {
      'stage': 'candidates',
      'format_version': FORMAT_VERSION,
      'candidates': config.as_plain(own),
      'outcomes': source,
    }
    artifact = workdir.artifact(f'candidates/{name}', identity)
    if artifact.is_done():
      continue
    found = tables.table(
      name, one.title or name, candidates.compare(table, emb_NE, own)
    )
    with workdir.writer(artifact) as writer:
      writer.write_file('table.csv', cells.csv_text(found).encode())
      writer.write_file('table.md', cells.markdown(found).encode())
      writer.finish()


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
