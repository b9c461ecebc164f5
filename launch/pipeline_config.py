"""What the config files of the binaries become."""

import dataclasses

from erp_jax.core import errors
from erp_jax.core import runtime as runtime_lib
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.data import simulate_config
from erp_jax.embed import embedder
from erp_jax.probe import pairwise as pairwise_lib
from erp_jax.probe import predictability as predictability_lib
from erp_jax.probe import rewards as rewards_reader
from erp_jax.probe import ridge as ridge_lib
from erp_jax.probe import stage as fit_stage
from erp_jax.report import experiment as experiment_lib
from erp_jax.route import coverage, simulation
from erp_jax.route import learning as learning_lib
from erp_jax.route import newcomer as newcomer_lib
from erp_jax.route import replay as replay_lib
from erp_jax.route import routing as routing_lib
from erp_jax.route import stage as route_stage
from erp_jax.route import winrates as winrates_lib
from erp_jax.sample import stage as sample_stage
from erp_jax.score import rewards as rewards_lib

ORIGINS = ('run', 'simulated', 'recorded')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiments:
  """What the experiments evaluate, beside every replay, and how."""

  # Rewards of the live part: of this 'run', or 'simulated' ones for the same
  # arms and reward models, marked so everywhere; 'recorded': replays alone.
  origin: str = 'run'
  simulation: simulate_config.SimulationConfig = (
    simulate_config.SimulationConfig()
  )
  # What failed responses of a run are worth.
  reader: rewards_reader.ReaderConfig = rewards_reader.ReaderConfig()
  common: experiment_lib.ExperimentConfig = experiment_lib.ExperimentConfig()
  predictability: predictability_lib.PredictabilityConfig = (
    predictability_lib.PredictabilityConfig()
  )
  pairwise: pairwise_lib.PairwiseConfig = pairwise_lib.PairwiseConfig()
  winrates: winrates_lib.WinRatesConfig = winrates_lib.WinRatesConfig()
  routing: routing_lib.RoutingConfig = routing_lib.RoutingConfig()
  learning: learning_lib.LearningConfig = learning_lib.LearningConfig()
  newcomer: newcomer_lib.NewcomerConfig = newcomer_lib.NewcomerConfig()

  def __post_init__(self):
    errors.check_choice('experiments.origin', self.origin, ORIGINS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
  """Prompts × arms × reward models, and how each stage treats them."""

  prompts: prompts_lib.PromptConfig = prompts_lib.PromptConfig()
  arms: dict[str, arms_lib.Arm] = dataclasses.field(default_factory=dict)
  sample: sample_stage.SampleConfig = sample_stage.SampleConfig()
  rewards: dict[str, rewards_lib.RewardConfig] = dataclasses.field(
    default_factory=dict
  )  # The first one leads the report.
  embed: embedder.EmbedConfig = embedder.EmbedConfig()
  fit: fit_stage.FitConfig = fit_stage.FitConfig()
  route: route_stage.RouteConfig = route_stage.RouteConfig()
  replays: dict[str, replay_lib.RecordedOutcomes] = dataclasses.field(
    default_factory=dict
  )
  replay: replay_lib.ReplayConfig = replay_lib.ReplayConfig()
  experiments: Experiments = Experiments()
  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()

  def __post_init__(self):
    live = self.experiments.origin != 'recorded'
    if live and not (self.arms and self.rewards):
      raise errors.UserError(
        'config.arms and config.rewards must each name at least one: see '
        'configs/quickstart.py.'
      )
    titles = [replay.title for replay in self.replays.values()]
    if len(set(titles)) < len(titles):
      raise errors.UserError(
        f'config.replays have the titles {titles}: give each its own.'
      )
    _check_embedding(self.embed, self.fit.ridge)
    _check_embedding(self.embed, self.replay.ridge)
    _check_embedding(self.embed, self.experiments.common.ridge)
    for kind in ('arms', 'rewards', 'replays'):
      for name in getattr(self, kind):
        workdir_lib.check_name(kind, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay(replay_lib.ReplayConfig):
  """The config of one replay by itself: --config.splits and so on."""

  embed: embedder.EmbedConfig = embedder.EmbedConfig()
  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()

  def __post_init__(self):
    super().__post_init__()
    _check_embedding(self.embed, self.ridge)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(simulation.SimulateConfig):
  """The config of a simulation: --config.simulation.k and so on."""

  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage(coverage.CoverageConfig):
  """The config of a study of coverage: --config.sets and so on."""

  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()


def _check_embedding(
  embed: embedder.EmbedConfig, ridge: ridge_lib.RidgeConfig
) -> None:
  if ridge.embedding == 'raw' and embed.normalize:
    raise errors.UserError(
      "ridge.embedding is 'raw', but embed.normalize scales every embedding to "
      'length 1: set embed.normalize=False too.'
    )
