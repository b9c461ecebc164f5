"""Arms: what a prompt can be routed to."""

import dataclasses

from erp_jax.core import errors, store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """A checkpoint, or a checkpoint under a system prompt."""

  model: str = ''  # Hub id, local folder, or package:NAME.
  system_prompt: str = ''  # Empty: the chat template's own default.
  # Billions of parameters for the cost, as in the model's name; 0 takes the
  # exact count. (Exact counts reverse the cheap end of the paper's pool.)
  nominal_b: float = 0.0

  def __post_init__(self):
    if not self.model:
      raise errors.UserError(
        'an arm needs arms.NAME.model: a hub id, a folder, or package:NAME.'
      )
    if self.nominal_b < 0:
      raise errors.UserError(
        f'arms.NAME.nominal_b must be >= 0, got {self.nominal_b}.'
      )

  def noise_name(self, name: str) -> str:
    """Names the arm's sampling noise: no two arms share uniforms."""
    return store.digest([name, self.model, self.system_prompt])
