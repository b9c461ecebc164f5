"""What processes said lately of the artefacts that they write."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

from erp_jax.core import events

# Processes tell of their work every minute at least; into a bucket what they
# told is put once a minute.
_FRESH_SECS = 180.0


class Told(NamedTuple):
  """The last progress of a process.

  Attributes:
    artifact: the path of what it writes, from the run's folder.
    time: when it said so, in seconds since 1970.
    rate: of `unit` a second.
    secs_left: NaN if it cannot tell.
  """

  artifact: str
  time: float
  rate: float
  unit: str
  secs_left: float


def read(folder: epath.Path, names: Sequence[str]) -> Iterator[Told]:
  """What the files of a folder of events tell of the last minutes.

  One that vanishes, is damaged or not ours to read tells nothing: its run
  tells by its files.
  """
  for name in names:
    file = folder / name
    if name.endswith('.jsonl'):
      try:
        if time.time() - file.stat().mtime < _FRESH_SECS:
          yield from _last(events.read(file))
      except (OSError, ValueError, KeyError, TypeError):
        continue


def _last(found: Sequence[dict[str, Any]]) -> Iterator[Told]:
  workdir, artifact, last = '', '', None
  for event in found:
    kind = event['event']
    if kind == 'start':
      workdir = event['workdir']
    elif kind == 'begin':
      artifact, last = event['artifact'], None
    elif kind == 'progress' and 'rate' in event:
      last = event
    elif kind in ('end', 'failure', 'exit'):
      artifact, last = '', None
  if last and artifact and time.time() - last['time'] < _FRESH_SECS:
    yield Told(
      artifact.removeprefix(f'{workdir}/'),
      last['time'],
      last['rate'],
      last['unit'],
      last.get('secs_left', float('nan')),
    )
