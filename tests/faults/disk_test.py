"""Disks that are full or read-only: one line, and then the same command."""

import contextlib
import os
import pathlib
import shutil
import subprocess

import pytest

from tests import tiny as tiny_lib
from tests.faults import runs

pytestmark = pytest.mark.faults

_FOLDERS = ('responses', 'rewards', 'probes', 'routes', 'replay', 'report')
_PAGE = 4096


class _SmallDisk:
  """A file system in memory, in a namespace of its own, which needs no rights.

  Attributes:
    name: for the table.
    full: what is said where it is full.
    places: how many stages can be made to find it full, at least.
  """

  name = 'full file system'
  full = 'the disk is full'
  places = 4

  def __init__(self, mount: pathlib.Path):
    mount.mkdir()
    self._mount = mount
    self.workdir = mount / 'run'
    self._holder = subprocess.Popen(
      [
        *('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c'),
        'mount -t tmpfs none "$1" && echo mounted && exec sleep infinity',
        *('sh', mount),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    self.is_there = self._holder.stdout.readline() == 'mounted\n'

  def command(self, command: list) -> list:
    """What runs a command where the disk is."""
    return [
      *('nsenter', f'--target={self._holder.pid}', '--user', '--mount'),
      *('--preserve-credentials', f'--wd={runs.ROOT}', *command),
    ]

  def run(self, *command) -> subprocess.CompletedProcess:
    return subprocess.run(
      self.command([*command]), cwd=runs.ROOT, capture_output=True, text=True
    )

  def remount(self, option: str) -> None:
    # With a source, mount repeats no option that a namespace may not set.
    done = self.run('mount', '-o', f'remount,{option}', 'none', self._mount)
    assert done.returncode == 0, done.stderr

  def leave(self, size: int, _next: int) -> None:
    """Leaves space for so many bytes."""
    self.remount(f'size={size}')

  def copy(self, folder: pathlib.Path) -> pathlib.Path:
    """The run, where others see it."""
    shutil.rmtree(folder, ignore_errors=True)
    done = self.run('cp', '-r', '--preserve=timestamps', self.workdir, folder)
    assert done.returncode == 0, done.stderr
    return folder

  def close(self) -> None:
    """It is gone with the last process that sees it."""
    self._holder.kill()
    self._holder.communicate()


class _SmallFiles(_SmallDisk):
  """Where nothing may be mounted: a limit on the size of a file."""

  name = 'limit on files, as no file system may be mounted here'
  full = 'over the limit for one file'
  places = 1

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(exist_ok=True)
    self.workdir = folder / 'run'
    self._limit = 'unlimited'

  def command(self, command: list) -> list:
    return ['prlimit', f'--fsize={self._limit}', *command]

  def leave(self, _size: int, next_size: int) -> None:
    self._limit = f'{next_size - 1}'

  def copy(self, folder: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(self.workdir, folder)

  def close(self) -> None:
    pass


@pytest.fixture
def disk(tmp_path):
  """A disk that can be full."""
  made = _SmallDisk(tmp_path / 'disk')
  if not made.is_there:
    made.close()
    made = _SmallFiles(tmp_path / 'disk')
  with contextlib.closing(made):
    yield made


def _pages(workdir: pathlib.Path) -> dict[str, tuple[int, int, int]]:
  """(when it was written, its size, on disk) by name; of weights the folder.

  Orbax gives its files other names each time.
  """
  found = {}
  for file in workdir.rglob('*'):
    if not file.is_file():
      continue
    parts = file.relative_to(workdir).parts
    at = parts.index('weights') + 1 if 'weights' in parts else len(parts)
    name = '/'.join(parts[:at])
    when, size, on_disk = found.get(name, (0, 0, 0))
    stat = file.stat()
    found[name] = (
      max(when, stat.st_mtime_ns),
      size + stat.st_size,
      on_disk + -(-stat.st_size // _PAGE) * _PAGE,
    )
  return found


def _fill(disk, folder: str, finished, copy: pathlib.Path) -> None:
  """Leaves what is needed up to the middle of a folder's files."""
  wanted = _pages(finished.workdir)
  there = _pages(copy) if copy.exists() else {}
  names = sorted(wanted, key=lambda name: wanted[name])
  inside = [name for name in names if name.startswith(f'{folder}/')]
  middle = inside[len(inside) // 2]
  first = names[: names.index(middle)]
  missing = sum(wanted[name][2] for name in first if name not in there)
  used = sum(on_disk for *_, on_disk in there.values())
  disk.leave(used + missing, wanted[middle][1])


def _check_refused(done, *words: str) -> None:
  """One line that says what to do, and no traceback."""
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr, done.stderr
  last = done.stderr.splitlines()[-1]
  for word in ('error: cannot write ', *words, 'start the same command again'):
    assert word in last, done.stderr


def test_a_full_disk_is_one_line_and_space_is_enough(
  disk, tiny, finished, tmp_path, tally
):
  """It is full in each stage in turn, and once read-only."""
  flags = tiny.flags(disk.workdir)
  pipeline = tiny_lib.command('pipeline', *flags)
  copy = tmp_path / 'copy'
  found, before = set(), {}
  for folder in _FOLDERS:
    _fill(disk, folder, finished, copy)
    done = disk.run(*pipeline)
    _check_refused(done, disk.full)
    after = runs.shards(disk.copy(copy))
    lost = runs.num_lost(before, after)
    altered = runs.num_altered(copy, finished)
    stage = runs.stage_of(done.stderr)
    tally(f'{disk.name}, in {stage}', lost, altered)
    assert lost == altered == 0
    assert not [*copy.rglob('.tmp-*')]
    found.add(stage)
    before = after
  assert len(found) >= disk.places
  if disk.name == _SmallDisk.name:
    disk.remount('ro')
    done = disk.run(*pipeline)
    _check_refused(done, 'the file system is read-only')
    disk.remount('rw')
    tally('read-only file system')
  disk.leave(2**30, 2**30)
  for command in (pipeline, tiny_lib.command('export_router', *flags)):
    done = disk.run(*command)
    assert done.returncode == 0, done.stderr
  disk.copy(copy)
  lost = runs.num_lost(before, runs.shards(copy))
  differ = runs.num_different(tiny_lib.promised(copy), finished.promised)
  tally('the run to its end, after space was made', lost, differ)
  assert lost == differ == 0


def test_a_folder_that_may_not_be_written_is_one_line(
  tiny, finished, tmp_path, tally
):
  """As any user; root gives up its right to write everywhere."""
  workdir = tmp_path / 'run'
  workdir.mkdir()
  workdir.chmod(0o555)
  rights = '-dac_override,-dac_read_search'
  prefix = ['setpriv', f'--bounding-set={rights}', f'--inh-caps={rights}']
  command = tiny_lib.command('embed', *tiny.flags(workdir))
  run = lambda: subprocess.run(
    [*(prefix if os.geteuid() == 0 else []), *command],
    cwd=runs.ROOT,
    capture_output=True,
    text=True,
  )
  _check_refused(run(), 'the folder is not writable; change its permissions')
  assert not list(workdir.iterdir())
  workdir.chmod(0o755)
  done = run()
  assert done.returncode == 0, done.stderr
  assert runs.shards(workdir)
  differ = runs.num_altered(workdir, finished)
  tally('folder without the right to write', 0, differ)
  assert differ == 0
