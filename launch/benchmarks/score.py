"""Scoring: K responses a prompt, by a decoder with a head and by DeBERTa."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """How much one reward model reads, and in which batches."""

  num_prompts: int
  k: int
  batch_tokens: int  # Of ours, as rewards.NAME.batch_tokens.
  peer_rows: int  # Of a peer's batch; its rows are sorted by length.

  def __post_init__(self):
    for field in dataclasses.fields(self):
      errors.check_least(f'score.*.{field.name}', getattr(self, field.name), 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreWork:
  """Real prompts, cut and joined to texts of half to 1.5 times these means."""

  prompt_tokens: int = 200
  response_tokens: int = 100
  seed: int = 0
  # SmolLM2-135M, its head random, in bfloat16.
  decoder: Reading = Reading(
    num_prompts=8, k=32, batch_tokens=2048, peer_rows=4
  )
  # DeBERTa-v3-base's shape, everything random, in float32.
  deberta: Reading = Reading(
    num_prompts=1, k=16, batch_tokens=1280, peer_rows=4
  )

  def __post_init__(self):
    for name in ('prompt_tokens', 'response_tokens'):
      errors.check_least(f'score.{name}', getattr(self, name), 2)


def contests(work: ScoreWork) -> list[contest.Contest]:
  """Two: responses."""
  packages = ('torch', 'transformers')

  def held(name, dtype, peers):
    return contest.Contest(
      case=f'score {name}',
      unit='responses',
      dtype=dtype,
      ours=contest.Contender('ours', f'.score_ours:prepare_{name}', work),
      peers=tuple(
        contest.Contender(
          f'transformers {peer}',
          f'.score_peers:{name}_{peer}',
          work,
          packages,
        )
        for peer in peers
      ),
    )

  return [
    held('decoder', 'bfloat16', ('bfloat16',)),
    held('deberta', 'float32', ('float32', 'bfloat16')),
  ]
