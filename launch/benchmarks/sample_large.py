"""Sampling on an accelerator: shapes of 8B to 70B parameters, random weights.

Without an accelerator the same code runs on networks of the same kinds that
are tiny. That shows that it runs; its figures say nothing and have no limit.
"""

import dataclasses

from erp_jax.core import errors
from erp_jax.models import catalog, decoder
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargeWork:
  """Workload B: real lengths of prompts and responses, random ids and weights.

  Attributes:
    shapes: of `SHAPES`, one case each.
    peer_prompts: of transformers, prompts in one batch, each K times.
  """

  shapes: tuple[str, ...] = ('llama_8b', 'gemma_9b', 'llama_70b_int8')
  num_prompts: int = 64
  min_prompt_tokens: int = 64
  max_prompt_tokens: int = 512
  k: int = 32
  max_new_tokens: int = 512
  seed: int = 0
  peer_prompts: int = 8
  tiny: bool = False  # Set where there is no accelerator.

  def __post_init__(self):
    for shape in self.shapes:
      errors.check_choice('sample_large.shapes', shape, SHAPES)
    for name in ('num_prompts', 'k', 'max_new_tokens', 'peer_prompts'):
      errors.check_least(f'sample_large.{name}', getattr(self, name), 1)

  def without_accelerator(self) -> 'LargeWork':
    """Of tiny networks, few prompts and short responses."""
    return dataclasses.replace(
      self,
      tiny=True,
      num_prompts=min(self.num_prompts, 3),
      k=min(self.k, 4),
      max_new_tokens=min(self.max_new_tokens, 8),
      peer_prompts=min(self.peer_prompts, 2),
    )


@dataclasses.dataclass(frozen=True)
class Shape:
  """A network, the dtype of its weights, and slots whose caches fit 141 GB."""

  config: decoder.DecoderConfig
  dtype: str
  slots: int

  def shrunk(self) -> 'Shape':
    """The same kind of network with two small layers."""
    small = dataclasses.replace(
      self.config,
      num_layers=2,
      width=64,
      mlp=128,
      heads=4,
      kv_heads=2,
      head_dim=16,
      vocab_size=512,
      windowed=self.config.windowed[:2],
    )
    return dataclasses.replace(self, config=small, slots=8)


def _shape(name: str, dtype: str, slots: int) -> Shape:
  config = catalog.CATALOG[name].config
  assert isinstance(config, decoder.DecoderConfig), name
  return Shape(config, dtype, slots)


SHAPES = {
  'llama_8b': _shape('meta-llama/Llama-3.1-8B-Instruct', 'bfloat16', 512),
  'gemma_9b': _shape('google/gemma-2-9b-it', 'bfloat16', 256),
  'llama_70b_int8': _shape('meta-llama/Llama-3.1-70B-Instruct', 'int8', 128),
}


def contests(work: LargeWork) -> list[contest.Contest]:
  """Two for each shape: prompts read, then also all responses sampled.

  transformers takes part where its bfloat16 weights fit the card.
  """
  found = []
  for name in work.shapes:
    shape = SHAPES[name].shrunk() if work.tiny else SHAPES[name]
    reading = dataclasses.replace(work, max_new_tokens=1)
    peer = contest.Contender(
      'transformers bfloat16, static cache',
      '.sample_large_peers:prepare',
      (work, shape),
      ('torch', 'transformers'),
    )
    for case, unit, part, peers in (
      ('prefill', 'prompt tokens', reading, ()),
      ('sample', 'tokens', work, (peer,) if shape.dtype != 'int8' else ()),
    ):
      found.append(
        contest.Contest(
          case=f'{case} {name}' + (' (tiny)' if work.tiny else ''),
          unit=unit,
          dtype='bfloat16',  # That of the matmuls also with int8 weights.
          ours=contest.Contender(
            'ours', '.sample_large_ours:prepare', (part, shape)
          ),
          peers=peers,
          alone=True,
          device='none' if work.tiny else '',
        )
      )
  return found
