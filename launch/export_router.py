"""Writes what can be served: router/{reward}, from a fitted run.

python -m launch.export_router --config=configs/quickstart.py \
  --workdir=runs/mine --policy=erp_loo

Then: python -m launch.route_prompts --router=runs/mine/router/verify
"""

from absl import flags

from erp_jax.data import prompts
from erp_jax.embed import stage as embed_stage
from erp_jax.route import export
from launch import app, pipeline_config

_DEFAULT = export.ExportConfig()
_POLICY = flags.DEFINE_string(
  'policy',
  _DEFAULT.policy,
  "erp takes the config's penalty, erp_loo each arm's by leave-one-out: the "
  "run's probes if they are so, else fitted anew; erp_guarded fits contrasts.",
)
_REWARDS = flags.DEFINE_list('rewards', [], 'Only these reward models.')
_OUT_OF_DISTRIBUTION = flags.DEFINE_string(
  'out_of_distribution',
  _DEFAULT.out_of_distribution,
  'What becomes of a prompt unlike the training prompts: flag, or '
  'static_mixture.',
)
_LEVERAGE_QUANTILE = flags.DEFINE_float(
  'leverage_quantile',
  _DEFAULT.leverage_quantile,
  "Of the training prompts' leverages: above it, out of distribution.",
)
_MAX_POINTS = flags.DEFINE_integer(
  'max_points', _DEFAULT.max_points, 'Of the λ path, that are kept.'
)


def main(cfg, workdir):
  export.run(
    workdir,
    app.only(_REWARDS.value, cfg.rewards, 'reward model'),
    cfg.arms,
    prompts.load(cfg.prompts),
    embed_stage.folder(cfg.embed),
    cfg.fit,
    cfg.route.cost,
    export.ExportConfig(
      policy=_POLICY.value,
      leverage_quantile=_LEVERAGE_QUANTILE.value,
      out_of_distribution=_OUT_OF_DISTRIBUTION.value,
      max_points=_MAX_POINTS.value,
    ),
  )


if __name__ == '__main__':
  app.run(main, pipeline_config.Pipeline)
