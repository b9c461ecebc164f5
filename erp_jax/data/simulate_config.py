"""What a simulation draws: arms, reward models, prompts; see `simulate`."""

import dataclasses

from erp_jax.core import errors

CATEGORIES = ('code', 'math', 'instruction_following', 'chat')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """A function of the prompt, as a share of ER's variance.

  Of `variance` the share `category` lies between categories, whose values the
  embedding tells linearly. The rest varies within them; `linear` says how much
  of that is linear in the embedding. The linear function is one for all
  categories: a category with a smaller share has more of the rest.
  """

  variance: float = 0.0  # In units of the reward model's scale squared.
  category: float = 0.0
  linear: tuple[float, ...] = (0.5,)  # One per category, or one for all.

  def __post_init__(self):
    if not self.variance >= 0:
      raise errors.UserError(
        f'a simulated variance is {self.variance}, but must be >= 0.'
      )
    if not 0 <= self.category <= 1:
      raise errors.UserError(
        f'the category share of a simulated part is {self.category}, but must '
        'be between 0 and 1.'
      )
    if not self.linear or not all(0 < share <= 1 for share in self.linear):
      raise errors.UserError(
        f'the linear shares of a simulated part are {self.linear}, but must be '
        'above 0 and at most 1.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedArm:
  """An arm, by what it costs and what it is worth."""

  nominal_b: float = 1.0  # Cost: billions of parameters, as in the name.
  family: str = ''  # Arms of one family are good at the same prompts.
  quality: float = 0.0  # Mean reward, in standard deviations of the arms' part.

  def __post_init__(self):
    errors.check_least('simulation.arms.NAME.nominal_b', self.nominal_b, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedReward:
  """A reward model: its units, and what it sees in prompts and arms."""

  offset: float = 0.0  # Mean reward, in its own units.
  scale: float = 1.0  # Its units: all variances here are in scale squared.
  agreement: float = 0.7  # Share of each part that other reward models share.
  prompt: Part = Part(variance=0.7)
  arm: float = 0.1  # Variance of the arms' mean rewards.
  interaction: Part = Part(variance=0.2)
  noise: float = 0.8  # Standard deviation of one sample, root mean square.

  def __post_init__(self):
    for name in ('arm', 'noise'):
      errors.check_least(
        f'simulation.rewards.NAME.{name}', getattr(self, name), 0
      )
    if not self.scale > 0:
      raise errors.UserError(
        f'simulation.rewards.NAME.scale must be > 0, got {self.scale}.'
      )
    if not 0 <= self.agreement <= 1:
      raise errors.UserError(
        'simulation.rewards.NAME.agreement must be between 0 and 1, got '
        f'{self.agreement}.'
      )


def _paper_arms() -> dict[str, SimulatedArm]:
  return {
    'llama31-8b': SimulatedArm(nominal_b=8.0, family='llama3', quality=-0.1),
    'llama31-70b': SimulatedArm(nominal_b=70.0, family='llama3', quality=0.9),
    'gemma2-9b': SimulatedArm(nominal_b=9.0, family='gemma2', quality=0.3),
    'gemma2-27b': SimulatedArm(nominal_b=27.0, family='gemma2', quality=0.8),
    'gemma1-7b': SimulatedArm(nominal_b=7.0, family='gemma1', quality=-1.9),
  }


def _paper_rewards() -> dict[str, SimulatedReward]:
  """Shares fitted to the column means of the paper's Tables 1 and 2.

  Of the variance of ER 70 % is common to all arms, 10 % is between the arms'
  means, 20 % is interaction; that, the units and the noise are chosen, since
  the paper does not tell them.
  """

  def reward(offset, scale, category, *linear):
    part = lambda variance, between: Part(
      variance=variance, category=between, linear=linear
    )
    return SimulatedReward(
      offset=offset,
      scale=scale,
      prompt=part(0.7, category),
      arm=0.1,
      interaction=part(0.2, 0.3),
    )

  return {
    'oasst': reward(0.5, 2.0, 0.26, 0.59, 0.38, 0.36, 0.70),
    'grm': reward(1.0, 3.0, 0.29, 0.90, 0.06, 0.23, 0.52),
    'internlm': reward(0.0, 1.5, 0.21, 0.51, 0.10, 0.06, 0.40),
  }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationConfig:
  """A population, and how many prompts and samples are drawn from it."""

  prompts_per_category: int = 1000
  categories: tuple[str, ...] = CATEGORIES
  k: int = 32  # Samples per (prompt, arm).
  width: int = 1024  # Of embeddings.
  spectrum: float = 1.0  # Covariance eigenvalue i is proportional to i^-this.
  spread: float = 0.3  # Variance of embeddings around their centroid.
  centroid: float = 0.5  # Length of the categories' centroids.
  # Linear functions have variance i^-this in the eigenvalue's direction.
  signal_exponent: float = 1.0
  family_correlation: float = 0.5  # Of interactions of arms of a family.
  # Standard deviation over prompts of the log of the noise's own.
  noise_spread: float = 0.4
  arms: dict[str, SimulatedArm] = dataclasses.field(default_factory=_paper_arms)
  rewards: dict[str, SimulatedReward] = dataclasses.field(
    default_factory=_paper_rewards
  )
  # Of the population. With this one the best single arm is Llama 70B or Gemma
  # 27B under each of the three reward models.
  seed: int = 3
  prompt_seed: int = 0  # Of prompts and samples.

  def __post_init__(self):
    for name in ('prompts_per_category', 'k'):
      errors.check_least(f'simulation.{name}', getattr(self, name), 1)
    for name in ('seed', 'prompt_seed', 'spectrum', 'signal_exponent'):
      errors.check_least(f'simulation.{name}', getattr(self, name), 0)
    errors.check_least('simulation.width', self.width, 2)
    if not 0 <= self.family_correlation <= 1 or not self.noise_spread >= 0:
      raise errors.UserError(
        'simulation.family_correlation must be between 0 and 1 and '
        f'noise_spread >= 0, got {self.family_correlation} and '
        f'{self.noise_spread}.'
      )
    if not (self.spread > 0 and self.spread + self.centroid**2 < 1):
      raise errors.UserError(
        f'simulation.spread is {self.spread} and centroid {self.centroid}: '
        'spread must be > 0, and spread + centroid² below 1, the squared '
        'length of an embedding.'
      )
    num = len(self.categories)
    if not num or len(set(self.categories)) < num:
      raise errors.UserError(
        f'simulation.categories are {self.categories}: give at least one, no '
        'two alike.'
      )
    if not self.arms or not self.rewards:
      raise errors.UserError(
        'simulation.arms and simulation.rewards must each name at least one.'
      )
    for name, reward in self.rewards.items():
      for part in (reward.prompt, reward.interaction):
        if len(part.linear) not in (1, num):
          raise errors.UserError(
            f'simulation.rewards.{name} has linear shares {part.linear} for '
            f'{num} categories: give one for each, or one for all.'
          )
        if part.category and num == 1:
          raise errors.UserError(
            f'simulation.rewards.{name} has a category share of '
            f'{part.category}, but there is one category: set it to 0.'
          )
