"""Kinds of chips: memory, matmuls and bandwidth, as their makers say.

From memory of the makers' sheets (dense, without sparsity), but for the H200's
memory, which was measured. What a program reaches of it is for others to say.
"""

import dataclasses
import re
from collections.abc import Mapping

from erp_jax.core import errors


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip.

  Attributes:
    gib: of memory.
    flops: of matmuls in a second, by dtype of what is multiplied.
    bytes: to and from its memory in a second.
  """

  gib: float
  flops: Mapping[str, float]
  bytes: float


def _tpu(gib: float, bfloat16_tflops: float, gbps: float) -> Chip:
  """float32 at full precision takes a TPU six passes of bfloat16."""
  flops = bfloat16_tflops * 1e12
  rates = {'bfloat16': flops, 'float32': flops / 6}
  return Chip(gib, rates, gbps * 1e9)


# The SXM cards' float32 outside of tensor cores: we multiply no TF32.
_HOPPER = {'bfloat16': 989e12, 'float32': 67e12}

CHIPS = {
  'v5e': _tpu(16.0, 197, 819),
  'v4': _tpu(32.0, 275, 1228),
  'v6e': _tpu(32.0, 918, 1640),
  'v5p': _tpu(95.0, 459, 2765),
  'H100': Chip(80.0, _HOPPER, 3350e9),
  'H200': Chip(139.0, _HOPPER, 4800e9),
}


def parse(spec: str) -> tuple[str, int]:
  """('v5e', 16) of 'v5e-16': a kind and how many chips, 1 if it says none.

  Raises UserError for anything else. Chips, not cores, which names of v4 and
  v5p slices count.
  """
  kind, dash, count = spec.partition('-')
  if kind not in CHIPS:
    raise errors.UserError(
      f'chip {spec!r} is unknown; allowed: cpu, or KIND-COUNT such as v5e-16, '
      f'with a KIND of {", ".join(CHIPS)}.'
    )
  if dash and not re.fullmatch('[1-9][0-9]*', count):
    raise errors.UserError(
      f'chip {spec!r} names no count of chips: write {kind}-1 or more.'
    )
  return kind, int(count or 1)
