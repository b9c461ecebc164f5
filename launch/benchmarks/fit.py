"""Fitting: one penalty, a grid of them, and prompts that arrive in shards."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitWork:
  """Unit embeddings with a falling spectrum, and noisy linear rewards."""

  width: int = 1024
  num_targets: int = 15
  one: tuple[int, ...] = (2000, 100_000)  # Prompts of fits by one penalty.
  # And of fits by ten: scikit-learn needs 30 s for 100 000.
  path: tuple[int, ...] = (2000, 10_000)
  # 32 shards are 2 GiB.
  num_shards: tuple[int, ...] = (8, 32)
  shard_rows: int = 16384
  stream_dtype: str = 'float32'
  seed: int = 0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if field.name in ('stream_dtype', 'seed'):
        continue
      value = getattr(self, field.name)
      for number in value if isinstance(value, tuple) else (value,):
        errors.check_least(f'fit.{field.name}', number, 1)
    errors.check_choice(
      'fit.stream_dtype', self.stream_dtype, ('float32', 'float64')
    )


@dataclasses.dataclass(frozen=True)
class Part:
  """One contest's share of the work."""

  work: FitWork
  num: int  # Prompts, or shards.

  @property
  def repeats(self) -> int:
    """Fits in a turn: one of few prompts would time how threads wake up."""
    return max(1, 10_000 // self.num)


def contests(work: FitWork) -> list[contest.Contest]:
  """One for each size: fits, and prompts of streamed ones."""

  def held(name, num, entry, peers, unit='fits', dtype='float64'):
    part = Part(work, num)
    return contest.Contest(
      case=name,
      unit=unit,
      dtype=dtype,
      ours=contest.Contender('ours', f'.fit_ours:{entry}', part),
      peers=tuple(
        contest.Contender(
          f'sklearn {peer}', f'.fit_peers:{function}', part, ('sklearn',)
        )
        for peer, function in peers
      ),
    )

  ridge = (
    ('Ridge float64', 'ridge_float64'),
    ('Ridge float32', 'ridge_float32'),
  )
  ridge_cv = (('RidgeCV', 'ridge_cv'),)
  dtype = work.stream_dtype
  return [
    *(held(f'fit one {n}', n, 'prepare_one', ridge) for n in work.one),
    *(held(f'fit path {n}', n, 'prepare_path', ridge_cv) for n in work.path),
    *(
      held(f'fit stream {n}', n, 'prepare_stream', (), 'prompts', dtype)
      for n in work.num_shards
    ),
  ]
