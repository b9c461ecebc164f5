"""What an answer of an arm costs, from the arm's responses (PAPER.md 17)."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from erp_jax.core import errors, store
from erp_jax.data import arms as arms_lib

PARAMS = 'params'
EXACT = 'exact'
ACTIVE = 'active'
PARAMS_TOKENS = 'params_tokens'
USD = 'usd'
UNITS = {
  PARAMS: 'billions of parameters',
  EXACT: 'billions of parameters',
  ACTIVE: 'billions of active parameters',
  PARAMS_TOKENS: 'billions of parameters × tokens',
  USD: 'USD',
}
PER_ANSWER = (PARAMS_TOKENS, USD)  # The others are one number per arm.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostConfig:
  """c(i) of an arm; the paper's is its parameter count alone.

  'params': the nominal count, as in the name (0 takes the exact one); 'exact':
  as counted in the checkpoint; 'active': those that a token uses;
  'params_tokens': times the tokens of an answer; 'usd': the arm's prices times
  tokens read and written.
  """

  kind: str = PARAMS
  # What a token of the prompt (system prompt included) counts, in tokens of
  # the response, for 'params_tokens'; reading is cheaper than writing.
  prompt_token_weight: float = 0.2

  def __post_init__(self):
    errors.check_choice('route.cost.kind', self.kind, UNITS)
    if not self.prompt_token_weight >= 0:
      raise errors.UserError(
        'route.cost.prompt_token_weight must be >= 0, got '
        f'{self.prompt_token_weight}.'
      )


def read(
  run: epath.Path,
  arms: Mapping[str, arms_lib.Arm],
  prompt_ids: Sequence[str],
  cfg: CostConfig,
) -> np.ndarray:
  """cost_NM: mean cost of an arm's answers to each prompt.

  Raises UserError for costs in dollars of an arm without prices.
  """
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  cost_NM = np.empty((len(prompt_ids), len(arms)))
  for m, (name, arm) in enumerate(arms.items()):
    folder = run / 'responses' / name
    exact_b = store.read_manifest(folder)['info']['num_parameters'] / 1e9
    nominal_b = arm.nominal_b or exact_b
    if cfg.kind not in PER_ANSWER:
      cost_NM[:, m] = {
        PARAMS: nominal_b,
        EXACT: exact_b,
        ACTIVE: arm.active_b or nominal_b,
      }[cfg.kind]
      continue
    table = store.read_table(folder)
    rows = np.array([row_of[name] for name in table['prompt_id'].to_pylist()])
    read_weight, write_weight = _token_weights(name, arm, nominal_b, cfg)
    cost = write_weight * table['num_tokens'].to_numpy() + (
      read_weight * table['prompt_tokens'].to_numpy()
    )
    sum_N = np.bincount(rows, cost, len(prompt_ids))
    cost_NM[:, m] = sum_N / np.bincount(rows, None, len(prompt_ids))
  return cost_NM


def _token_weights(
  name: str, arm: arms_lib.Arm, nominal_b: float, cfg: CostConfig
) -> tuple[float, float]:
  """Cost of a token that is read, and of one that is written."""
  if cfg.kind == PARAMS_TOKENS:
    return nominal_b * cfg.prompt_token_weight, nominal_b
  prices = arm.usd_per_mtok_prompt, arm.usd_per_mtok_response
  if not any(prices):
    raise errors.UserError(
      f"route.cost.kind is 'usd', but arm {name!r} has no prices: set "
      f'arms.{name}.usd_per_mtok_prompt and usd_per_mtok_response.'
    )
  return prices[0] / 1e6, prices[1] / 1e6
