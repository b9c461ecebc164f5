"""Prompts: the quickstart's own, of any table, or of MMLU-Pro.

A table is a JSONL, Parquet or CSV file, or several of them: in a folder, or in
a data set of the hub. A row has `prompt` and `category`; `id` and `checks` are
optional. `checks` says what the `verify` reward can check: an object in JSONL,
or its JSON text in a string, which is how a Parquet or CSV column holds it. In
a file of conversations, the prompt is what the user asks first in a list of
turns.

What is in the category column may be a category itself, or a source that a
table gives a category.

A data set that `launch.build_dataset` built holds prompts already, and what
became of the rows that it was built from.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from erp_jax.core import config, errors, store
from erp_jax.data import conversations, mmlu_pro, tables
from erp_jax.data import sources as sources_lib
from erp_jax.data.tfds import extra

QUICKSTART = 'quickstart'
ROWS, MMLU_PRO, CONVERSATIONS = 'rows', 'mmlu_pro', 'conversations'
FORMATS = (ROWS, MMLU_PRO, CONVERSATIONS)
KEEP, DROP = 'keep', 'drop'
_CHECKS = 'checks'
_BUILT = 'dataset_info.json'
_DEFAULT_ID = 'id'
_DEFAULT_COLUMNS = ['prompt', 'category', _DEFAULT_ID]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
  """Which prompts a run is about."""

  # 'quickstart'; a .jsonl, .parquet or .csv file; a folder of such; one that
  # `launch.build_dataset` built; or a data set of the hub, 'hub:ORG/NAME' or
  # 'hub:ORG/NAME@REVISION'.
  path: str = QUICKSTART
  # Of a folder or a data set of the hub, the files to read, such as
  # 'data/train-*.parquet'; * stands for / too.
  files: str = ''
  # What its rows are: prompts, questions of mmlu_pro, or conversations.
  format: str = ROWS
  prompt_column: str = 'prompt'  # Of conversations: the list of turns.
  category_column: str = 'category'  # With a table of categories: the source.
  id_column: str = _DEFAULT_ID  # Without this column, ids are hashes.
  # Prompts kept of each category, picked by a hash of seed and id; 0 = all.
  limit_per_category: int = 0
  seed: int = 0
  # Source -> category, every source named; '' leaves its rows out. Without any,
  # what is in the column is the category. The table is set in a config file:
  # flags cannot name its sources.
  categories: dict[str, str] = dataclasses.field(default_factory=dict)
  # Rows that repeat a text: 'keep' takes each for a prompt, which needs ids;
  # 'drop' leaves out all but the first in the file.
  duplicates: str = KEEP
  # System turns of conversations: 'drop' them, or 'keep' those before the first
  # user turn as the beginning of the prompt, an empty line after each.
  system: str = DROP

  def __post_init__(self):
    if self.limit_per_category < 0 or self.limit_per_category == 1:
      raise errors.UserError(
        f'prompts.limit_per_category is {self.limit_per_category}, but must be '
        '0 (all) or at least 2: one prompt cannot be split.'
      )
    columns = [self.prompt_column, self.category_column, self.id_column]
    if '' in columns or len({*columns, _CHECKS}) < 4:
      raise errors.UserError(
        f'prompts.prompt_column, category_column and id_column are {columns}, '
        f'but must be three different names, none empty and none {_CHECKS!r}.'
      )
    if self.format not in FORMATS:
      raise errors.UserError(
        f'prompts.format is {self.format!r}, but must be one of '
        f'{", ".join(FORMATS)}.'
      )
    for name in ('duplicates', 'system'):
      if getattr(self, name) not in (KEEP, DROP):
        raise errors.UserError(
          f'prompts.{name} is {getattr(self, name)!r}, but must be {KEEP} or '
          f'{DROP}.'
        )
    if self.system == KEEP and self.format != CONVERSATIONS:
      raise errors.UserError(
        f'prompts.system is {KEEP!r}, but only rows of format {CONVERSATIONS} '
        f'have system turns: leave it at {DROP!r}.'
      )
    if self.format == MMLU_PRO and columns != _DEFAULT_COLUMNS:
      raise errors.UserError(
        f'prompts.prompt_column, category_column and id_column are {columns}, '
        f'but {MMLU_PRO} has its own columns: leave them as they are.'
      )
    sources_lib.check_table(self.categories)


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One prompt; `checks` is empty where nothing can be verified."""

  id: str
  prompt: str
  category: str
  checks: Mapping[str, Any] = dataclasses.field(
    default_factory=dict, hash=False
  )


@dataclasses.dataclass(frozen=True)
class Selection:
  """The prompts of a file, and what became of its rows.

  Attributes:
    prompts: sorted by id.
    sources: of each prompt, what is in the category column.
    counts: by source: `category`, `rows` in the file, `kept`, and why others
      were not: `left_out` by the table, without a usable user turn,
      `duplicates`, `over_limit`. Reasons that did not occur are not there.
  """

  prompts: tuple[Prompt, ...]
  sources: tuple[str, ...]
  counts: Mapping[str, Mapping[str, str | int]]


def load(cfg: PromptConfig) -> tuple[Prompt, ...]:
  """The prompts of a file, sorted by id; raises what `select` does."""
  return select(cfg).prompts


def select(cfg: PromptConfig) -> Selection:
  """The prompts of a file, with what was left out.

  Raises UserError for a file that is missing, empty or of another kind, and for
  a row without a usable prompt, category, id or checks, a repeated id (without
  ids: a repeated prompt), a source that the table of categories lacks, and a
  category with a single prompt. Conversations without a usable user turn are
  left out.
  """
  folder = epath.Path(cfg.path)
  if (folder / _BUILT).is_file():
    found = extra.module().read(folder, made_by(cfg))
  else:
    found = _read(cfg)
  is_whole = all(c['rows'] == c['kept'] for c in found.counts.values())
  if cfg.limit_per_category:
    found = _limited(found, cfg.limit_per_category, cfg.seed)
  if cfg.categories or not is_whole:
    _log.info('prompts of %s: %s', cfg.path, found.counts)
  return found


def made_by(cfg: PromptConfig) -> dict[str, Any]:
  """The fields that decide what a row becomes, as plain values."""
  plain = config.as_plain(cfg)
  for name in ('path', 'files', 'limit_per_category', 'seed'):
    del plain[name]
  return plain


def digest(prompts: Iterable[Prompt]) -> str:
  """Hex sha256 of ids, texts, categories and checks, whatever the order."""
  return store.digest(
    sorted(
      ([p.id, p.prompt, p.category, p.checks] for p in prompts),
      key=lambda row: row[0],
    )
  )


def text_digest(prompts: Iterable[Prompt]) -> str:
  """Hex sha256 of ids and texts alone: what responses and embeddings are of."""
  return store.digest(sorted([p.id, p.prompt] for p in prompts))


def _limited(found: Selection, limit: int, seed: int) -> Selection:
  """Hash order, so that a prompt added to the file displaces at most one."""
  by_category = {}
  for place, prompt in enumerate(found.prompts):
    order = hashlib.sha256(f'{seed}:{prompt.id}'.encode()).digest()
    by_category.setdefault(prompt.category, []).append((order, place))
  places = sorted(
    place
    for group in by_category.values()
    for _, place in sorted(group)[:limit]
  )
  sources = tuple(found.sources[place] for place in places)
  return Selection(
    tuple(found.prompts[place] for place in places),
    sources,
    sources_lib.limited(found.counts, sources),
  )


def _read(cfg: PromptConfig) -> Selection:
  """All prompts of a file, none over a limit."""
  seen = {}
  texts = set()
  places = {}
  source_of = {}
  tally = sources_lib.Tally(cfg.categories)
  kept = []
  for where, row in _rows(cfg):
    source = _read_text(cfg, row, 'category_column', where)
    category = tally.category(source)
    if not category:
      continue
    text, missing = _prompt_text(cfg, row, where)
    if not missing and cfg.duplicates == DROP and text in texts:
      missing = 'duplicates'
    if missing:
      tally.leave_out(source, missing)
      continue
    prompt = _read_row(cfg, row, text, category, where)
    if prompt.id in seen:
      what, fix = f'the prompt id {prompt.id!r}', 'or delete one'
      if cfg.id_column not in row:
        what = f'the prompt {tables.short(text)}'
        fix = f"delete one, or set prompts.duplicates to '{DROP}'"
      raise errors.UserError(
        f'{where} repeats {what} of {seen[prompt.id]}: '
        f'give each its own id, {fix}.'
      )
    seen[prompt.id] = where
    texts.add(text)
    places.setdefault(category, []).append(where)
    source_of[prompt.id] = source
    kept.append(prompt)
  tally.check(cfg.path)
  if not kept:
    raise errors.UserError(
      f'{cfg.path} holds no prompts{tally.said()}: add rows with '
      f'{cfg.prompt_column!r} and {cfg.category_column!r}, or set '
      'prompts.path to another file.'
    )
  for category, alone in sorted(places.items()):
    if len(alone) == 1:
      raise errors.UserError(
        f'{alone[0]} is the only prompt of category {category!r}, which '
        'cannot be split into halves: add another, or rename the category.'
      )
  kept = tuple(sorted(kept, key=lambda prompt: prompt.id))
  sources = tuple(source_of[prompt.id] for prompt in kept)
  return Selection(kept, sources, tally.counts(sources))


def _rows(cfg: PromptConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(place, row) of each row, the place being file and line or row number."""
  if cfg.path == QUICKSTART:
    paths = [epath.resource_path('erp_jax.data') / f'{QUICKSTART}.jsonl']
  else:
    paths = tables.find(cfg.path, cfg.files, 'prompts.path', 'prompts.files')
  rows = itertools.chain.from_iterable(
    tables.rows(path, 'prompts.path', repr(QUICKSTART), (_CHECKS,))
    for path in paths
  )
  return mmlu_pro.prompt_rows(rows) if cfg.format == MMLU_PRO else rows


def _prompt_text(
  cfg: PromptConfig, row: Mapping[str, Any], where: str
) -> conversations.Opening:
  if cfg.format != CONVERSATIONS:
    text = _read_text(cfg, row, 'prompt_column', where)
    return conversations.Opening(text, '')
  turns = _column(cfg, row, 'prompt_column', where)
  return conversations.opening(turns, cfg.system == KEEP, where)


def _read_row(
  cfg: PromptConfig,
  row: Mapping[str, Any],
  text: str,
  category: str,
  where: str,
) -> Prompt:
  prompt_id = row.get(cfg.id_column)
  if isinstance(prompt_id, int) and not isinstance(prompt_id, bool):
    prompt_id = str(prompt_id)
  elif cfg.id_column in row or cfg.id_column != _DEFAULT_ID:
    prompt_id = _read_text(cfg, row, 'id_column', where)
  else:
    prompt_id = hashlib.sha256(text.encode()).hexdigest()[:16]
  return Prompt(
    prompt_id, text, category, _read_checks(row.get(_CHECKS), where)
  )


def _read_text(
  cfg: PromptConfig, row: Mapping[str, Any], field: str, where: str
) -> str:
  value = _column(cfg, row, field, where)
  if not isinstance(value, str) or not value.strip():
    raise errors.UserError(
      f'{where} has {getattr(cfg, field)!r} {tables.short(value)}, but must '
      'have a text there that is not empty: write one, or delete the row.'
    )
  return value


def _column(
  cfg: PromptConfig, row: Mapping[str, Any], field: str, where: str
) -> Any:
  column = getattr(cfg, field)
  if column not in row:
    raise errors.UserError(
      f'{where} has no column {column!r}; '
      f'{config.did_you_mean(column, row).removesuffix(".")}: '
      f'rename it, or set prompts.{field}.'
    )
  return row[column]


def _read_checks(value: Any, where: str) -> Mapping[str, Any]:
  if value is None or value == '':
    return {}
  if isinstance(value, str):
    try:
      value = json.loads(value, parse_constant=tables.reject_constant)
    except (ValueError, RecursionError) as e:
      raise errors.UserError(
        f'{where} has {_CHECKS!r} that are not JSON ({e}): '
        f'{tables.short(value)}; write an object, or leave them out.'
      ) from e
  if not isinstance(value, dict):
    raise errors.UserError(
      f'{where} has {_CHECKS!r} {tables.short(value)}, but must have an object '
      'there, or nothing.'
    )
  return value
