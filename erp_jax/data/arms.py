"""Arms: what a prompt can be routed to."""

import dataclasses
import math
from typing import Any

from erp_jax.core import endpoint as endpoint_lib
from erp_jax.core import errors, store

# What an arm's cost is made of; none of it touches what is sampled.
PRICES = (
  'nominal_b',
  'active_b',
  'usd_per_mtok_prompt',
  'usd_per_mtok_response',
)
THINKING = ('default', 'off', 'on')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """A checkpoint or what a server serves, maybe under a system prompt."""

  # Hub id, local folder, or package:NAME; of a server, its name there.
  model: str = ''
  endpoint: endpoint_lib.Endpoint = endpoint_lib.Endpoint()
  system_prompt: str = ''  # Empty: the chat template's own default.
  # Billions of parameters for the cost, as in the model's name; 0 takes the
  # exact count. (Exact counts reverse the cheap end of the paper's pool.)
  nominal_b: float = 0.0
  # Billions of parameters that one token uses, of a mixture of experts; for
  # costs of kind 'active', where 0 takes all of them.
  active_b: float = 0.0
  # Dollars per million tokens, read and written; for costs of kind 'usd'.
  usd_per_mtok_prompt: float = 0.0
  usd_per_mtok_response: float = 0.0
  # Qwen3's switch, for chat templates that read `enable_thinking`: 'off' or
  # 'on'; 'default' leaves the variable out.
  thinking: str = 'default'

  def __post_init__(self):
    if not self.model:
      raise errors.UserError(
        'an arm needs arms.NAME.model: a hub id, a folder, or package:NAME; '
        'with arms.NAME.endpoint.url, the name that the server has for it.'
      )
    for name in PRICES:
      if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
        raise errors.UserError(
          f'arms.NAME.{name} must be >= 0, got {getattr(self, name)}.'
        )
    if self.thinking not in THINKING:
      raise errors.UserError(
        f'arms.NAME.thinking is {self.thinking!r}, but must be one of '
        f'{", ".join(THINKING)}.'
      )
    hosted = self.is_served and self.endpoint.server == endpoint_lib.OPENAI
    if hosted and self.thinking != 'default':
      raise errors.UserError(
        f'arms.NAME.thinking is {self.thinking!r}, but a server of kind '
        f"{endpoint_lib.OPENAI!r} has no such switch: leave it at 'default'."
      )

  @property
  def is_served(self) -> bool:
    """Whether a server answers, and not a checkpoint that is loaded here."""
    return bool(self.endpoint.url)

  def noise_name(self, name: str) -> str:
    """Names the arm's sampling noise: no two arms share uniforms."""
    return store.digest([name, *self.identity().values()])

  def identity(self) -> dict[str, Any]:
    """What responses depend on; what is at its default is left out.

    Of a server it is what is sent, and what the user says of it: not the URL,
    under which the same model may be served tomorrow or not.
    """
    identity = {'model': self.model, 'system_prompt': self.system_prompt}
    if self.thinking != 'default':
      identity['thinking'] = self.thinking
    if self.is_served:
      identity['endpoint'] = {
        'revision': self.endpoint.revision,
        'settings': self.endpoint.settings,
      }
    return identity
