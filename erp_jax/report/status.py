"""How far a run is, from the files that it has left so far.

Reads a folder or a bucket, writes nothing and takes no lock: it can be asked
while the run goes on, from another machine too.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Iterator, Sequence

from etils import epath

from erp_jax.core import buckets, errors, folders, locks, process, store
from erp_jax.report import status_events

RUNNING, DONE, FAILED = process.RUNNING, process.DONE, process.FAILED
INTERRUPTED, WAITING = process.INTERRUPTED, 'waiting'
UNREADABLE = 'unreadable'
# Folders of a run, by stage, with the words that name one of its artefacts.
STAGES = {
  'responses': ('sample', 1),
  'embeddings': ('embed', 1),
  'rewards': ('score', 2),
  'probes': ('fit', 2),
  'routes': ('route', 1),
  'replay': ('replay', 1),
  'experiments': ('experiment', 1),
}
# Where no lock can be seen, what changed so lately is being written.
_LATELY_SECS = 900.0
_SILENT = 'silent'  # What did not change lately: events may tell of it.
_DEPTH = 5
_TRIES = 3  # Of files that change while they are read.
_NOT_FOLDERS = (*folders.FILES, 'weights')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One artefact: of a stage, for an arm, a reward model, or both.

  Attributes:
    point: the sweep's point that it is of, or ''.
    shards: how many are done; `num_shards` is 0 where nobody knows yet.
    missing: indices of the others.
    rate: of `unit` a second, NaN where nobody tells it, neither a process nor
      two shards.
    secs_left: at that rate; NaN likewise.
    changed: seconds since 1970.
  """

  point: str
  stage: str
  name: str
  state: str
  shards: int = 0
  num_shards: int = 0
  missing: tuple[int, ...] = ()
  rate: float = float('nan')
  unit: str = 'rows'
  secs_left: float = float('nan')
  changed: float = 0.0
  error: str = ''


@dataclasses.dataclass(frozen=True)
class Status:
  """All that a workdir tells.

  Attributes:
    points: of a sweep, with the state of each binary that ran on it.
    processes: those that run, and the last of each command that failed.
  """

  parts: Sequence[Part]
  points: Sequence[tuple[str, str, process.Record]]
  processes: Sequence[process.Record]

  @property
  def has_failed(self) -> bool:
    """Whether something is damaged, or has failed and was not done since."""
    states = [part.state for part in self.parts]
    states += [record.state_now() for _, _, record in self.points]
    states += [record.state_now() for record in self.processes]
    return not {FAILED, UNREADABLE}.isdisjoint(states)


def read(workdir: epath.PathLike) -> Status:
  """The status of a run, or of a sweep's folder.

  What is damaged is a part of its own, UNREADABLE.
  Raises UserError if the folder is not there.
  """
  buckets.check_client(workdir)
  workdir = epath.Path(workdir)
  if not workdir.exists():
    raise errors.UserError(
      f'--workdir={workdir} is not there: name the folder or bucket of a run.'
    )
  parts, points, records, told = [], [], [], []
  for folder, names in _folders(workdir, _DEPTH):
    where = folder.parts[len(workdir.parts) :]
    if where and where[-1] in ('state', 'processes'):
      point = '/'.join(where[:-1])
      for name in _records(names):
        try:
          record = process.read(folder / name)
        except FileNotFoundError:  # A mistake leaves no record.
          continue
        except (OSError, errors.UserError) as e:
          parts.append(_unreadable(point, where[-1], name, f'{e}'))
          continue
        if where[-1] == 'processes':
          records.append(record)
        else:
          points.append((point, name.removesuffix('.json'), record))
    elif where and where[-1] == 'events':
      for one in status_events.read(folder, names):
        told.append((_named((*where[:-1], *one.artifact.split('/'))), one))
    else:
      parts += _artifact(folder, names, where)
  parts = [_as_told(part, told) for part in parts]
  parts += _waiting(parts)
  order = [stage for stage, _ in STAGES.values()]
  rank = lambda stage: order.index(stage) if stage in order else len(order)
  parts.sort(key=lambda part: (part.point, rank(part.stage), part.name))
  return Status(parts, sorted(points, key=lambda p: p[:2]), _latest(records))


def _folders(
  folder: epath.Path, depth: int
) -> Iterator[tuple[epath.Path, list[str]]]:
  """Folders with the names of what they hold, each before those in it."""
  names = _names(folder)
  yield folder, names
  for name in sorted(names) if depth else ():
    child = folder / name
    if not name.endswith(_NOT_FOLDERS) and child.is_dir():
      yield from _folders(child, depth - 1)


def _names(folder: epath.Path) -> list[str]:
  """What a folder holds; nothing if it is gone by now."""
  try:
    return [entry.name for entry in folder.iterdir()]
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as e:
    raise errors.UserError(
      f'{folder} cannot be read ({e.strerror}): give yourself access to it.'
    ) from e


def _artifact(
  folder: epath.Path, names: Sequence[str], where: Sequence[str]
) -> list[Part]:
  """The artefact of a folder, or none.

  Its writer may replace and remove files meanwhile: then it is read again.
  """
  error = ''
  for _ in range(_TRIES):
    if store.IDENTITY not in names:
      return []
    try:
      return [_part(folder, names, where)]
    except errors.UserError as e:
      error = f'{e}'
      break
    except OSError as e:
      error = f'{e}'
      names = _names(folder)
  return [_unreadable(*_named(where), error)]


def _as_told(
  part: Part,
  told: Sequence[tuple[tuple[str, str, str], status_events.Told]],
) -> Part:
  """The part with what its processes said of it after its last shard.

  Where no lock can be seen, that they did tells that they run.
  """
  place = (part.point, part.stage, part.name)
  mine = [one for at, one in told if at == place and one.time > part.changed]
  if part.state == _SILENT:
    part = dataclasses.replace(part, state=RUNNING if mine else INTERRUPTED)
  if part.state != RUNNING or not mine:
    return part
  return dataclasses.replace(
    part,
    rate=sum(one.rate for one in mine),
    unit=mine[0].unit,
    secs_left=max(one.secs_left for one in mine),
  )


def _unreadable(point: str, stage: str, name: str, error: str) -> Part:
  return Part(
    point=point, stage=stage, name=name, state=UNREADABLE, error=error
  )


def _part(
  folder: epath.Path, names: Sequence[str], where: Sequence[str]
) -> Part:
  """What one artefact's folder tells; `where` is its path in the workdir."""
  point, stage, name = _named(where)
  begun = store.read_json(folder / store.IDENTITY)
  shards = {n for n in names if n.startswith('part-') and n.endswith('.json')}
  num_shards = begun.get('num_shards', 0)
  for shard in shards:
    num_shards = int(shard.removesuffix('.json').rpartition('-')[2])
  files = set(names)
  done = {int(n.split('-')[1]) for n in shards if f'{n[:-5]}.parquet' in files}
  missing = tuple(i for i in range(num_shards) if i not in done)
  complete = store.MANIFEST in files and not missing
  times = sorted(_changed(folder / n) for n in shards)
  changed = max([_changed(folder / store.IDENTITY), *times])
  secs, per_shard, unit = _pace(folder, sorted(shards), times)
  error = ''
  if complete:
    state = DONE
  elif store.FAILURE in files:  # The next writer removes it.
    state = FAILED
    error = store.read_json(folder / store.FAILURE, ('error',))['error']
  else:
    state = _state_of_writer(folder, changed, secs)
  return Part(
    point=point,
    stage=stage,
    name=name,
    state=state,
    shards=len(done),
    num_shards=num_shards,
    missing=missing,
    rate=per_shard / secs if secs else float('nan'),
    unit=unit,
    secs_left=secs * len(missing) if secs and missing else float('nan'),
    changed=changed,
    error=error,
  )


def _named(where: Sequence[str]) -> tuple[str, str, str]:
  """(point, stage, name) of an artefact's path in the workdir."""
  for i, word in enumerate(where):
    if word in STAGES:
      stage, size = STAGES[word]
      rest = where[i + 1 :]
      if len(rest) == size:
        return '/'.join(where[:i]), stage, '/'.join(rest)
  return '/'.join(where[:-1]), where[-1] if where else 'run', ''


def _pace(
  folder: epath.Path, shards: Sequence[str], times: Sequence[float]
) -> tuple[float, float, str]:
  """(seconds a shard, units in one, unit); the seconds are 0 if unknown.

  The median of the times between shards: a pause between two starts is one of
  them only.
  """
  gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
  if not gaps or times[-1] <= times[0]:
    return 0.0, 0.0, 'rows'
  secs = statistics.median(gaps) or (times[-1] - times[0]) / len(gaps)
  needs = ('rows', 'counts')
  records = [store.read_json(folder / name, needs) for name in shards]
  if all('tokens' in record['counts'] for record in records):
    sizes, unit = [r['counts']['tokens'] for r in records], 'tokens'
  else:
    sizes, unit = [record['rows'] for record in records], 'rows'
  return secs, statistics.mean(sizes), unit


def _state_of_writer(folder: epath.Path, changed: float, secs: float) -> str:
  """Whether a process writes it now: by its lock, else by its last change."""
  held = locks.is_held(folder)
  if held is not None:
    return RUNNING if held else INTERRUPTED
  is_late = time.time() - changed >= max(_LATELY_SECS, 3 * secs)
  return _SILENT if is_late else RUNNING


def _waiting(parts: Sequence[Part]) -> list[Part]:
  """Parts that others of the same run let expect, and that are not begun."""
  found = []
  for point in sorted({part.point for part in parts}):
    named = {
      stage: {p.name for p in parts if (p.point, p.stage) == (point, stage)}
      for stage, _ in STAGES.values()
    }
    rewards = sorted({name.split('/')[0] for name in named['score']})
    pairs = [f'{r}/{arm}' for r in rewards for arm in sorted(named['sample'])]
    expected = {'score': pairs}
    if named['fit']:
      expected['fit'] = pairs
    found += [
      Part(point=point, stage=stage, name=name, state=WAITING)
      for stage, names in expected.items()
      for name in names
      if name not in named[stage]
    ]
  return found


def _latest(records: Sequence[process.Record]) -> list[process.Record]:
  """Those that run, and what failed or was cut off last of each command."""
  last: dict[tuple[str, ...], process.Record] = {}
  running = []
  for record in sorted(records, key=lambda r: r.begin):
    last[record.command] = record
    if record.state_now() == RUNNING:
      running.append(record)
  others = [
    record
    for record in last.values()
    if record.state_now() in (FAILED, INTERRUPTED)
  ]
  return [*running, *others]


def _changed(file: epath.Path) -> float:
  """Seconds since 1970; buckets tell whole ones."""
  if buckets.is_bucket(file):
    return float(file.stat().mtime)
  return pathlib.Path(file).stat().st_mtime


def _records(names: Sequence[str]) -> list[str]:
  """Files of records; one that is being written has a name of its own."""
  return sorted(
    n for n in names if n.endswith('.json') and not n.startswith('.')
  )
