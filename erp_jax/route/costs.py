"""What an answer of an arm costs, from the arm's responses (PAPER.md 17)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from erp_jax.core import errors, store

PARAMS = 'params'
PARAMS_TOKENS = 'params_tokens'
UNITS = {
  PARAMS: 'billions of parameters',
  PARAMS_TOKENS: 'billions of parameters × tokens',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostConfig:
  """c(i) of an arm; the paper's is its parameter count alone."""

  kind: str = PARAMS  # Or params_tokens: times the tokens of an answer.
  # What a token of the prompt (system prompt included) counts, in tokens of
  # the response; reading is cheaper than writing.
  prompt_token_weight: float = 0.2

  def __post_init__(self):
    if self.kind not in UNITS:
      raise errors.UserError(
        f'route.cost.kind is {self.kind!r}; allowed: {", ".join(UNITS)}.'
      )
    if not self.prompt_token_weight >= 0:
      raise errors.UserError(
        'route.cost.prompt_token_weight must be >= 0, got '
        f'{self.prompt_token_weight}.'
      )


def read(
  run: epath.Path,
  arms: Sequence[str],
  nominal_b: Sequence[float],
  prompt_ids: Sequence[str],
  cfg: CostConfig,
) -> np.ndarray:
  """cost_NM: mean cost of an arm's answers to each prompt.

  Args:
    nominal_b: billions of parameters of each arm; 0 takes the exact count that
      was recorded when it was sampled.
  """
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  cost_NM = np.empty((len(prompt_ids), len(arms)))
  for m, (arm, billions) in enumerate(zip(arms, nominal_b, strict=True)):
    folder = run / 'responses' / arm
    info = store.read_manifest(folder)['info']
    params_b = billions or info['num_parameters'] / 1e9
    if cfg.kind == PARAMS:
      cost_NM[:, m] = params_b
      continue
    table = store.read_table(folder)
    rows = np.array([row_of[name] for name in table['prompt_id'].to_pylist()])
    tokens = table['num_tokens'].to_numpy() + (
      cfg.prompt_token_weight * table['prompt_tokens'].to_numpy()
    )
    sum_N = np.bincount(rows, tokens, len(prompt_ids))
    cost_NM[:, m] = params_b * sum_N / np.bincount(rows, None, len(prompt_ids))
  return cost_NM
