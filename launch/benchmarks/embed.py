"""Embedding: real prompts by MiniLM, and by gte-large's shape."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedWork:
  """Prompts of 7 to 256 tokens, 64 on average; rows are sorted by length."""

  encoder: str = 'package:minilm-l6-v2'
  num_prompts: int = 1000
  gte_prompts: int = 32
  # Of our batch, and rows of a peer's: the fastest on two cores.
  batch_tokens: int = 1024
  batch_tokens_bfloat16: int = 2048
  peer_rows: int = 16
  peer_rows_bfloat16: int = 24
  seed: int = 0  # Of gte's weights.
  parts: tuple[str, ...] = ('bfloat16', 'float32', 'gte')

  def __post_init__(self):
    for name in (
      *('num_prompts', 'gte_prompts', 'batch_tokens'),
      *('batch_tokens_bfloat16', 'peer_rows', 'peer_rows_bfloat16'),
    ):
      errors.check_least(f'embed.{name}', getattr(self, name), 1)
    for part in self.parts:
      errors.check_choice('embed.parts', part, _PARTS)


_PARTS = {
  'bfloat16': ('embed bfloat16', 'minilm', ('float32', 'bfloat16')),
  'float32': ('embed float32', 'minilm', ('float32',)),
  'gte': ('embed gte-large float32', 'gte', ('float32',)),
}


def contests(work: EmbedWork) -> list[contest.Contest]:
  """One for each part: prompts."""
  return [_contest(work, *_PARTS[part]) for part in work.parts]


def _contest(work, case, network, peers):
  dtype = 'bfloat16' if 'bfloat16' in case else 'float32'
  return contest.Contest(
    case=case,
    unit='prompts',
    dtype=dtype,
    ours=contest.Contender('ours', f'.embed_ours:{network}', (work, dtype)),
    peers=tuple(
      sentence_transformers(f'.embed_peers:{network}', work, peer)
      for peer in peers
    ),
  )


def sentence_transformers(entry, work, dtype) -> contest.Contender:
  """The peer in a dtype; prepared from (work, dtype)."""
  return contest.Contender(
    f'sentence-transformers {dtype}',
    entry,
    (work, dtype),
    ('sentence_transformers',),
  )
