"""Simulated rewards whose expected reward is known, shaped like the paper's.

A population is what `SimulationConfig.seed` draws: category centroids, and for
every reward model and arm a function of the prompt. Prompts are drawn from it
by `prompt_seed`: the same population with other prompts gives test sets of any
size. In the units of reward model z, of arm m on prompt x of category c,

  ER = offset_z + scale_z (prompt_z(x) + arm_zm + interaction_zm(x)).

prompt_z is common to all arms: Bradley-Terry does not identify it, and it is no
use to a router. prompt and interaction are each the sum of a value of the
category, a linear function of the embedding and a part that the embedding does
not tell (see `simulate_config.Part`). Reward models agree in them to the extent
that is configured; interactions of two arms of a family are correlated.

Embeddings have a Gaussian part with power-law covariance around the category's
centroid, and one last coordinate that brings them to unit length, so that what
is linear in the Gaussian part is linear in the embedding.

Everything is drawn by name: another arm or reward model changes nothing of the
others, to the bit, and more prompts leave the first ones as they are. Samples
of a response's reward are independent between reward models.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from erp_jax.core import config as config_lib
from erp_jax.core import errors
from erp_jax.data import simulate_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation:
  """Prompts of a population, with the true ER of every arm on them.

  Attributes:
    cfg: what it was drawn with.
    prompt_ids, prompts: by category; the texts say that they are simulated.
    category_N: category of each.
    arms, rewards: names of the M arms and the Z reward models.
    cost_M: cost of an answer, billions of parameters.
    emb_NE: float32, unit length.
    er_ZNM: float64, true expected rewards.
    noise_sd_ZN: standard deviation of a sample about its ER.
  """

  cfg: simulate_config.SimulationConfig
  prompt_ids: tuple[str, ...]
  prompts: tuple[str, ...]
  category_N: np.ndarray
  arms: tuple[str, ...]
  rewards: tuple[str, ...]
  cost_M: np.ndarray
  emb_NE: np.ndarray
  er_ZNM: np.ndarray
  noise_sd_ZN: np.ndarray

  def er_NM(self, reward: str) -> np.ndarray:
    """True expected rewards of one reward model."""
    return self.er_ZNM[self.rewards.index(reward)]

  def reward_NKM(self, reward: str, draw: int = 0) -> np.ndarray:
    """cfg.k samples of each cell, float64; `draw` numbers independent ones."""
    shape = (len(self.prompt_ids), self.cfg.k, len(self.arms))
    reward_NKM = np.empty(shape)
    er_NM = self.er_NM(reward)
    sd_N = self.noise_sd_ZN[self.rewards.index(reward)]
    for m in range(len(self.arms)):
      noise_NK = self._noise(reward, m, self.cfg.k, 'samples', draw)
      reward_NKM[:, :, m] = er_NM[:, m, None] + sd_N[:, None] * noise_NK
    return reward_NKM

  def mean_NM(self, reward: str, k: int, draw: int = 0) -> np.ndarray:
    """Means of k samples, drawn as such; not those of `reward_NKM`."""
    er_NM = self.er_NM(reward)
    sd_N = self.noise_sd_ZN[self.rewards.index(reward)] / np.sqrt(k)
    noise_NM = np.empty(er_NM.shape)
    for m in range(len(self.arms)):
      noise_NM[:, m] = self._noise(reward, m, 1, 'means', draw)[:, 0]
    return er_NM + sd_N[:, None] * noise_NM

  def _noise(
    self, reward: str, m: int, size: int, kind: str, draw: int
  ) -> np.ndarray:
    """Standard normal [N, size] of an arm, by category."""
    num = self.cfg.prompts_per_category
    return np.concatenate(
      [
        _rng(
          *(self.cfg.seed, self.cfg.prompt_seed, draw),
          *(kind, reward, self.arms[m], category),
        ).standard_normal((num, size))
        for category in self.cfg.categories
      ]
    )


def draw(
  cfg: simulate_config.SimulationConfig,
  *,
  arms: Sequence[str] = (),
  rewards: Sequence[str] = (),
) -> Simulation:
  """Prompts, embeddings and true ER; samples are drawn when asked for.

  `arms` and `rewards` are names in the config; empty takes all. An embedding
  whose Gaussian part is longer than 1 is pulled in to that: less than one in
  1000 with the default spectrum, more with a steep one.
  Raises UserError for a name that is not in the config.
  """
  arms = _names('arms', arms, cfg.arms)
  rewards = _names('rewards', rewards, cfg.rewards)
  num, num_categories = cfg.prompts_per_category, len(cfg.categories)
  total = num * num_categories
  emb_NE = np.empty((total, cfg.width), np.float32)
  er_ZNM = np.empty((len(rewards), total, len(arms)))
  noise_sd_ZN = np.empty((len(rewards), total))
  for c, category in enumerate(cfg.categories):
    rows = slice(c * num, (c + 1) * num)
    rng = _rng(cfg.seed, cfg.prompt_seed, 'prompts', category)
    # Whitened: unit variance in each of the width - 1 Gaussian directions.
    white_NE = rng.standard_normal((num, cfg.width - 1), np.float32)
    for z, reward in enumerate(rewards):
      er_ZNM[z, rows] = _expected_rewards(cfg, reward, arms, c, white_NE)
      log_sd_N = cfg.noise_spread * _hidden(cfg, num, category, 'noise', reward)
      # Its mean square is 1.
      sd_N = np.exp(log_sd_N - cfg.noise_spread**2)
      noise = cfg.rewards[reward].noise * cfg.rewards[reward].scale
      noise_sd_ZN[z, rows] = noise * sd_N
    emb_NE[rows] = _embeddings(cfg, category, white_NE)
  index = [(category, n) for category in cfg.categories for n in range(num)]
  return Simulation(
    cfg=cfg,
    prompt_ids=tuple(
      f'simulated-{cfg.seed}-{cfg.prompt_seed}-{category}-{n:06d}'
      for category, n in index
    ),
    prompts=tuple(
      f'Simulated {category} prompt {n}: it has no text.'
      for category, n in index
    ),
    category_N=np.repeat(np.array(cfg.categories), num),
    arms=arms,
    rewards=rewards,
    cost_M=np.array([cfg.arms[arm].nominal_b for arm in arms]),
    emb_NE=emb_NE,
    er_ZNM=er_ZNM,
    noise_sd_ZN=noise_sd_ZN,
  )


def eigenvalues(cfg: simulate_config.SimulationConfig) -> np.ndarray:
  """Covariance of an embedding's Gaussian coordinates within a category."""
  power = np.arange(1, cfg.width) ** -cfg.spectrum
  return cfg.spread * power / power.sum()


def _names(kind: str, chosen: Sequence[str], known: dict) -> tuple[str, ...]:
  for name in chosen:
    if name not in known:
      raise errors.UserError(
        f'{name!r} is not in simulation.{kind}; '
        f'{config_lib.did_you_mean(name, known)}'
      )
  return tuple(chosen) or tuple(known)


def _rng(*words: int | str) -> np.random.Generator:
  """A generator for what these words name."""
  return np.random.default_rng(
    [
      word
      if isinstance(word, int)
      else int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
      for word in words
    ]
  )


def _embeddings(
  cfg: simulate_config.SimulationConfig, category: str, white_NE: np.ndarray
) -> np.ndarray:
  centroid_E = _rng(cfg.seed, 'centroid', category).standard_normal(
    cfg.width - 1
  )
  centroid_E *= cfg.centroid / np.linalg.norm(centroid_E)
  scale_E = np.sqrt(eigenvalues(cfg)).astype(np.float32)
  emb_NE = np.empty((len(white_NE), cfg.width), np.float32)
  emb_NE[:, :-1] = white_NE * scale_E + centroid_E.astype(np.float32)
  square_N = np.einsum('NE,NE->N', emb_NE[:, :-1], emb_NE[:, :-1])
  emb_NE[:, :-1] /= np.sqrt(np.maximum(square_N, 1.0))[:, None]
  emb_NE[:, -1] = np.sqrt(np.maximum(1.0 - square_N, 0.0))
  return emb_NE


def _expected_rewards(
  cfg: simulate_config.SimulationConfig,
  reward: str,
  arms: Sequence[str],
  c: int,
  white_NE: np.ndarray,
) -> np.ndarray:
  """er_NM of one reward model on the prompts of category c."""
  model = cfg.rewards[reward]
  own = np.sqrt([model.agreement, 1 - model.agreement])
  # The same in all reward models, and this one's own.
  sources = [(own[0], ('prompt', '')), (own[1], ('prompt', reward))]
  prompt_N = _part(cfg, model.prompt, sources, c, white_NE)
  er_NM = np.empty((len(white_NE), len(arms)))
  for m, arm in enumerate(arms):
    family = cfg.arms[arm].family
    alike = np.sqrt([cfg.family_correlation, 1 - cfg.family_correlation])
    group = ('family', family) if family else ('alone', arm)
    sources = [
      (weight * share, (*name, whose))
      for weight, whose in zip(own, ('', reward), strict=True)
      for share, name in zip(alike, (group, ('arm', arm)), strict=True)
    ]
    taste = _rng(cfg.seed, 'quality', reward, arm).standard_normal()
    quality = own[0] * cfg.arms[arm].quality + own[1] * taste
    er_NM[:, m] = (
      prompt_N
      + np.sqrt(model.arm) * quality
      + _part(cfg, model.interaction, sources, c, white_NE)
    )
  return model.offset + model.scale * er_NM


def _part(
  cfg: simulate_config.SimulationConfig,
  part: simulate_config.Part,
  sources: Sequence[tuple[float, tuple[str, ...]]],
  c: int,
  white_NE: np.ndarray,
) -> np.ndarray:
  """Values of a Part that mixes functions: (weight, name), squares add to 1."""
  num = len(white_NE)
  if not part.variance:
    return np.zeros(num)
  weight_E = sum(w * _linear(cfg, name) for w, name in sources)
  value_C = sum(w * _by_category(cfg, name) for w, name in sources)
  hidden_N = sum(
    w * _hidden(cfg, num, cfg.categories[c], *name) for w, name in sources
  )
  weight_E /= np.linalg.norm(weight_E)
  if len(value_C) > 1:
    value_C = (value_C - value_C.mean()) / value_C.std()
  linear_C = np.broadcast_to(part.linear, value_C.shape)
  # The same in every category; with its rest it averages to the part's.
  linear = (1 - part.category) / np.mean(1 / linear_C)
  result_N = np.sqrt(part.category) * value_C[c]
  result_N = result_N + np.sqrt(linear) * (
    white_NE @ weight_E.astype(np.float32)
  )
  result_N += np.sqrt(linear * (1 / linear_C[c] - 1)) * hidden_N
  return np.sqrt(part.variance) * result_N


@functools.lru_cache(maxsize=256)
def _direction(
  seed: int, width: int, exponent: float, name: tuple[str, ...]
) -> np.ndarray:
  weight_E = _rng(seed, 'linear', *name).standard_normal(width - 1)
  weight_E *= np.arange(1, width) ** (-exponent / 2)
  return weight_E / np.linalg.norm(weight_E)


def _linear(
  cfg: simulate_config.SimulationConfig, name: tuple[str, ...]
) -> np.ndarray:
  """Weights of a linear function of unit variance of the whitened prompt."""
  return _direction(cfg.seed, cfg.width, cfg.signal_exponent, name)


def _by_category(
  cfg: simulate_config.SimulationConfig, name: tuple[str, ...]
) -> np.ndarray:
  return np.array(
    [
      _rng(cfg.seed, 'category', category, *name).standard_normal()
      for category in cfg.categories
    ]
  )


def _hidden(
  cfg: simulate_config.SimulationConfig, num: int, category: str, *name: str
) -> np.ndarray:
  """What the embedding does not tell of `num` prompts, standard normal."""
  return _rng(
    cfg.seed, cfg.prompt_seed, 'hidden', category, *name
  ).standard_normal(num)
