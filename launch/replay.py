"""Routing on recorded outcomes of real models: WORKDIR/metrics.json.

python -m launch.replay --config=configs/replay.py --outcomes=FILE.parquet \
  --models=a,b,c --costs=8,70,9 --category_column=category --workdir=DIR

FILE is a Parquet table with a row per (prompt, model), or package:paretobandit.
"""

from absl import flags
from etils import epath

from erp_jax.core import config, errors, store
from erp_jax.data import assets, embeddings, outcomes, prompts
from erp_jax.embed import stage as embed_stage
from erp_jax.route import replay
from launch import app, pipeline_config

_OUTCOMES = flags.DEFINE_string('outcomes', None, 'Table of outcomes.')
_MODELS = flags.DEFINE_list('models', None, 'Models to route between.')
_COSTS = flags.DEFINE_list(
  'costs', [], "Cost of each model; without, the table's cost_usd."
)
_CATEGORY = flags.DEFINE_string(
  'category_column', 'category', 'What splits and results are grouped by.'
)
_CATEGORIES = flags.DEFINE_list('categories', [], 'Keep only these.')


def run(workdir, recorded, embed, cfg):
  """Embeds the prompts of a RecordedOutcomes, then evaluates policies on it."""
  path = recorded.outcomes
  if path.startswith('package:'):
    path = workdir.path / 'outcomes.parquet'
    folder = assets.fetch(recorded.outcomes.removeprefix('package:'))
    rows = outcomes.paretobandit_table(folder)
    store.write_bytes(path, store.parquet_bytes(rows))
    content = store.digest(rows.to_pylist())
  else:
    content = ''
  table = outcomes.load(
    *(path, recorded.models, recorded.category_column),
    *(recorded.costs, recorded.categories),
  )
  content = content or store.sha256(epath.Path(path))
  asked = [
    prompts.Prompt(*row)
    for row in zip(
      table.prompt_ids, table.prompts, table.category_N.tolist(), strict=True
    )
  ]
  embed_stage.run(workdir, asked, embed)
  folder = workdir.path / embed_stage.folder(embed)
  source = config.as_plain(recorded) | {
    'outcomes': content,
    'title': '',
    'embeddings': store.read_manifest(folder)['digest'],
  }
  emb_NE = embeddings.read(folder, table.prompt_ids)
  replay.run(workdir, table, source, emb_NE, cfg)


def main(cfg, workdir):
  try:
    costs = tuple(float(cost) for cost in _COSTS.value)
  except ValueError as e:
    raise errors.UserError(f'--costs must be numbers: {e}.') from e
  recorded = replay.RecordedOutcomes(
    outcomes=_OUTCOMES.value,
    models=tuple(_MODELS.value),
    costs=costs,
    category_column=_CATEGORY.value,
    categories=tuple(_CATEGORIES.value),
  )
  run(workdir, recorded, cfg.embed, cfg)


if __name__ == '__main__':
  flags.mark_flags_as_required(['outcomes', 'models'])
  app.run(main, pipeline_config.Replay)
