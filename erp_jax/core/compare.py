"""What differs between two identities, or two sets of package versions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def differences(old: Any, new: Any, where: str = '') -> Iterator[tuple]:
  """(field, old, new) for every leaf in which two JSON values differ."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      inner = f'{where}.{key}' if where else key
      yield from differences(old.get(key), new.get(key), inner)
  elif old != new:
    yield where, json.dumps(old), json.dumps(new)


def shared(found: Any, wanted: Any) -> Any:
  """The fields of `found` that `wanted` has too, nested as they are there."""
  if not (isinstance(found, dict) and isinstance(wanted, dict)):
    return found
  return {name: shared(found.get(name), wanted[name]) for name in wanted}


def major_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
  """'name old -> new' for each package whose major version differs.

  Below 1.0 the minor version is the major one.
  """

  def major(version: str) -> list[str]:
    parts = version.split('.')
    return parts[:2] if parts[0] == '0' else parts[:1]

  return [
    f'{name} {old[name]} -> {new[name]}'
    for name in sorted(old.keys() & new.keys())
    if major(old[name]) != major(new[name])
  ]
