"""open-perfectblend and MMLU-Pro as `tfds` builders, the extra `data`.

`tfds` writes and reads ArrayRecord files without TensorFlow. A built data set
holds prompts, and in its metadata what became of the rows that they are from.
Its one split is that of the hub.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from google.protobuf import json_format

from erp_jax.core import compare, config, errors, failures, store
from erp_jax.data import prompts, published, tables

FORMAT_VERSION = 1
_COLUMNS = ('id', 'prompt', 'category', 'source', 'checks')
_OURS = 'erp_jax'  # The entry of the metadata.
_BATCH_ROWS = 1024
# What tfds and array_record raise for files that are cut, altered or gone.
_DAMAGE = (OSError, RuntimeError, ValueError, json_format.Error)


class _Info(tfds.core.DatasetInfo):
  """As tfds', which looks into no bucket but leaves a folder in /tmp for it."""

  def initialize_from_bucket(self) -> None:
    """There is nothing of ours in tfds' bucket."""


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Prompts of a published data set, out of its files.

  Attributes:
    cfg: where they are, and how a row is read.
  """

  VERSION = tfds.core.Version('1.0.0')
  SPLIT = ''

  def __init__(self, *, cfg: prompts.PromptConfig, **kwargs):
    self.cfg = cfg
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return _Info(
      builder=self,
      description=self.__doc__,
      features=tfds.features.FeaturesDict(
        {name: tfds.features.Text() for name in _COLUMNS}
      ),
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, dict[str, str]]]]:
    del dl_manager  # The hub's library fetches, and keeps, the files.
    found = prompts.select(self.cfg)
    made = {
      'identity': identity(self.cfg),
      'prompts': prompts.digest(found.prompts),
      'counts': found.counts,
    }
    # tfds takes a file that cannot be read for one that is not there.
    self.info.metadata[_OURS] = {**made, 'sha256': store.digest(made)}
    return {self.SPLIT: self._generate_examples(found)}

  def _generate_examples(
    self, found: prompts.Selection
  ) -> Iterator[tuple[str, dict[str, str]]]:
    for prompt, source in zip(found.prompts, found.sources, strict=True):
      row = {
        'id': prompt.id,
        'prompt': prompt.prompt,
        'category': prompt.category,
        'source': source,
        'checks': json.dumps(prompt.checks, ensure_ascii=False),
      }
      yield prompt.id, row


class OpenPerfectblend(_Builder):
  """mlabonne/open-perfectblend: what users ask first, in four categories."""

  SPLIT = 'train'

  def __init__(self, *, path: str = '', files: str = '', **kwargs):
    cfg = published.open_perfectblend(**_given(path, files))
    super().__init__(cfg=cfg, **kwargs)


class MmluPro(_Builder):
  """TIGER-Lab/MMLU-Pro: questions with their options, in 14 subjects."""

  SPLIT = 'test'

  def __init__(self, *, path: str = '', files: str = '', **kwargs):
    cfg = published.mmlu_pro(**_given(path, files))
    super().__init__(cfg=cfg, **kwargs)


BUILDERS = {'open_perfectblend': OpenPerfectblend, 'mmlu_pro': MmluPro}


def identity(cfg: prompts.PromptConfig) -> dict[str, Any]:
  """What decides a built data set: how rows are read, and each file's sha256.

  The files are fetched if they are the hub's; the folder that holds them all
  does not count.
  """
  files = tables.find(cfg.path, cfg.files, '--path', '--files')
  depth = len(os.path.commonprefix([path.parent.parts for path in files]))
  return {
    'format_version': FORMAT_VERSION,
    'made_by': prompts.made_by(cfg),
    'files': {
      '/'.join(path.parts[depth:]): store.sha256(path) for path in files
    },
  }


def build(
  name: str, data_dir: epath.PathLike, path: str = '', files: str = ''
) -> epath.Path:
  """The folder of a data set, built unless it is there.

  Args:
    name: one of BUILDERS.
    data_dir: holds built data sets.
    path: as PromptConfig.path; the hub's if empty.
    files: as PromptConfig.files; all Parquet files of a folder if empty.
  Raises UserError if it is there and was built of other files or by another
  table of categories, and what `prompts.select` raises.
  """
  if name not in BUILDERS:
    raise errors.UserError(
      f'there is no data set {name!r} to build; '
      f'{config.did_you_mean(name, BUILDERS)}'
    )
  make = lambda: BUILDERS[name](
    path=path, files=files, data_dir=data_dir, file_format='array_record'
  )
  builder = make()
  folder = epath.Path(builder.data_path)
  if not folder.exists():
    with failures.writing(folder, 0):
      try:
        builder.download_and_prepare()
        return folder
      except FileExistsError:  # Another process was first, or a file is there.
        if not folder.is_dir():
          raise
    builder = make()
  made = _made(folder, builder)['identity']
  _check_same(folder, made, identity(builder.cfg))
  return folder


def counts(folder: epath.PathLike) -> Mapping[str, Mapping[str, str | int]]:
  """What became of the rows of each source, as in prompts.Selection."""
  return _made(folder, tfds.builder_from_directory(folder))['counts']


def read(folder: epath.Path, made_by: Mapping[str, Any]) -> prompts.Selection:
  """The prompts of a built data set, and the counts of its rows.

  `made_by` is how its rows must have been read. Raises UserError if they were
  not, and if the data set is damaged.
  """
  try:
    builder = tfds.builder_from_directory(folder)
    made = _made(folder, builder)
    _check_same(folder, made['identity']['made_by'], made_by)
    (split,) = builder.info.splits
    source = builder.as_data_source(split)
    rows = [
      [row[name].decode() for name in _COLUMNS]
      for start in range(0, len(source), _BATCH_ROWS)
      for row in source.__getitems__(
        range(start, min(start + _BATCH_ROWS, len(source)))
      )
    ]
  except errors.UserError:
    raise
  except _DAMAGE as e:
    raise _damaged(folder, errors.said(e)) from e
  found = sorted(
    (
      (prompts.Prompt(*row, json.loads(checks)), name)
      for *row, name, checks in rows
    ),
    key=lambda pair: pair[0].id,
  )
  selection = prompts.Selection(
    tuple(prompt for prompt, _ in found),
    tuple(name for _, name in found),
    made['counts'],
  )
  if prompts.digest(selection.prompts) != made['prompts']:
    raise _damaged(folder, 'other prompts than were written')
  return selection


def _made(
  folder: epath.Path, builder: tfds.core.DatasetBuilder
) -> Mapping[str, Any]:
  """What its builder left about a built data set."""
  made = dict((builder.info.metadata or {}).get(_OURS, {}))
  if not made:
    raise errors.UserError(
      f'{folder} is a data set that `launch.build_dataset` did not build, or '
      'its metadata.json is damaged: build it, or give the prompts as files.'
    )
  if made.pop('sha256', '') != store.digest(made):
    raise _damaged(folder, 'its metadata.json was altered')
  return made


def _check_same(
  folder: epath.Path, made: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """UserError naming what a data set was built with, and is not now."""
  wanted = json.loads(json.dumps(wanted))
  for where, old, new in compare.differences(made, wanted):
    raise errors.UserError(
      f'{folder} was built with {where} = {old}, but it should be {new}: set '
      'that back, delete the folder, or use another --data_dir.'
    )


def _damaged(folder: epath.Path, reason: str) -> errors.UserError:
  return errors.UserError(
    f'the data set in {folder} is damaged ({reason}): delete the folder and '
    'build it again (launch.build_dataset).'
  )


def _given(path: str, files: str) -> dict[str, str]:
  """Fields of a PromptConfig."""
  if not path:
    return {'files': files} if files else {}
  return {'path': path, 'files': files or '*.parquet'}
