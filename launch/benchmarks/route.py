"""Routing: a prompt at a time from its text, and from its embedding."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest, embed


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteWork:
  """A router of several arms behind MiniLM, fitted on random rewards."""

  encoder: str = 'package:minilm-l6-v2'
  num_arms: int = 5
  fit_prompts: int = 300
  num_prompts: int = 100  # Routed one after another.
  num_decisions: int = 5120  # From embeddings, without the encoder.
  budget: float = 0.7
  seed: int = 0
  # Dtypes of the encoder, and requests to decide on without one.
  parts: tuple[str, ...] = ('bfloat16', 'float32', 'decide 1', 'decide 256')

  def __post_init__(self):
    for name in ('num_arms', 'fit_prompts', 'num_prompts', 'num_decisions'):
      errors.check_least(f'route.{name}', getattr(self, name), 1)
    for part in self.parts:
      errors.check_choice('route.parts', part, _PARTS)


_PARTS = ('bfloat16', 'float32', 'decide 1', 'decide 256')


def contests(work: RouteWork) -> list[contest.Contest]:
  """One for each part: prompts. The peer only embeds them."""
  return [
    _decide(work, int(part.split()[1]))
    if part.startswith('decide')
    else _prompt(work, part)
    for part in work.parts
  ]


def _prompt(work, dtype):
  return contest.Contest(
    case=f'route {dtype}',
    unit='prompts',
    dtype=dtype,
    ours=contest.Contender('ours', '.route_ours:prompt', (work, dtype)),
    peers=tuple(
      embed.sentence_transformers('.route_peers:prompt', work, peer)
      for peer in ('float32', 'bfloat16')
    ),
  )


def _decide(work, batch):
  return contest.Contest(
    case=f'route decide {batch}',
    unit='prompts',
    dtype='float32',
    ours=contest.Contender('ours', '.route_ours:decide', (work, batch)),
    peers=(),
  )
