"""Routing on recorded outcomes of real models: WORKDIR/metrics.json.

python -m launch.replay --config=configs/replay.py --outcomes=FILE.parquet \
  --models=a,b,c --costs=8,70,9 --category_column=category --workdir=DIR

FILE is a Parquet table with a row per (prompt, model), or package:paretobandit.
"""

from absl import flags
from etils import epath

from erp_jax.core import errors, store
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


def run(
  cfg, embed, workdir, path, models, costs=(), column='category', keep=()
):
  """Embeds the table's prompts, then evaluates; see the module."""
  if path.startswith('package:'):
    folder = assets.fetch(path.removeprefix('package:'))
    path = workdir.path / 'outcomes.parquet'
    table_bytes = store.parquet_bytes(outcomes.paretobandit_table(folder))
    store.write_bytes(path, table_bytes)
  table = outcomes.load(path, models, column, costs, keep)
  source = {
    'sha256': store.sha256(epath.Path(path)),
    'models': list(models),
    'costs': list(costs),
    'category_column': column,
    'categories': list(keep),
  }
  asked = [
    prompts.Prompt(*row)
    for row in zip(
      table.prompt_ids, table.prompts, table.category_N.tolist(), strict=True
    )
  ]
  embed_stage.run(workdir, asked, embed)
  folder = workdir.path / embed_stage.folder(embed)
  emb_NE = embeddings.read(folder, table.prompt_ids)
  digest = store.read_manifest(folder)['digest']
  replay.run(workdir, table, source, emb_NE, digest, cfg)


def main(cfg, workdir):
  try:
    costs = [float(cost) for cost in _COSTS.value]
  except ValueError as e:
    raise errors.UserError(f'--costs must be numbers: {e}.') from e
  run(
    *(cfg, cfg.embed, workdir, _OUTCOMES.value, _MODELS.value, costs),
    *(_CATEGORY.value, _CATEGORIES.value),
  )


if __name__ == '__main__':
  flags.mark_flags_as_required(['outcomes', 'models'])
  app.run(main, pipeline_config.Replay)
