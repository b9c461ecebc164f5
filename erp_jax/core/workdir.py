"""One run's folder, and how its stages write artefacts into it."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from etils import epath

from erp_jax.core import errors, group, locks, preemption, store


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Where a run's artefacts lie, and what is recorded in each manifest.

  Attributes:
    provenance: package versions, code revision, machine.
    allow_version_change: go on with artefacts begun under other major
      versions.
    share: the shards that are written here; others are left to replicas.
  """

  path: epath.Path
  provenance: Mapping[str, Any]
  allow_version_change: bool = False
  share: locks.Share = locks.ALL

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
  def writer(
    self, artifact: store.Artifact
  ) -> Iterator['store.Writer | GroupWriter']:
    """The one writer of this run's share of an artefact.

    Raises UserError in a group one of whose hosts would make something else.
    """
    begun = artifact.writer(
      self.provenance, self.allow_version_change, self.share
    )
    if not group.is_joined():
      with begun as writer:
        yield writer
      return
    with contextlib.ExitStack() as stack:
      made = []
      group.of_first(lambda: made.append(stack.enter_context(begun)))
      if not made:
        stack.enter_context(preemption.finished_first(lambda: 'a shard'))
      first = group.of_first(lambda: artifact.digest)
      if group.any_of(first != artifact.digest):
        raise errors.UserError(
          f'{artifact.path} would be made otherwise by another host of this '
          'group than by the first: give all hosts the same config, prompts '
          'and checkpoints.'
        )
      yield GroupWriter(*made)

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


class GroupWriter:
  """A store.Writer of the first host of a group, for all of its hosts.

  All call it alike, and wait for each other. What one is told by SIGTERM, all
  do, between two shards.
  """

  def __init__(self, writer: store.Writer | None = None):
    self._writer = writer
    self._left: set[int] = set()

  def missing(self) -> list[int]:
    """As store.Writer."""
    missing = group.of_first(lambda: self._writer.missing())
    self._left = set(missing)
    return missing

  def write_shard(
    self, index: int, table: pa.Table, counts: Mapping[str, float] | None = None
  ) -> None:
    """As store.Writer; `table` and `counts` are the first host's."""
    group.of_first(lambda: self._writer.write_shard(index, table, counts))
    self._left.discard(index)
    if self._left:
      self._stop_if_any_is_asked()

  def write_file(self, name: str, data: bytes) -> None:
    """As store.Writer; `data` is the first host's."""
    group.of_first(lambda: self._writer.write_file(name, data))

  def shard_counts(self) -> dict[str, float]:
    """As store.Writer."""
    return group.of_first(lambda: self._writer.shard_counts())

  def is_complete(self) -> bool:
    """As store.Writer."""
    complete = group.of_first(lambda: self._writer.is_complete())
    if not complete:  # Else the manifest comes first.
      self._stop_if_any_is_asked()
    return complete

  def finish(self, info: Mapping[str, Any] | None = None) -> None:
    """As store.Writer; `info` is the first host's."""
    group.of_first(lambda: self._writer.finish(info))
    self._stop_if_any_is_asked()

  def _stop_if_any_is_asked(self) -> None:
    if group.any_of(preemption.is_asked()):
      raise preemption.Preempted(
        'a host of this group was stopped by SIGTERM; the same command on all '
        'goes on where this one was.'
      )


def check_name(kind: str, name: str) -> None:
  """UserError unless `name` can be a folder on every file system."""
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', name):
    raise errors.UserError(
      f'{kind} name {name!r} must start with a letter or digit and hold only '
      'letters, digits, ".", "_" and "-": it names a folder.'
    )
