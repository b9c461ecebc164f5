"""Sampling: K responses to real prompts, with the stops that they have."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleWork:
  """Workload A: SmolLM2-135M answers benchmark prompts of mixed length."""

  model: str = 'package:smollm2-135m-instruct'
  num_prompts: int = 16
  max_prompt_tokens: int = 512
  k: int = 32
  max_new_tokens: int = 256
  dtype: str = 'bfloat16'  # Of our weights and matmuls.
  slots: int = 512
  seed: int = 0
  # transformers: prompts in one batch, each K times.
  peer_prompts: int = 4
  peers: tuple[str, ...] = ('transformers', 'llama.cpp')

  def __post_init__(self):
    for name in ('num_prompts', 'k', 'max_new_tokens', 'slots', 'peer_prompts'):
      errors.check_least(f'sample.{name}', getattr(self, name), 1)
    for peer in self.peers:
      errors.check_choice('sample.peers', peer, _PEERS)


_PEERS = {
  'transformers': (
    ('transformers bfloat16', 'transformers_sample', ('torch', 'transformers')),
  ),
  'llama.cpp': (
    ('llama.cpp bfloat16', 'llama_bfloat16', ('xllamacpp',)),
    ('llama.cpp Q4_0', 'llama_q4_0', ('xllamacpp',)),
    ('llama.cpp Q4_1', 'llama_packed', ('xllamacpp',)),
  ),
}


def contests(work: SampleWork) -> list[contest.Contest]:
  """One: tokens up to and including the stop."""
  return [
    contest.Contest(
      case='sample',
      unit='tokens',
      dtype=work.dtype,
      ours=contest.Contender('ours', '.sample_ours:prepare', work),
      peers=tuple(
        contest.Contender(name, f'.sample_peers:{entry}', work, packages)
        for peer in work.peers
        for name, entry, packages in _PEERS[peer]
      ),
    )
  ]
