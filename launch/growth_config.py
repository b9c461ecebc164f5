"""The config of launch.growth: which sizes of which stages."""

import dataclasses

from erp_jax.core import errors
from erp_jax.core import runtime as runtime_lib
from erp_jax.report import growth


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """One stage's work, and what of it is varied, one at a time."""

  base: dict[str, int]
  varied: dict[str, tuple[int, ...]]

  def __post_init__(self):
    for name, sizes in self.varied.items():
      errors.check_choice('a name in stages.NAME.varied', name, self.base)
      errors.check_choice('a name in stages.NAME.varied', name, growth.LABELS)
      errors.check_grid(f'stages.NAME.varied.{name}', sizes, lowest=1)
      if len(sizes) < 2:
        raise errors.UserError(
          f'stages.NAME.varied.{name} is {sizes}: a curve needs two sizes.'
        )


def _sizes(base: dict[str, int], **varied: tuple[int, ...]) -> Sizes:
  return Sizes(base=base, varied=varied)


_DEVICES = (1, 2, 4, 8)
# About a second each on two cores, with a decoder of 4 million parameters and
# the real MiniLM.
_STAGES = {
  'sample': _sizes(
    {'prompts': 16, 'k': 8, 'arms': 1, 'prompt_tokens': 64, 'devices': 1},
    prompts=(8, 16, 32, 64),
    k=(4, 8, 16, 32),
    arms=(1, 2, 4, 8),
    prompt_tokens=(64, 128, 256, 512, 1024),
    devices=_DEVICES,
  ),
  'score': _sizes(
    {
      'prompts': 8,
      'k': 8,
      'arms': 1,
      'prompt_tokens': 128,
      'response_tokens': 65,
      'devices': 1,
    },
    prompts=(2, 4, 8, 16, 32),
    k=(2, 4, 8, 16, 32),
    arms=(1, 2, 4, 8),
    prompt_tokens=(64, 128, 256, 512, 1024),
    response_tokens=(33, 65, 129, 257),
    devices=_DEVICES,
  ),
  'embed': _sizes(
    {'prompts': 128, 'prompt_tokens': 64, 'devices': 1},
    prompts=(32, 64, 128, 256, 512),
    prompt_tokens=(16, 32, 64, 128, 256),
    devices=_DEVICES,
  ),
  'fit': _sizes(
    {'prompts': 8000, 'arms': 5, 'width': 512},
    prompts=(4000, 8000, 16000, 32000, 64000),
    arms=(1, 4, 16, 64, 256),
    width=(128, 256, 512, 1024),
  ),
  'route': _sizes(
    {'prompts': 80000, 'arms': 5},
    prompts=(20000, 40000, 80000, 160000, 320000),
    arms=(2, 4, 8, 16, 32),
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
  """Sizes by stage, and how often each is run; the fastest counts."""

  stages: dict[str, Sizes] = dataclasses.field(
    default_factory=lambda: dict(_STAGES)
  )
  repeats: int = 3  # After a first run, which compiles.
  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()

  def __post_init__(self):
    for stage in self.stages:
      errors.check_choice('a name in stages', stage, _STAGES)
    errors.check_least('repeats', self.repeats, 1)
