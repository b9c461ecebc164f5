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
    errors.check_least(
      'route.cost.prompt_token_weight', self.prompt_token_weight, 0
    )


def check_arms(arms: Mapping[str, arms_lib.Arm], cfg: CostConfig) -> None:
  """UserError for an arm whose costs of this kind nobody could tell.

  Nobody counts the parameters of what is served elsewhere.
  """
  for name, arm in arms.items():
    prices = arm.usd_per_mtok_prompt, arm.usd_per_mtok_response
    if cfg.kind == USD and not any(prices):
      raise errors.UserError(
        f"route.cost.kind is 'usd', but arm {name!r} has no prices: set "
        f'arms.{name}.usd_per_mtok_prompt and usd_per_mtok_response.'
      )
    billions = arm.nominal_b or cfg.kind == ACTIVE and arm.active_b
    if arm.is_served and (
      cfg.kind == EXACT or cfg.kind != USD and not billions
    ):
      raise errors.UserError(
        f'route.cost.kind is {cfg.kind!r}, but arm {name!r} is served '
        'elsewhere, where nobody counts its parameters: set it to '
        f'{PARAMS!r}, {ACTIVE!r} or {PARAMS_TOKENS!r} and '
        f"arms.{name}.nominal_b, or to 'usd' and its prices."
      )


def read(
  run: epath.Path,
  arms: Mapping[str, arms_lib.Arm],
  prompt_ids: Sequence[str],
  cfg: CostConfig,
) -> np.ndarray:
  """cost_NM: mean cost of an arm's answers to each prompt.

  Raises UserError for costs in dollars of an arm without prices, and for an
  arm that is served elsewhere without what its costs need.
  """
  check_arms(arms, cfg)
  row_of = {name: n for n, name in enumerate(prompt_ids)}
  cost_NM = np.empty((len(prompt_ids), len(arms)))
  for m, (name, arm) in enumerate(arms.items()):
    folder = run / 'responses' / name
    info = store.read_manifest(folder)['info']
    exact_b = info.get('num_parameters', 0) / 1e9
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
    if table['num_tokens'].null_count or table['prompt_tokens'].null_count:
      raise errors.UserError(
        f'route.cost.kind is {cfg.kind!r}, but the server of arm {name!r} does '
        'not say how many tokens its responses have: set it to '
        f'{PARAMS!r}, and arms.{name}.nominal_b.'
      )
    read_weight, write_weight = _token_weights(arm, nominal_b, cfg)
    cost = write_weight * table['num_tokens'].to_numpy() + (
      read_weight * table['prompt_tokens'].to_numpy()
    )
    sum_N = np.bincount(rows, cost, len(prompt_ids))
    cost_NM[:, m] = sum_N / np.bincount(rows, None, len(prompt_ids))
  return cost_NM


def _token_weights(
  arm: arms_lib.Arm, nominal_b: float, cfg: CostConfig
) -> tuple[float, float]:
  """Cost of a token that is read, and of one that is written."""
  if cfg.kind == PARAMS_TOKENS:
    return nominal_b * cfg.prompt_token_weight, nominal_b
  return arm.usd_per_mtok_prompt / 1e6, arm.usd_per_mtok_response / 1e6
