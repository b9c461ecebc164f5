"""Frozen dataclasses to and from the ConfigDicts of the command line.

Defaults live in the dataclasses; `configs/*.py` start from `as_config_dict`,
flags override, and `build` turns the result back into dataclasses. Nothing to
the right of this module ever sees a ConfigDict.
"""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

import ml_collections

from erp_jax.core import errors


def as_config_dict(value: Any) -> ml_collections.ConfigDict:
  """A ConfigDict with the fields and values of a (nested) dataclass.

  Fields and entries keep their order: arms and reward models have one.
  """
  return _ordered(as_plain(value))


def _ordered(value: Any) -> Any:
  if not isinstance(value, Mapping):
    return value
  # Names of data, as of a source, may hold a dot; those of fields never do.
  dotted = any('.' in name for name in value)
  config = ml_collections.ConfigDict(sort_keys=False, allow_dotted_keys=dotted)
  for name, item in value.items():
    config[name] = _ordered(item)
  return config


def as_plain(value: Any) -> Any:
  """Nested dicts, tuples and scalars of a dataclass, in field order."""
  if dataclasses.is_dataclass(value):
    return as_plain_fields(value, type(value))
  if isinstance(value, Mapping):
    return {key: as_plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return tuple(as_plain(item) for item in value)
  return value


def as_plain_fields(value: Any, cls: type) -> dict[str, Any]:
  """The same of the fields of a base class alone: a binary adds its own."""
  return {
    f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(cls)
  }


def build(cls: type, values: Mapping[str, Any], path: str = 'config') -> Any:
  """The dataclass `cls` from a mapping, every field checked.

  A field left out keeps its default. Annotations understood: nested
  dataclasses, dict[str, T], tuple[T, ...], str, int, float, bool.
  Raises UserError for an unknown field (with the nearest name) or a value of
  another type; errors of the dataclass's own checks pass through.
  """
  hints = typing.get_type_hints(cls)
  for name in values:
    if name not in hints:
      raise errors.UserError(
        f'{path}.{name} is not a field; {did_you_mean(name, hints)}'
      )
  kwargs = {
    name: _convert(hints[name], value, f'{path}.{name}')
    for name, value in values.items()
  }
  return cls(**kwargs)


def did_you_mean(name: str, allowed: typing.Iterable[str]) -> str:
  """'did you mean X? Allowed: …', or only the allowed names."""
  allowed = sorted(allowed)
  close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{hint}allowed: {", ".join(allowed)}.'


def _convert(hint: Any, value: Any, path: str) -> Any:
  """`value` as the annotation `hint` says; UserError where it can't be."""
  origin = typing.get_origin(hint)
  if dataclasses.is_dataclass(hint):
    if not isinstance(value, Mapping):
      raise errors.UserError(
        f'{path} must be a group of fields, got {value!r}.'
      )
    return build(hint, value, path)
  if origin is dict:
    item = typing.get_args(hint)[1]
    return {
      key: _convert(item, entry, f'{path}.{key}')
      for key, entry in value.items()
    }
  if origin is tuple:
    item = typing.get_args(hint)[0]
    if isinstance(value, str) or not isinstance(value, list | tuple):
      raise errors.UserError(f'{path} must be a list, got {value!r}.')
    return tuple(
      _convert(item, entry, f'{path}[{i}]') for i, entry in enumerate(value)
    )
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
    raise errors.UserError(
      f'{path} must be of type {hint.__name__}, got {value!r}.'
    )
  return value
