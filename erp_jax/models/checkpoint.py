"""Checkpoints by name: a hub id, a local folder or a packaged asset.

Tensors are read one by one when asked for, under the hub's names and in
torch's layout, whatever file they come from.
"""

import dataclasses
import functools
import hashlib
import logging
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from erp_jax.core import errors
from erp_jax.data import assets, hub
from erp_jax.models import (
  catalog,
  decoder,
  decoder_config,
  decoder_weights,
  gguf_file,
  json_file,
  lazy_tensor,
  safetensors_file,
  tensor_names,
)
from erp_jax.models import params as params_lib

_PACKAGE = 'package:'
# Configs and tokenizers; others lie in folders of sentence-transformers.
SMALL_FILES = ('*.json', '*.txt', '*.model', '*.jinja')
_INDEX = 'model.safetensors.index.json'
# Of a packaged asset: the times at which its files were written.
_STAMP = 'stamp.json'

_log = logging.getLogger(__name__)

# transformers before 4.32 saved this buffer; it follows from the config.
_IGNORED = ('*.rotary_emb.inv_freq',)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """An opened checkpoint.

  `revision` is the hub commit, the sha256 of a GGUF file, or a hash of a
  folder's small files (configs, tokenizer, chat template, pooling) and of its
  safetensors' names, sizes and headers. `config` is config.json, or the
  metadata of the GGUF file. `path` is the folder, or the GGUF file; the
  tokenizer is read from there too.
  """

  name: str
  path: pathlib.Path
  revision: str
  config: Mapping[str, Any]
  tensors: Mapping[str, lazy_tensor.LazyTensor]

  @property
  def is_gguf(self) -> bool:
    return self.path.suffix == '.gguf'


def open_checkpoint(name: str) -> Checkpoint:
  """Finds and opens a checkpoint; reads headers, no tensors.

  `name` is 'package:ASSET', a folder with config.json and safetensors (or one
  .gguf file), a .gguf file, or a hub id 'org/name', with '@revision' or
  without, which is downloaded on first use.
  Raises UserError if there is none, or if it is damaged or of another kind.
  """
  if name.startswith(_PACKAGE):
    path = assets.fetch(name.removeprefix(_PACKAGE))
    return _open(name, pathlib.Path(path), revision='')
  path = pathlib.Path(name).expanduser()
  if path.exists():
    return _open(name, path, revision='')
  if not re.fullmatch(r'[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?', name):
    raise errors.UserError(
      f'checkpoint {name!r} is no folder or file here and no hub id: give an '
      "existing path, 'org/name' or 'package:smollm2-135m-instruct'."
    )
  path = download(name, ('*.safetensors', *SMALL_FILES))
  return _open(name, path, revision=path.name)


def download(name: str, patterns: Sequence[str]) -> pathlib.Path:
  """The folder of a checkpoint in the hub's cache, fetched if it is not there.

  `name` is 'org/name' or 'org/name@revision'; the folder's name is the commit.
  Raises UserError if it cannot be fetched.
  """
  ignored = ('original/*', 'onnx/*', 'openvino/*')
  return hub.download(hub.CHECKPOINT, name, patterns, ignored)


def load_decoder(
  name: str, dtype: jax.typing.DTypeLike
) -> tuple[decoder.DecoderConfig, Any, Checkpoint]:
  """The config, the weights in `dtype` and the checkpoint they came from.

  int8 is for the matrices; the rest, and what is computed, is then bfloat16.
  """
  start = time.monotonic()
  checkpoint = open_checkpoint(name)
  cfg, tensors = decoder_tensors(checkpoint)
  ignored = _IGNORED
  if cfg.tied or cfg.num_labels:  # Some files hold an unused head all the same.
    ignored = (*_IGNORED, 'lm_head.weight')
  weights = decoder_weights.declare(cfg)
  dtype = jnp.dtype(dtype)
  int8 = dtype == jnp.int8
  values = params_lib.load(
    weights, tensors, jnp.bfloat16 if int8 else dtype, ignored, int8
  )
  _log.info(
    'Loaded %s: %.1f M parameters in %s, %.1f s.',
    name,
    params_lib.count(weights) / 1e6,
    dtype.name,
    time.monotonic() - start,
  )
  return cfg, values, checkpoint


def decoder_tensors(
  checkpoint: Checkpoint,
) -> tuple[decoder.DecoderConfig, Mapping[str, Any]]:
  """The config of a checkpoint, and its tensors under the names of `declare`.

  Raises UserError if it is no decoder that is supported.
  """
  if checkpoint.is_gguf:
    tied = 'output.weight' not in checkpoint.tensors
    cfg = decoder_config.from_gguf(checkpoint.config, tied)
    architecture = checkpoint.config['general.architecture']
    return cfg, tensor_names.from_gguf(checkpoint.tensors, cfg, architecture)
  cfg = decoder_config.from_hf(checkpoint.config)
  catalog.check(checkpoint.name, cfg)
  if cfg.qkv_fused:
    return cfg, tensor_names.from_internlm2(checkpoint.tensors)
  return cfg, checkpoint.tensors


def _open(name: str, path: pathlib.Path, revision: str) -> Checkpoint:
  """Opens a folder or GGUF file; an empty revision means to hash it."""
  if path.is_dir() and not any(path.glob('*.safetensors')):
    path = _only_gguf(path, _convert_command(name, is_local=not revision))
  if path.suffix == '.gguf':
    file = gguf_file.GgufFile(path)
    if not revision:
      stat = path.stat()
      revision = _file_hash(path, stat.st_size, stat.st_mtime_ns)
    return Checkpoint(name, path, revision, file.metadata, file)
  if not (path / 'config.json').is_file():
    raise errors.UserError(
      f'{path} is not a checkpoint: a folder with config.json and safetensors, '
      'or a .gguf file, is needed.'
    )
  files = _weight_files(path)
  tensors = safetensors_file.SafetensorsFiles(files)
  config = json_file.read(path / 'config.json')
  revision = revision or _folder_hash(path, files)
  return Checkpoint(name, path, revision, config, tensors)


def _convert_command(name: str, is_local: bool) -> str:
  """What makes safetensors of .bin weights, beside them or in this folder."""
  target = name.rstrip('/') if is_local else re.split('[/@]', name)[1]
  return f'python -m launch.convert --from={name} --to={target}-safetensors'


def _only_gguf(folder: pathlib.Path, convert: str) -> pathlib.Path:
  """The one GGUF file; `convert` is the command to name for .bin weights."""
  found = sorted(folder.glob('*.gguf'))
  if len(found) == 1:
    return found[0]
  if found:
    names = ', '.join(path.name for path in found)
    raise errors.UserError(
      f'{folder} holds {len(found)} GGUF files ({names}): name one of them.'
    )
  if any(folder.glob('*.bin')):
    raise errors.UserError(
      f'{folder} holds torch .bin weights only; safetensors are needed: run '
      f'{convert} and name that folder.'
    )
  raise errors.UserError(
    f'{folder} holds no weights: *.safetensors or one .gguf file is needed. If '
    f'the checkpoint has torch .bin weights, run {convert} and name that '
    'folder.'
  )


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  if (folder / _INDEX).is_file():
    weight_map = json_file.read(folder / _INDEX)['weight_map']
    return [folder / name for name in sorted(set(weight_map.values()))]
  found = sorted(folder.glob('*.safetensors'))
  if folder / 'model.safetensors' in found:
    return [folder / 'model.safetensors']
  if len(found) > 1:
    names = ', '.join(path.name for path in found)
    raise errors.UserError(
      f'{folder} holds several safetensors files ({names}) and no {_INDEX}: '
      'fetch the index too.'
    )
  return found


@functools.lru_cache
def _file_hash(path: pathlib.Path, size: int, mtime_ns: int) -> str:
  """sha256 of a file; it is read again when its size or time has changed."""
  del size, mtime_ns  # They are there for the cache.
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _folder_hash(folder: pathlib.Path, files: list[pathlib.Path]) -> str:
  digest = hashlib.sha256()
  small = {
    path.relative_to(folder).as_posix(): path
    for pattern in SMALL_FILES
    for place in ('', '*/')
    for path in folder.glob(place + pattern)
    if path.name != _STAMP
  }
  for name, path in sorted(small.items()):
    data = path.read_bytes()
    digest.update(f'{name} {len(data)} '.encode() + data)
  for path in files:
    with path.open('rb') as file:
      header_size = file.read(8)
      header = file.read(int.from_bytes(header_size, 'little'))
    digest.update(f'{path.name} {path.stat().st_size} '.encode())
    digest.update(header_size + header)
  return digest.hexdigest()
