"""Loading: from a checkpoint on disk to weights that are ready."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadWork:
  """SmolLM2's safetensors in bfloat16, MiniLM's in float32.

  The files are in the system's cache: they were written, or read, before. 'new'
  starts a process for each loading and counts from its start to its end; the
  others load again and again in one that has done it before.
  """

  decoder: str = 'package:smollm2-135m-instruct'
  encoder: str = 'package:minilm-l6-v2'
  parts: tuple[str, ...] = (
    *('decoder', 'decoder new'),
    *('encoder', 'encoder new'),
  )

  def __post_init__(self):
    for part in self.parts:
      errors.check_choice('load.parts', part, _PARTS)


_PARTS = ('decoder', 'decoder new', 'encoder', 'encoder new')


def contests(work: LoadWork) -> list[contest.Contest]:
  """One for each part: loadings."""
  return [
    contest.Contest(
      case=f'load {part}',
      unit='loadings',
      dtype='bfloat16' if 'decoder' in part else 'float32',
      ours=contest.Contender('ours', '.load_ours:prepare', (work, part)),
      peers=(
        contest.Contender(
          'transformers',
          '.load_peers:prepare',
          (work, part),
          ('torch', 'transformers'),
        ),
      ),
    )
    for part in work.parts
  ]
