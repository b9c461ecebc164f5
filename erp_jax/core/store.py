"""Artefacts: folders of checksummed files, keyed by what made them.

An artefact is a folder that one writer at a time fills, or replicas with a
share of it each. Its `identity.json` is written first and says what made it;
its shards are Parquet files, each with a small record of its checksum beside
it; its `manifest.json` is written last, and only then do readers see the
artefact. A killed writer leaves finished shards, which the next one keeps, and
temporary files, which it removes.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from erp_jax.core import (
  buckets,
  compare,
  errors,
  events,
  failures,
  locks,
  preemption,
  whole_files,
)

_log = logging.getLogger(__name__)

IDENTITY = 'identity.json'
MANIFEST = 'manifest.json'
FAILURE = 'failed.json'  # Why the last writer of an unfinished artefact failed.
_IDENTITY_KEYS = ('identity', 'versions')
_MANIFEST_KEYS = ('identity', 'digest', 'shards', 'files', 'counts', 'info')


def digest(value: Any) -> str:
  """Hex sha256 of a JSON-able value in canonical form."""
  return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
  return json.dumps(
    value, sort_keys=True, ensure_ascii=False, separators=(',', ':')
  ).encode()


def sha256(file: epath.Path) -> str:
  """Hex sha256 of a file's bytes."""
  with file.open('rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Writes a whole file or nothing; on a bucket in one put, tried some times.

  Raises UserError if that cannot be done.
  """
  write = buckets.put if buckets.is_bucket(path) else whole_files.replace
  write(epath.Path(path), data)


def json_bytes(value: Any) -> bytes:
  """Indented JSON with a final newline; ValueError for NaN and infinity."""
  text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
  return (text + '\n').encode()


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes `json_bytes` to a file."""
  write_bytes(path, json_bytes(value))


def read_json(path: epath.PathLike, needs: Iterable[str] = ()) -> Any:
  """Parsed JSON of a file; UserError naming one that is damaged.

  `needs` are the keys that it must have.
  """
  fix = f'delete the folder {epath.Path(path).parent} and run again'
  try:
    value = json.loads(epath.Path(path).read_text())
  except (json.JSONDecodeError, UnicodeDecodeError) as e:
    raise errors.UserError(f'{path} is not JSON ({e}): {fix}.') from e
  for name in needs:
    if name not in value:
      raise errors.UserError(f'{path} lacks {name!r}: {fix}.')
  return value


def parquet_bytes(table: pa.Table) -> bytes:
  """The table as zstd Parquet; equal tables give equal bytes."""
  sink = io.BytesIO()
  pq.write_table(table, sink, compression='zstd')
  return sink.getvalue()


@dataclasses.dataclass(frozen=True)
class Artifact:
  """A folder, and what it is made from.

  Attributes:
    path: the artefact's folder.
    identity: JSON-able fields that decide its content, `format_version` among
      them. Two artefacts with equal identities hold the same data.
    num_shards: how many shards it has when complete.
    replaceable: made anew when its identity changes, as results are that are
      cheap to derive; otherwise another identity is refused.
  """

  path: epath.Path
  identity: Mapping[str, Any]
  num_shards: int = 0
  replaceable: bool = False

  @property
  def digest(self) -> str:
    return digest(self.identity)

  def shard_name(self, index: int) -> str:
    return f'part-{index:05d}-of-{self.num_shards:05d}.parquet'

  def is_done(self) -> bool:
    """True if complete; UserError if the folder is of another identity.

    A file that was deleted (the fix for a corrupt one) makes it incomplete.
    """
    manifest = self.path / MANIFEST
    if not self._is_ours() or not manifest.exists():
      return False
    names = [self.shard_name(i) for i in range(self.num_shards)]
    names += [name.removesuffix('.parquet') + '.json' for name in names]
    names += read_json(manifest, _MANIFEST_KEYS)['files']
    return all((self.path / name).exists() for name in names)

  def _is_ours(self) -> bool:
    """False if the folder holds nothing, or what may be replaced."""
    file = self.path / IDENTITY
    if not file.exists():
      return False
    found = read_json(file, _IDENTITY_KEYS)['identity']
    ours = json.loads(_canonical(self.identity))
    if found != ours and not self.replaceable:
      where, old, new = next(compare.differences(found, ours))
      raise errors.UserError(
        f'{self.path} was made with {where} = {old}, now it is {new}: use '
        'another --workdir, set it back, or delete that folder.'
      )
    return found == ours

  @contextlib.contextmanager
  def writer(
    self,
    provenance: Mapping[str, Any],
    allow_version_change: bool = False,
    share: locks.Share = locks.ALL,
  ) -> Iterator['Writer']:
    """The one writer of this artefact or share of it, holding its lock.

    Args:
      provenance: recorded, not identity: `versions` of packages, code
        revision, machine. A resumed artefact must have been begun under the
        same major versions unless `allow_version_change`.
    Raises:
      UserError: another process is writing it, or it has another identity.
    """
    with failures.writing(self.path, 0):
      self.path.mkdir(parents=True, exist_ok=True)
    with locks.held(self.path, share):
      with locks.turn(self.path, share):
        changes = self._begin(provenance['versions'], allow_version_change)
        self._forget(share)
      writer = Writer(self, dict(provenance), changes, share)
      about = {'artifact': f'{self.path}', 'num_shards': self.num_shards}
      with (
        events.told(about),
        failures.noted(lambda e: self._note_failure(e, share)),
        preemption.finished_first(writer.being_made),
      ):
        yield writer

  def _begin(self, versions: Any, allow_version_change: bool) -> list[str]:
    """Says what makes it, or checks that; which major versions have changed."""
    begun = self.path / IDENTITY
    if self._is_ours():
      changes = compare.major_changes(read_json(begun)['versions'], versions)
      if changes and not allow_version_change:
        raise errors.UserError(
          f'{self.path} was begun under other versions: {"; ".join(changes)}; '
          'install those, or pass --allow_version_change to go on (it is '
          'written down).'
        )
      return changes
    if any(self.path.glob('part-*')):
      raise errors.UserError(
        f'{self.path} holds shards, but no {IDENTITY} that says what made '
        'them: put it back, or delete that folder.'
      )
    self._remove_replaced()
    made = {'identity': self.identity, 'versions': versions}
    write_json(begun, made | {'num_shards': self.num_shards})
    return []

  def _forget(self, share: locks.Share) -> None:
    """Removes what a writer left that did not end well; not a sibling's."""
    failure = self.path / FAILURE
    if share == locks.ALL:
      for stale in [*self.path.glob(f'{whole_files.TMP}*'), failure]:
        stale.unlink(missing_ok=True)
    else:
      try:
        error = read_json(failure, ('error',))['error']
      except (FileNotFoundError, errors.UserError):
        error = ''  # It is gone, or of no use to anybody.
      whose = re.match(rf'replica \d+ of {share.of}\b', error)
      if not whose or whose[0] == f'{share}':
        failure.unlink(missing_ok=True)

  def _note_failure(self, e: BaseException | None, share: locks.Share) -> None:
    """Leaves the reason for those who ask for the status."""
    if isinstance(e, Exception):  # Not what a person or a signal stops.
      whose = '' if share == locks.ALL else f'{share}: '
      with locks.turn(self.path, share):
        write_json(self.path / FAILURE, {'error': whose + errors.said(e)})

  def _remove_replaced(self) -> None:
    """Removes the files of another identity: none may pass for ours."""
    manifest = self.path / MANIFEST
    if manifest.exists():
      for name in read_json(manifest, _MANIFEST_KEYS)['files']:
        if (self.path / name).is_file():
          (self.path / name).unlink()
      manifest.unlink()


class Writer:
  """Adds shards to one artefact, those of its share, and completes it."""

  def __init__(
    self,
    artifact: Artifact,
    provenance: dict[str, Any],
    changes: list[str],
    share: locks.Share,
  ):
    self._artifact = artifact
    self._provenance = provenance
    self._changes = changes
    self._share = share
    self._files: dict[str, str] = {}
    self._mine = range(share.index, artifact.num_shards, share.of)
    self._left = set(self._mine)

  def being_made(self) -> str:
    """Such as '2 of 3 shards of FOLDER'; '' if it has none."""
    total = len(self._mine)
    done = f'{total - len(self._left)} of {total} shards'
    return f'{done} of {self._artifact.path}' if total else ''

  def missing(self) -> list[int]:
    """Indices of the shards still to be written.

    UserError names one that is there, but was altered.
    """
    self._left = {i for i in self._mine if not self._is_whole(i)}
    return sorted(self._left)

  def write_shard(
    self, index: int, table: pa.Table, counts: Mapping[str, float] | None = None
  ) -> None:
    """Writes one shard, then the record that makes it count as finished."""
    data = parquet_bytes(table)
    write_bytes(self._path(index), data)
    write_json(
      self._record(index),
      {
        'sha256': hashlib.sha256(data).hexdigest(),
        'rows': table.num_rows,
        'counts': dict(counts or {}),
      },
    )
    about = {'artifact': f'{self._artifact.path}', 'index': index}
    about |= {'rows': table.num_rows, 'bytes': len(data)}
    events.emit('shard', about | {'counts': dict(counts or {})})
    self._left.discard(index)
    if self._left:  # Else the manifest comes first.
      preemption.stop_if_asked()

  def write_file(self, name: str, data: bytes) -> None:
    """Writes a named file of the artefact; its checksum is in the manifest."""
    write_bytes(self._artifact.path / name, data)
    self.add_file(name, hashlib.sha256(data).hexdigest())

  def add_file(self, name: str, checksum: str) -> None:
    """Lists a file or folder that was written by other means."""
    self._files[name] = checksum

  def shard_counts(self) -> dict[str, float]:
    """The counts of all finished shards, added up."""
    total: dict[str, float] = {}
    for i in range(self._artifact.num_shards):
      for name, count in read_json(self._record(i))['counts'].items():
        total[name] = total.get(name, 0) + count
    return total

  def is_complete(self) -> bool:
    """Whether no shard is missing; says how many the other replicas owe."""
    total = self._artifact.num_shards
    others = set(range(total)) - set(self._mine)
    owed = sum(not self._record(i).exists() for i in others)
    if owed:
      _log.info(
        '%d of %d shards of %s are missing: other replicas have them to make.',
        *(owed, total, self._artifact.path),
      )
    return not owed

  def finish(self, info: Mapping[str, Any] | None = None) -> None:
    """Writes the manifest, which makes the artefact visible to readers."""
    art = self._artifact
    shards = {}
    for i in range(art.num_shards):
      record = read_json(self._record(i))
      shards[art.shard_name(i)] = {k: record[k] for k in ('sha256', 'rows')}
    manifest = {
      'identity': art.identity,
      'digest': art.digest,
      'shards': shards,
      'files': self._files,
      'counts': self.shard_counts(),
      'info': dict(info or {}),
      'provenance': self._provenance,
      'version_changes': self._changes,
    }
    with locks.turn(art.path, self._share):  # Another may complete it as well.
      write_json(art.path / MANIFEST, manifest)

  def _path(self, index: int) -> epath.Path:
    return self._artifact.path / self._artifact.shard_name(index)

  def _record(self, index: int) -> epath.Path:
    return self._path(index).with_suffix('.json')

  def _is_whole(self, index: int) -> bool:
    if not (self._record(index).exists() and self._path(index).exists()):
      return False
    checksum = read_json(self._record(index), ('sha256',))['sha256']
    whole_files.read(self._path(index), checksum)
    return True


def read_manifest(path: epath.PathLike) -> dict[str, Any]:
  """The manifest of a complete artefact; UserError if it is not complete."""
  file = epath.Path(path) / MANIFEST
  if not file.exists():
    raise errors.UserError(
      f'{path} is not there or not complete (no {MANIFEST}): run the stage '
      'that writes it, with the same --workdir.'
    )
  return read_json(file, _MANIFEST_KEYS)


def check_made_with(path: epath.PathLike, expected: Mapping[str, Any]) -> None:
  """UserError naming the field in which an artefact's identity is another.

  `expected` holds some of the identity's fields, nested as they are there.
  """
  wanted = json.loads(_canonical(expected))
  found = compare.shared(read_manifest(path)['identity'], wanted)
  for where, old, new in compare.differences(found, wanted):
    raise errors.UserError(
      f'{path} was made with {where} = {old}, but the config says {new}: set '
      'it back, or use another --workdir and run the earlier stages there.'
    )


def read_file(path: epath.PathLike, name: str) -> bytes:
  """A named file of a complete artefact, checked against its checksum."""
  checksum = read_manifest(path)['files'][name]
  return whole_files.read(epath.Path(path) / name, checksum)


def read_table(path: epath.PathLike) -> pa.Table:
  """All shards of a complete artefact, each checked against its checksum."""
  manifest = read_manifest(path)
  return pa.concat_tables(
    pq.read_table(
      io.BytesIO(whole_files.read(epath.Path(path) / name, record['sha256']))
    )
    for name, record in manifest['shards'].items()
  )
