"""Stored rewards, as probes and policies read them."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from erp_jax.core import store
from erp_jax.probe import targets


def folder(reward: str, arm: str) -> str:
  """Where the run keeps one reward model's rewards of one arm."""
  return f'rewards/{reward}/{arm}'


def read(
  run: epath.Path, reward: str, arms: Sequence[str], prompt_ids: Sequence[str]
) -> targets.Targets:
  """Mean rewards of these arms and prompts, from the artefacts of a run."""
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  tables = [store.read_table(run / folder(reward, arm)) for arm in arms]
  size = 1 + max(int(table['k'].to_numpy().max()) for table in tables)
  shape = (len(prompt_ids), size, len(arms))
  reward_NKM = np.full(shape, np.nan)
  valid_NKM = np.zeros(shape, bool)
  for m, table in enumerate(tables):
    rows = [row_of[name] for name in table['prompt_id'].to_pylist()]
    reward_NKM[rows, table['k'].to_numpy(), m] = table['reward'].to_numpy()
    valid_NKM[rows, table['k'].to_numpy(), m] = True
  return targets.expected_reward(reward_NKM, valid_NKM)
