"""Stored rewards, as probes, policies and experiments read them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from etils import epath

from erp_jax.core import config as config_lib
from erp_jax.core import errors, store
from erp_jax.probe import response_flags, targets

NOT_FINITE = 'not_finite'
_FLOORED = (NOT_FINITE, *response_flags.FLAGS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReaderConfig:
  """What responses that went wrong are worth (PAPER.md 22).

  They are worth what their reward model gave them; a reward that is not finite
  leaves the mean. With a floor, in the units of its reward model, they are
  worth that.
  """

  floors: dict[str, float] = dataclasses.field(default_factory=dict)
  floored: tuple[str, ...] = (NOT_FINITE, response_flags.EMPTY)

  def __post_init__(self):
    for reward, floor in self.floors.items():
      if not math.isfinite(floor):
        raise errors.UserError(
          f'reader.floors.{reward} is {floor}, but must be a finite number.'
        )
    for name in self.floored:
      if name not in _FLOORED:
        raise errors.UserError(
          f'reader.floored has {name!r}; allowed: {", ".join(_FLOORED)}.'
        )


class Samples(NamedTuple):
  """Samples of a run.

  Attributes:
    reward_NKM: by reward model, float64; NaN where missing or not finite.
    flag_NKM: masks of responses by flag, for all that were sampled: K may be
      larger than that of the rewards.
    counts: of the rewards that were not finite, or set to the floor.
  """

  reward_NKM: dict[str, np.ndarray]
  flag_NKM: dict[str, np.ndarray]
  counts: dict[str, int]


def folder(reward: str, arm: str) -> str:
  """Where the run keeps one reward model's rewards of one arm."""
  return f'rewards/{reward}/{arm}'


def read(
  run: epath.Path, reward: str, arms: Sequence[str], prompt_ids: Sequence[str]
) -> targets.Targets:
  """Mean rewards of these arms and prompts, from the artefacts of a run."""
  return targets.expected_reward(*_read(run, reward, arms, prompt_ids))


def read_samples(
  run: epath.Path,
  rewards: Sequence[str],
  arms: Sequence[str],
  prompt_ids: Sequence[str],
  cfg: ReaderConfig,
) -> Samples:
  """Rewards by reward model, and flags of the responses they are of.

  Raises UserError for a floor of a reward model that is not read.
  """
  for reward in cfg.floors:
    if reward not in rewards:
      raise errors.UserError(
        f'reader.floors names {reward!r}; '
        f'{config_lib.did_you_mean(reward, rewards)}'
      )
  flag_NKM = _read_flags(run, arms, prompt_ids)
  samples = Samples({}, flag_NKM, {})
  for reward in rewards:
    reward_NKM, valid_NKM = _read(run, reward, arms, prompt_ids)
    failed_NKM = valid_NKM & ~np.isfinite(reward_NKM)
    reward_NKM[failed_NKM] = np.nan
    samples.counts[f'{reward}_not_finite'] = int(failed_NKM.sum())
    if reward in cfg.floors:
      known = {NOT_FINITE: failed_NKM} | _cut_to(flag_NKM, reward_NKM.shape[1])
      low_NKM = np.zeros(valid_NKM.shape, bool)
      for name in cfg.floored:
        low_NKM |= known[name] & valid_NKM
      reward_NKM[low_NKM] = cfg.floors[reward]
      samples.counts[f'{reward}_floored'] = int(low_NKM.sum())
    samples.reward_NKM[reward] = reward_NKM
  return samples


def _read(
  run: epath.Path, reward: str, arms: Sequence[str], prompt_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """(reward_NKM, valid_NKM): valid where there is a row, finite or not."""
  tables = [store.read_table(run / folder(reward, arm)) for arm in arms]
  columns = [{'reward': table['reward'].to_numpy()} for table in tables]
  placed = _place(tables, columns, prompt_ids, {'reward': np.nan})
  return placed['reward'], placed['valid']


def _read_flags(
  run: epath.Path, arms: Sequence[str], prompt_ids: Sequence[str]
) -> dict[str, np.ndarray]:
  tables = [store.read_table(run / 'responses' / arm) for arm in arms]
  columns = [response_flags.of_table(table) for table in tables]
  fill = dict.fromkeys(response_flags.FLAGS, False)
  placed = _place(tables, columns, prompt_ids, fill)
  return {flag: placed[flag] for flag in response_flags.FLAGS}


def _place(
  tables: Sequence[pa.Table],
  columns: Sequence[Mapping[str, np.ndarray]],
  prompt_ids: Sequence[str],
  fill: Mapping[str, float | bool],
) -> dict[str, np.ndarray]:
  """[N, K, M] of columns of tables, one per arm; 'valid' where there are rows.

  `fill` is what stands elsewhere.
  """
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  size = 1 + max(int(table['k'].to_numpy().max()) for table in tables)
  shape = (len(prompt_ids), size, len(tables))
  result = {name: np.full(shape, value) for name, value in fill.items()}
  result['valid'] = np.zeros(shape, bool)
  for m, table in enumerate(tables):
    rows = [row_of[name] for name in table['prompt_id'].to_pylist()]
    k = table['k'].to_numpy()
    result['valid'][rows, k, m] = True
    for name in fill:
      result[name][rows, k, m] = columns[m][name]
  return result


def _cut_to(
  flag_NKM: Mapping[str, np.ndarray], k: int
) -> dict[str, np.ndarray]:
  """The flags of the first k responses, which are those that were scored."""
  return {name: flag[:, :k] for name, flag in flag_NKM.items()}
