"""How a checkpoint's vendor samples from it: its generation_config.json."""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

from erp_jax.core import errors
from erp_jax.models import checkpoint, json_file

_NAME = 'generation_config.json'
# Fields that change what is drawn and that the sampler lacks, each with the
# value at which it changes nothing.
_NOT_APPLIED = {
  'epsilon_cutoff': 0.0,
  'eta_cutoff': 0.0,
  'frequency_penalty': 0.0,
  'min_p': 0.0,
  'no_repeat_ngram_size': 0,
  'num_beams': 1,
  'presence_penalty': 0.0,
  'repetition_penalty': 1.0,
  'typical_p': 1.0,
}
# Type, condition and its words.
_ALLOWED = {
  'temperature': ((int, float), lambda x: 0 <= x < math.inf, 'a number >= 0'),
  'top_k': (int, lambda x: x >= 0, 'a whole number >= 0'),
  'top_p': ((int, float), lambda x: 0 < x <= 1, 'a number in (0, 1]'),
}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What logits go through before a token is drawn, in this order."""

  temperature: float = 1.0  # 0 is greedy.
  top_k: int = 0  # 0 is all.
  top_p: float = 1.0  # 1 is all.
  # What the file asks for besides, and is left undone: name to value.
  not_applied: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read(ckpt: checkpoint.Checkpoint) -> Settings:
  """Temperature, top-k and top-p as the checkpoint's file names them.

  What it does not name stays at temperature 1 without top-k and top-p: the
  defaults of a library are not the vendor's. `do_sample` false is greedy, and
  left out it is true.
  Raises UserError for a checkpoint without the file, and for a value that is
  none of its kind.
  """
  if ckpt.is_gguf:
    raise errors.UserError(
      f'arms.NAME.model is {ckpt.name!r}, a GGUF file, which does not say how '
      'its vendor samples: give a folder or hub id with its '
      f"{_NAME}, or set sample.generation to 'plain'."
    )
  path = ckpt.path / _NAME
  if not path.is_file():
    raise errors.UserError(
      f'arms.NAME.model is {ckpt.name!r}, which has no {_NAME} that says how '
      "its vendor samples: add it, or set sample.generation to 'plain'."
    )
  named = {k: v for k, v in json_file.read(path).items() if v is not None}
  for name, (kinds, is_allowed, allowed) in _ALLOWED.items():
    value = named.setdefault(name, getattr(Settings(), name))
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not (is_number and is_allowed(value)):
      raise errors.UserError(
        f'{path} has {name} {value!r}, but it must be {allowed}: correct it, '
        "or set sample.generation to 'plain'."
      )
  not_applied = {
    name: named[name]
    for name, idle in _NOT_APPLIED.items()
    if named.get(name, idle) != idle
  }
  if not_applied:
    _log.warning(
      '%s asks for %s too, which is not applied: what is sampled differs from '
      "the vendor's in that.",
      path,
      ', '.join(f'{name} {value!r}' for name, value in not_applied.items()),
    )
  samples = named.get('do_sample', True)
  return Settings(
    temperature=float(named['temperature'] if samples else 0),
    top_k=named['top_k'],
    top_p=float(named['top_p']),
    not_applied=not_applied,
  )
