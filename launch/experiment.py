"""The config of a whole run: what the stages' own dataclasses add up to."""

import dataclasses

from erp_jax.core import errors
from erp_jax.core import runtime
from erp_jax.data import arms
from erp_jax.data import prompts
from erp_jax.embed import embedder
from erp_jax.probe import stage as fit_stage
from erp_jax.route import stage as route_stage
from erp_jax.sample import stage as sample_stage
from erp_jax.score import rewards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """Prompts × arms × reward models, and how each stage treats them."""

  prompts: prompts.PromptConfig = prompts.PromptConfig()
  arms: dict[str, arms.Arm] = dataclasses.field(default_factory=dict)
  sample: sample_stage.SampleConfig = sample_stage.SampleConfig()
  rewards: dict[str, rewards.RewardConfig] = dataclasses.field(
    default_factory=dict
  )
  embed: embedder.EmbedConfig = embedder.EmbedConfig()
  fit: fit_stage.FitConfig = fit_stage.FitConfig()
  route: route_stage.RouteConfig = route_stage.RouteConfig()
  runtime: runtime.RuntimeConfig = runtime.RuntimeConfig()

  def __post_init__(self):
    if not self.arms or not self.rewards:
      raise errors.UserError(
        'config.arms and config.rewards must each name at least one: see '
        'configs/quickstart.py.'
      )
