"""One run's folder, and how its stages write artefacts into it."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from erp_jax.core import errors, store


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Where a run's artefacts lie, and what is recorded in each manifest.

  Attributes:
    provenance: package versions, code revision, machine.
    allow_version_change: go on with artefacts begun under other major
      versions.
  """

  path: epath.Path
  provenance: Mapping[str, Any]
  allow_version_change: bool = False

  def artifact(
    self,
    name: str,
    identity: Mapping[str, Any],
    num_shards: int = 0,
    replaceable: bool = False,
  ) -> store.Artifact:
    """The artefact `name` ('stage/part') of this run."""
    return store.Artifact(self.path / name, identity, num_shards, replaceable)

  @contextlib.contextmanager
  def writer(self, artifact: store.Artifact) -> Iterator[store.Writer]:
    """The one writer of an artefact of this run."""
    with artifact.writer(self.provenance, self.allow_version_change) as writer:
      yield writer

  def once(
    self,
    identity: Mapping[str, Any],
    file: str,
    make: Callable[[], Mapping[str, Any]],
  ) -> dict[str, Any]:
    """The content of a run that is one JSON file, made unless it is there."""
    artifact = self.artifact('.', identity)
    if not artifact.is_done():
      content = make()
      with self.writer(artifact) as writer:
        writer.write_file(file, store.json_bytes(content))
        writer.finish()
    return json.loads(store.read_file(artifact.path, file))


def check_name(kind: str, name: str) -> None:
  """UserError unless `name` can be a folder on every file system."""
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', name):
    raise errors.UserError(
      f'{kind} name {name!r} must start with a letter or digit and hold only '
      'letters, digits, ".", "_" and "-": it names a folder.'
    )
