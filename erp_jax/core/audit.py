"""Whether a run's artefacts are what their writers wrote.

Every file with a checksum is read again, and manifests, identities and records
are held against each other. What a manifest says of packages and machine is in
no second place, and so not checked; neither are files without a manifest
that no check is for, such as a report. A folder that is gone with all that it
held leaves no trace.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from erp_jax.core import (
  buckets,
  checkpoint,
  errors,
  folders,
  store,
  whole_files,
)

WHOLE, UNFINISHED, UNCHECKED = 'whole', 'unfinished', 'unchecked'
DAMAGED, MISSING, EXTRA = 'damaged', 'missing', 'extra'
WRONG = (UNFINISHED, DAMAGED, MISSING, EXTRA)

_NEEDS = {
  store.IDENTITY: {'identity': dict, 'versions': dict},
  store.MANIFEST: {
    **{'identity': dict, 'digest': str, 'shards': dict, 'files': dict},
    **{'counts': dict, 'info': dict},
  },
}
_RECORD = {'sha256': str, 'rows': int, 'counts': dict}
# Folders of a run that hold no artefacts; a run's own folder may be one.
_OF_RUNS = (
  *('events', 'processes', 'profile', 'report', 'router', 'state'),
  'tensorboard',
)
_SHARD = re.compile(r'part-(\d{5})-of-(\d{5})\.parquet')


@dataclasses.dataclass(frozen=True)
class Finding:
  """What is to be said about an artefact, or about one file.

  Attributes:
    path: in the folder that was audited.
    state: WHOLE, UNFINISHED or UNCHECKED of a folder; DAMAGED, MISSING or EXTRA
      of a file.
    detail: why, or how much it holds.
  """

  path: str
  state: str
  detail: str = ''


def audit(
  root: epath.PathLike, checks: Mapping[str, Callable[[epath.Path], object]]
) -> Iterator[Finding]:
  """Findings about all artefacts in a folder or bucket.

  An artefact is WHOLE, or has a finding for each file that is wrong. It takes
  no locks: of an artefact that is being written, it finds what is there.
  `checks` are for folders without a manifest, by the name of a file in them:
  each raises UserError unless the folder is whole.
  Raises UserError if there is no such folder, or no artefact in it.
  """
  buckets.check_client(root)
  root = epath.Path(root)
  if not root.is_dir():
    raise errors.UserError(
      f'{root} is not there: name the folder or bucket of a run.'
    )
  names_of = {}
  for path in folders.files(root):
    names_of.setdefault(path.parent, []).append(path.name)
  inside = {
    folder: {}
    for folder, names in names_of.items()
    if {store.IDENTITY, store.MANIFEST} & set(names)
    or any(map(_SHARD.fullmatch, names))
  }
  if not inside:
    raise errors.UserError(
      f'{root} holds no artefact, a folder with {store.IDENTITY}: name the '
      'folder or bucket of a run.'
    )
  others = {}
  for folder, names in names_of.items():
    homes = [home for home in (folder, *folder.parents) if home in inside]
    where = folders.relative(folder, homes[0]) if homes else ''
    for name in names:
      if homes and where.split('/')[0] not in _OF_RUNS:
        place = folders.relative(folder / name, homes[0])
        inside[homes[0]][place] = folder / name
      else:
        others.setdefault(folder, []).append(name)
  for folder, files in inside.items():
    yield from _artefact(folder, files, root)
  for folder, names in others.items():
    where = folders.relative(folder, root)
    known = [name for name in names if name in checks]
    if not known:
      yield Finding(where, UNCHECKED, f'no manifest: {", ".join(names)}')
      continue
    try:
      checks[known[0]](folder)
      yield Finding(where, WHOLE, f'{len(names)} files')
    except errors.UserError as e:
      yield Finding(where, DAMAGED, f'{e}')


def _artefact(
  folder: epath.Path, files: Mapping[str, epath.Path], root: epath.Path
) -> Iterator[Finding]:
  """Findings about one artefact; `files` are all that it holds, by name."""
  found = list(_problems(folder, files))
  for name, state, detail in found:
    path = folder if name == '.' else folder / name
    yield Finding(folders.relative(path, root), state, detail)
  if not found:
    num_shards = sum(bool(_SHARD.fullmatch(name)) for name in files)
    detail = f'{len(files)} files, {num_shards} of them shards'
    yield Finding(folders.relative(folder, root), WHOLE, detail)


def _problems(
  folder: epath.Path, files: Mapping[str, epath.Path]
) -> Iterator[tuple[str, str, str]]:
  """(name, state, detail) of each thing that is wrong with an artefact."""
  read = {}
  for name, needs in _NEEDS.items():
    if name in files:
      read[name], wrong = _json(files[name], needs)
      if wrong:
        yield name, DAMAGED, wrong
  if store.IDENTITY not in files:
    yield store.IDENTITY, MISSING, 'what made the artefact is not known'
  identity, manifest = read.get(store.IDENTITY), read.get(store.MANIFEST)
  if manifest:
    if store.digest(manifest['identity']) != manifest['digest']:
      yield store.MANIFEST, DAMAGED, 'its digest is not that of its identity'
    if identity and identity['identity'] != manifest['identity']:
      yield (
        store.IDENTITY,
        DAMAGED,
        f'another identity than in {store.MANIFEST}',
      )
  # Not listed anywhere: locks, and why the last writer failed.
  locks = (name for name in files if name.endswith('.lock'))
  known = {*_NEEDS, store.FAILURE, *locks}
  yield from _shards(files, manifest, known)
  listed = manifest['files'] if manifest else {}
  for name, checksum in listed.items():
    in_it = [file for file in files if file.startswith(f'{name}/')]
    known |= {name, *in_it}
    if not in_it and name not in files:
      yield name, MISSING, 'the manifest lists it'
    elif wrong := _wrong_content(folder / name, bool(in_it), checksum):
      yield name, DAMAGED, wrong
  if store.MANIFEST not in files:
    there = sum(bool(_SHARD.fullmatch(name)) for name in files)
    yield '.', UNFINISHED, f'no {store.MANIFEST}, {there} shards'
  for name in sorted(set(files) - known):
    if whole_files.TMP in name or 'checkpoint-tmp' in name:
      yield name, EXTRA, 'left by a killed writer; the next one removes it'
    elif manifest:  # Else nobody can tell.
      yield name, EXTRA, f'{store.MANIFEST} does not list it'


def _shards(
  files: Mapping[str, epath.Path],
  manifest: Mapping[str, Any] | None,
  known: set[str],
) -> Iterator[tuple[str, str, str]]:
  """What is wrong with shards and their records; adds both to `known`."""
  there = [name for name in files if _SHARD.fullmatch(name)]
  shards = {_SHARD.fullmatch(f'{name[:-5]}.parquet') for name in files}
  records = [m[0] for m in shards if m and _record(m[0]) in files]
  listed = manifest['shards'] if manifest else {}
  # Without a manifest, a shard counts as finished once it has its record.
  expected = list(listed) if manifest else sorted(records)
  totals = {int(_SHARD.fullmatch(name)[2]) for name in there + records}
  if manifest and totals - {len(listed)}:
    yield (
      store.MANIFEST,
      DAMAGED,
      f'lists {len(listed)} of {max(totals)} shards',
    )
  counts, is_counted = {}, bool(manifest)
  for name in expected:
    beside = _record(name)
    known |= {name, beside}
    record = None
    if beside not in files:
      yield beside, MISSING, f'the record of {name}'
    else:
      record, wrong = _json(files[beside], _RECORD)
      if wrong:
        yield beside, DAMAGED, wrong
    is_counted &= record is not None
    if record:
      for count, value in record['counts'].items():
        counts[count] = counts.get(count, 0) + value
      if listed and listed[name] != {k: record[k] for k in ('sha256', 'rows')}:
        yield beside, DAMAGED, f'not what {store.MANIFEST} says of {name}'
    checksum = (listed.get(name) or record or {}).get('sha256')
    if name not in files:
      yield name, MISSING, f'listed in {store.MANIFEST if listed else beside}'
    elif checksum and (wrong := _wrong_content(files[name], False, checksum)):
      yield name, DAMAGED, wrong
  if is_counted and counts != manifest['counts']:
    yield store.MANIFEST, DAMAGED, 'its counts are not the sum of its records'


def _record(shard: str) -> str:
  return shard.removesuffix('.parquet') + '.json'


def _wrong_content(path: epath.Path, is_folder: bool, checksum: str) -> str:
  """Why a file, or a folder of weights, is not that of a checksum; or ''."""
  try:
    if is_folder:
      found = checkpoint.content_digest(checkpoint.load(path))
    else:
      found = store.sha256(path)
  except errors.UserError:
    return 'the weights cannot be read'
  if found == checksum:
    return ''
  return f'sha256 {found[:16]}…, expected {checksum[:16]}…'


def _json(
  path: epath.Path, needs: Mapping[str, type]
) -> tuple[dict[str, Any] | None, str]:
  """The object in a file, or None and what is wrong with it."""
  try:
    value = json.loads(path.read_text())
  except ValueError as e:
    return None, f'not JSON ({e})'
  for name, kind in needs.items():
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
      return None, f'lacks {name!r}'
  return value, ''
