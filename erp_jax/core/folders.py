"""Everything in a folder, or under a prefix of a bucket."""

from collections.abc import Iterator

from etils import epath

# In a bucket each question whether a name is a folder is a request.
FILES = ('.json', '.jsonl', '.parquet', '.csv', '.lock')


def files(folder: epath.Path) -> Iterator[epath.Path]:
  """All files below a folder, those of each folder together, by name."""
  paths = sorted(folder.iterdir(), key=lambda path: path.name)
  inner = [p for p in paths if not p.name.endswith(FILES) and p.is_dir()]
  yield from (path for path in paths if path not in inner)
  for path in inner:
    yield from files(path)


def relative(path: epath.Path, folder: epath.Path) -> str:
  """A path from a folder that it is in, with /; '.' for itself."""
  return '/'.join(path.parts[len(folder.parts) :]) or '.'
