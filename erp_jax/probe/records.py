"""What every experiment reads: samples of rewards, costs and embeddings.

From a run's artefacts, a table of recorded outcomes, or a simulation: no
accelerator and no tokenizer.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from erp_jax.core import errors
from erp_jax.data import embeddings, outcomes, simulate
from erp_jax.probe import ridge as ridge_lib
from erp_jax.probe import targets

RUN, RECORDED, SIMULATED = 'run', 'recorded', 'simulated'
ORIGINS = (RUN, RECORDED, SIMULATED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
  """N prompts × M arms, and the rewards that reward models gave them.

  Attributes:
    name: short, of files: letters, digits and dashes.
    title: for readers.
    origin: one of ORIGINS; simulated numbers are marked wherever they show.
    prompt_ids: unique, of the N prompts.
    category_N: category of each.
    arms: names of the M arms.
    emb_NE: embeddings.
    reward_NKM: samples by reward model, float64; NaN where missing or not
      finite. K may differ between reward models.
    cost_NM: cost of an answer, NaN where not recorded.
    cost_source: 'given' per arm, or 'recorded' per answer.
    cost_unit: for readers.
    flag_NKM: responses that are 'empty', 'cut' or a 'refusal', as masks by
      name; a name that is missing is not known of these records.
    er_NM: known expected rewards by reward model, of simulated records alone.
    noise_sd_N: of these, standard deviation of the Gaussian noise of a sample.
    counts: what was read and left out.
    digest: of everything above.
  """

  name: str
  title: str
  origin: str
  prompt_ids: tuple[str, ...]
  category_N: np.ndarray
  arms: tuple[str, ...]
  emb_NE: np.ndarray
  reward_NKM: Mapping[str, np.ndarray]
  cost_NM: np.ndarray
  cost_source: str
  cost_unit: str
  flag_NKM: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  er_NM: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  noise_sd_N: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  digest: str = ''

  def __post_init__(self):
    if self.origin not in ORIGINS:
      raise ValueError(f'origin {self.origin!r} is not one of {ORIGINS}.')
    if not self.reward_NKM:
      raise errors.UserError(
        f'{self.title} has no reward model: name one in config.rewards.'
      )
    num, num_arms = len(self.prompt_ids), len(self.arms)
    for reward, reward_NKM in self.reward_NKM.items():
      if (reward_NKM.shape[0], reward_NKM.shape[2]) != (num, num_arms):
        raise ValueError(
          f'rewards of {reward} are {reward_NKM.shape}, expected '
          f'[{num}, K, {num_arms}].'
        )
      outcomes.check_size(f'{self.title}: {reward}', reward_NKM)
    _check_embeddings(self)

  @property
  def rewards(self) -> tuple[str, ...]:
    """Names of the reward models."""
    return tuple(self.reward_NKM)

  @functools.cached_property
  def _mean_NM(self) -> dict[str, np.ndarray]:
    """By reward model; every split of every experiment reads them."""
    result = {}
    for reward, reward_NKM in self.reward_NKM.items():
      present_NKM = np.isfinite(reward_NKM)
      result[reward] = targets.expected_reward(reward_NKM, present_NKM).mean_NM
      result[reward].setflags(write=False)
    return result

  def mean_NM(self, reward: str) -> np.ndarray:
    """ÊR: mean over the samples, NaN where there are none; read-only."""
    return self._mean_NM[reward]

  def outcomes(self, reward: str) -> outcomes.Outcomes:
    """The mean rewards of one reward model, as a table of outcomes."""
    mean_NM = self.mean_NM(reward)
    complete_N = np.isfinite(mean_NM).all(axis=1)
    return outcomes.Outcomes(
      prompt_ids=self.prompt_ids,
      prompts=('',) * len(self.prompt_ids),
      category_N=self.category_N,
      models=self.arms,
      reward_NM=mean_NM,
      cost_NM=self.cost_NM,
      cost_source=self.cost_source,
      reward_kind=reward,
      counts=dict(self.counts)
      | {
        'prompts': len(mean_NM),
        'prompts_complete': int(complete_N.sum()),
        'prompts_incomplete': int((~complete_N).sum()),
      },
    )

  def without(self, reward: str, *flags: str) -> np.ndarray:
    """reward_NKM with the flagged responses missing.

    Raises UserError for a flag that is not known of these records.
    """
    reward_NKM = self.reward_NKM[reward].copy()
    for flag in flags:
      if flag not in self.flag_NKM:
        raise errors.UserError(
          f'{self.title} does not say which responses are {flag!r}; known: '
          f'{", ".join(self.flag_NKM) or "nothing of the kind"}.'
        )
      reward_NKM[self.flag_NKM[flag][:, : reward_NKM.shape[1]]] = np.nan
    return reward_NKM


def from_outcomes(
  name: str,
  title: str,
  table: outcomes.Outcomes,
  emb_NE: np.ndarray,
  digest: str,
  cost_unit: str = '',
) -> Records:
  """Records of a table of recorded outcomes: one reward a cell, K = 1.

  `cost_unit` is that of given costs; empty: billions of parameters.
  """
  unit = cost_unit or 'billions of parameters'
  if table.cost_source == 'recorded':
    unit = 'USD'
  return Records(
    name=name,
    title=title,
    origin=RECORDED,
    prompt_ids=table.prompt_ids,
    category_N=table.category_N,
    arms=table.models,
    emb_NE=emb_NE,
    reward_NKM={table.reward_kind: table.reward_NM[:, None, :]},
    cost_NM=table.cost_NM,
    cost_source=table.cost_source,
    cost_unit=unit,
    counts=table.counts,
    digest=digest,
  )


def from_simulation(
  name: str, title: str, simulation: simulate.Simulation, digest: str
) -> Records:
  """Records of simulated rewards, with their known ER."""
  rewards = simulation.rewards
  num = len(simulation.prompt_ids)
  return Records(
    name=name,
    title=title,
    origin=SIMULATED,
    prompt_ids=simulation.prompt_ids,
    category_N=simulation.category_N,
    arms=simulation.arms,
    emb_NE=simulation.emb_NE,
    reward_NKM={reward: simulation.reward_NKM(reward) for reward in rewards},
    cost_NM=np.tile(simulation.cost_M, (num, 1)),
    cost_source='given',
    cost_unit='billions of parameters',
    er_NM={reward: simulation.er_NM(reward) for reward in rewards},
    noise_sd_N=dict(zip(rewards, simulation.noise_sd_ZN, strict=True)),
    counts={'simulated_prompts': num},
    digest=digest,
  )


def predict_rewards(
  records: Records, train_N: np.ndarray, cfg: ridge_lib.RidgeConfig
) -> dict[str, np.ndarray]:
  """prediction_NM of every prompt by reward model, fitted on training prompts.

  Arms of all reward models are columns of one fit: where they have rewards of
  the same prompts they share its factorisation.
  """
  rewards = records.rewards
  mean_NM = np.concatenate([records.mean_NM(r) for r in rewards], axis=1)
  names = [f'{reward}/{arm}' for reward in rewards for arm in records.arms]
  probe = ridge_lib.fit(records.emb_NE[train_N], mean_NM[train_N], cfg, names)
  prediction_NM = ridge_lib.predict(probe, records.emb_NE)
  parts = np.split(prediction_NM, len(rewards), axis=1)
  return dict(zip(rewards, parts, strict=True))


def _check_embeddings(records: Records) -> None:
  """UserError naming the prompts whose embeddings are not finite."""
  emb_NE = records.emb_NE
  if emb_NE.ndim != 2 or len(emb_NE) != len(records.prompt_ids):
    raise ValueError(
      f'embeddings are {emb_NE.shape}, prompts are {len(records.prompt_ids)}.'
    )
  embeddings.check_finite(
    emb_NE,
    records.prompt_ids,
    records.title,
    'embed them again, or leave them out',
  )
