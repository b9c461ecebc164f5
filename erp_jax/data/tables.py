"""Rows of tables: JSONL, Parquet and CSV files, here or on the hub."""

import csv
import fnmatch
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from etils import epath

from erp_jax.core import errors, folders
from erp_jax.data import hub

HUB = 'hub:'
KINDS = JSONL, PARQUET, CSV = '.jsonl', '.parquet', '.csv'

_PART = re.compile(r'-(\d{5})-of-(\d{5})(?=\D|$)')
_BATCH_ROWS = 1024  # As Python objects at once.


def find(source: str, pattern: str, what: str, field: str) -> list[epath.Path]:
  """The files of a source, in the order of their names.

  Args:
    source: a file; a folder; or hub:ORG/NAME, hub:ORG/NAME@REVISION, a data set
      of the hub, which is fetched.
    pattern: which files of a folder or a data set, by their path in it; its *
      stands for / too. A file is what it is.
    what: the setting that holds the source.
    field: the setting that holds the pattern.
  Raises UserError without a pattern where one is needed, if it matches nothing,
  and if it matches some of the files 'x-00000-of-00003' and not all.
  """
  is_remote = source.startswith(HUB)
  folder = epath.Path(source)
  if not is_remote and not folder.is_dir():
    return [folder]
  if not pattern:
    raise errors.UserError(
      f'{what} is {source!r}, which may hold many files: set {field} to a '
      "pattern of those to read, such as 'data/train-*.parquet'."
    )
  if is_remote:
    folder = epath.Path(
      hub.download(hub.DATA_SET, source.removeprefix(HUB), [pattern])
    )
  there = sorted(
    folders.relative(path, folder) for path in folders.files(folder)
  )
  names = fnmatch.filter(there, pattern)
  if not names:
    some = ', '.join(there[:5]) + ' …' * (len(there) > 5)
    holds = '' if is_remote else f' (it holds {some or "nothing"})'
    raise errors.UserError(
      f'{field} is {pattern!r}, but no file of {source} is called so{holds}: '
      'correct it.'
    )
  if set('*?[') & set(pattern):
    _check_parts(names, source)
  return [folder / name for name in names]


def _check_parts(names: Iterable[str], source: str) -> None:
  """UserError if a file of a numbered set is not there."""
  found = {}
  for name in names:
    for part in _PART.finditer(name):
      place = name[: part.start()], part[2], name[part.end() :]
      found.setdefault(place, set()).add(int(part[1]))
  for (start, total, end), numbers in found.items():
    for number in range(int(total)):
      if number not in numbers:
        raise errors.UserError(
          f'{source} has no file {start}-{number:05d}-of-{total}{end}, but '
          f'others of these {int(total)}: put it there, or name one file '
          'instead of a pattern.'
        )


def rows(
  path: epath.Path,
  what: str,
  other: str = '',
  texts: Iterable[str] = (),
  kinds: Iterable[str] = KINDS,
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(place, row) of each row of a table, the place being file and number.

  All values of a CSV file are texts.

  Args:
    path: a file in UTF-8.
    what: the setting that names it.
    other: what else could stand there.
    texts: columns that must hold strings where the file has types.
    kinds: the suffixes that it may have.
  Raises UserError unless it can be read.
  """
  if path.suffix not in kinds:
    must = f'be {other} or end in' if other else 'end in'
    raise errors.UserError(
      f'{what} is {str(path)!r}, but must {must} {" or ".join(kinds)}.'
    )
  if not path.is_file():
    instead = f', or use {other}' if other else ''
    raise errors.UserError(
      f'{what} is {str(path)!r}, but there is no such file: check the '
      f'path{instead}.'
    )
  readers = {JSONL: _jsonl, PARQUET: _parquet, CSV: _csv}
  return readers[path.suffix](path, tuple(texts))


def reject_constant(name: str) -> None:
  """json's `parse_constant`: NaN and infinity are refused."""
  raise ValueError(f'{name} is not JSON')


def short(value: Any) -> str:
  """repr on one line, cut to fit a message."""
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _jsonl(
  path: epath.Path, texts: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  del texts  # Each value says what it is.
  # Only \n ends a line: str.splitlines would cut at U+2028 inside a string.
  for i, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    where = f'{path} line {i}'
    try:
      text = line.decode('utf-8-sig')
      if not text.strip():
        continue
      row = json.loads(text, parse_constant=reject_constant)
    except (ValueError, RecursionError) as e:
      raise errors.UserError(
        f'{where} is not JSON ({e}): {short(line.decode(errors="replace"))}; '
        'write one object per line, in UTF-8.'
      ) from e
    if not isinstance(row, dict):
      raise errors.UserError(
        f'{where} is {short(row)}, but must be a JSON object.'
      )
    _check_characters(row, where)
    yield where, row


def _parquet(
  path: epath.Path, texts: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  data = path.read_bytes()
  try:
    file = pq.ParquetFile(pa.BufferReader(data))
    for name in set(texts) & set(file.schema_arrow.names):
      kind = file.schema_arrow.field(name).type
      # A struct column would give each row the fields of all others, as null.
      if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise errors.UserError(
          f'{path} has a column {name!r} of type {short(str(kind))}, but it '
          'must hold strings: write each as the text of its JSON object.'
        )
    # All rows as dicts would be large, and so would all columns decompressed.
    yield from _numbered(path, file.iter_batches(_BATCH_ROWS))
  except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
    raise errors.UserError(
      f'{path} is not a Parquet file ({errors.said(e)}): '
      'write it again, or give it its right name.'
    ) from e


def _csv(
  path: epath.Path, texts: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  del texts  # All are.
  data = path.read_bytes()
  try:
    # Arrow leaves columns as texts if it is told their names. It finds what is
    # no UTF-8, too.
    lines = io.TextIOWrapper(io.BytesIO(data), 'utf-8-sig', 'replace', '')
    names = next(filter(None, csv.reader(lines)), [])
    if len(set(names)) < len(names):
      raise errors.UserError(
        f'{path} has two columns of one name ({", ".join(names)}): rename one.'
      )
    table = pyarrow.csv.read_csv(
      pa.BufferReader(data),
      # One block, since no row may be longer than a block.
      pyarrow.csv.ReadOptions(
        block_size=min(len(data) + 1, 2**31 - 1), use_threads=False
      ),
      pyarrow.csv.ParseOptions(newlines_in_values=True),
      pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string())
      ),
    )
    if table.column_names != names:
      raise csv.Error(f'its columns may be {names} or {table.column_names}')
  except (pa.ArrowInvalid, pa.ArrowKeyError, csv.Error) as e:
    raise errors.UserError(
      f'{path} is not a CSV file ({errors.said(e)}): write it in '
      'UTF-8, with the names of its columns in the first line.'
    ) from e
  yield from _numbered(path, table.to_batches(_BATCH_ROWS))


def _numbered(
  path: epath.Path, batches: Iterable[pa.RecordBatch]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  i = 0
  for batch in batches:
    for row in batch.to_pylist():
      i += 1
      yield f'{path} row {i}', row


def _check_characters(row: Mapping[str, Any], where: str) -> None:
  """UserError for text that has no UTF-8; JSON can hold it, Parquet cannot."""
  try:
    json.dumps(row, ensure_ascii=False).encode()
  except UnicodeEncodeError as e:
    raise errors.UserError(
      f'{where} holds half of a surrogate pair ({e.object[e.start]!r}), which '
      'is no character: delete it.'
    ) from e
