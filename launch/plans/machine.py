"""What a run is planned on: ceilings of its chips, and what stages reach."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from erp_jax.core import chips, errors
from launch.benchmarks import ceilings

CPU = 'cpu'
# Shares of the limit, by stage and dtype. Of two cores with AMX, where float32
# is multiplied at 300 GFLOP/s and bfloat16 at 1000; BUILD.md has the commands.
_CPU_SHARES = {
  'sample float32': 0.36,
  'sample bfloat16': 0.18,
  'score float32': 0.48,
  'score bfloat16': 0.38,
  'embed float32': 0.7,
  'embed bfloat16': 0.3,
  'fit float64': 0.6,
}
# Assumed: nobody has measured them on an accelerator yet.
_CHIP_SHARES = {'sample': 0.5, 'score': 0.5, 'embed': 0.5, 'fit': 0.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """Chips of one kind.

  Attributes:
    kind: of chips.CHIPS, or CPU, which is one chip.
    flops, bytes: one chip's, in a second; see chips.Chip. int8 weights are
      multiplied as bfloat16; float64 is what this host does in NumPy.
    shares: by stage, or stage and dtype.
    source: of all these figures.
  """

  kind: str
  num_chips: int
  flops: Mapping[str, float]
  bytes: float
  shares: Mapping[str, float]
  source: str

  def share(self, stage: str, dtype: str) -> float:
    """Of the limit that the stage reaches."""
    if stage in self.shares:
      return self.shares[stage]
    return self.shares[f'{stage} {_multiplied(dtype)}']

  def rate(self, dtype: str) -> float:
    """FLOP/s of one chip with weights of this dtype."""
    return self.flops[_multiplied(dtype)]


def find(spec: str, shares: Sequence[str]) -> Machine:
  """The machine that `spec` names; 'STAGE=SHARE' of `shares` replace its own.

  'cpu' is measured here and now, which takes a second. Raises UserError for
  what is unknown.
  """
  own = _parse_shares(shares)
  said = f'; shares of {", ".join(own)} as given' if own else ''
  if spec == CPU:
    return Machine(
      kind=CPU,
      num_chips=1,
      **_measured(),
      shares=_CPU_SHARES | own,
      source=f'ceilings measured here, shares of the limit on two cores{said}',
    )
  kind, num_chips = chips.parse(spec)
  chip = chips.CHIPS[kind]
  return Machine(
    kind=kind,
    num_chips=num_chips,
    flops=chip.flops | _host(),
    bytes=chip.bytes,
    shares=_CHIP_SHARES | own,
    source=f'makers’ figures, shares of the limit assumed, not measured{said}',
  )


def _measured() -> dict:
  """This CPU's ceilings, as launch.benchmark measures them."""
  works = {
    dtype: ceilings.prepare(dtype)() for dtype in ('bfloat16', 'float32')
  }
  return {
    'flops': {dtype: work.flops for dtype, work in works.items()} | _host(),
    'bytes': max(work.bytes for work in works.values()),
  }


def _host() -> dict[str, float]:
  """NumPy's fastest product of three, where fits run."""
  x = np.ones((1024, 1024))
  secs = []
  for _ in range(3):
    start = time.perf_counter()
    x @ x
    secs.append(time.perf_counter() - start)
  return {'float64': 2 * 1024**3 / min(secs)}


def _multiplied(dtype: str) -> str:
  return 'bfloat16' if dtype == 'int8' else dtype


def _parse_shares(shares: Sequence[str]) -> dict[str, float]:
  parsed = {}
  for text in shares:
    stage, _, value = text.partition('=')
    errors.check_choice('--shares', stage, _CHIP_SHARES)
    try:
      parsed[stage] = float(value)
    except ValueError:
      parsed[stage] = 0.0
    if not 0 < parsed[stage] <= 1:
      raise errors.UserError(
        f'--shares has {text!r}: a share of the limit is over 0 and at most 1, '
        'as in sample=0.4.'
      )
  return parsed
