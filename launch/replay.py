"""Routing on recorded outcomes of real models: WORKDIR/metrics.json.

python -m launch.replay --config=configs/replay.py --outcomes=FILE.parquet \
  --models=a,b,c --costs=8,70,9 --category_column=category --workdir=DIR

FILE is a Parquet table with a row per (prompt, model), or package:paretobandit.
"""

from absl import flags

from erp_jax.core import errors
from erp_jax.route import replay
from launch import app, pipeline_config, sources

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
  table, emb_NE, source = sources.recorded(workdir, recorded, embed)
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
