"""Arms: what a prompt can be routed to."""

import dataclasses

from erp_jax.core import errors, store

THINKING = ('default', 'off', 'on')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """A checkpoint, or a checkpoint under a system prompt."""

  model: str = ''  # Hub id, local folder, or package:NAME.
  system_prompt: str = ''  # Empty: the chat template's own default.
  # Billions of parameters for the cost, as in the model's name; 0 takes the
  # exact count. (Exact counts reverse the cheap end of the paper's pool.)
  nominal_b: float = 0.0
  # Qwen3's switch, for chat templates that read `enable_thinking`: 'off' or
  # 'on'; 'default' leaves the variable out.
  thinking: str = 'default'

  def __post_init__(self):
    if not self.model:
      raise errors.UserError(
        'an arm needs arms.NAME.model: a hub id, a folder, or package:NAME.'
      )
    if self.nominal_b < 0:
      raise errors.UserError(
        f'arms.NAME.nominal_b must be >= 0, got {self.nominal_b}.'
      )
    if self.thinking not in THINKING:
      raise errors.UserError(
        f'arms.NAME.thinking is {self.thinking!r}, but must be one of '
        f'{", ".join(THINKING)}.'
      )

  def noise_name(self, name: str) -> str:
    """Names the arm's sampling noise: no two arms share uniforms."""
    return store.digest([name, *self.identity().values()])

  def identity(self) -> dict[str, str]:
    """What responses depend on; `thinking` is left out at its default."""
    identity = {'model': self.model, 'system_prompt': self.system_prompt}
    if self.thinking != 'default':
      identity['thinking'] = self.thinking
    return identity
