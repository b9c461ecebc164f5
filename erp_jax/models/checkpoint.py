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
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from erp_jax.core import errors
from erp_jax.data import assets
from erp_jax.models import decoder, decoder_config, gguf_file, hub, json_file
from erp_jax.models import params as params_lib

_PACKAGE = 'package:'
_SMALL_FILES = ('*.json', '*.txt', '*.model', '*.jinja')
_INDEX = 'model.safetensors.index.json'
# Of a packaged asset: the times at which its files were written.
_STAMP = 'stamp.json'

_log = logging.getLogger(__name__)

# transformers before 4.32 saved this buffer; it follows from the config.
_IGNORED = ('*.rotary_emb.inv_freq',)

_GGUF_NAMES = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
_GGUF_LAYER_NAMES = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}


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
  tensors: Mapping[str, np.ndarray]

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
  path = hub.download(name, ('*.safetensors', *_SMALL_FILES))
  return _open(name, path, revision=path.name)


def load_decoder(
  name: str, dtype: jax.typing.DTypeLike
) -> tuple[decoder.DecoderConfig, Any, Checkpoint]:
  """The config, the weights in `dtype` and the checkpoint they came from."""
  start = time.monotonic()
  checkpoint = open_checkpoint(name)
  if checkpoint.is_gguf:
    tied = 'output.weight' not in checkpoint.tensors
    cfg = decoder_config.from_gguf(checkpoint.config, tied)
    tensors = _HubNames(checkpoint.tensors, cfg)
  else:
    cfg = decoder_config.from_hf(checkpoint.config)
    tensors = checkpoint.tensors
  # Some tied checkpoints hold the head all the same.
  ignored = (*_IGNORED, 'lm_head.weight') if cfg.tied else _IGNORED
  weights = decoder.weights(cfg)
  values = params_lib.load(weights, tensors, dtype, ignored)
  _log.info(
    'Loaded %s: %.1f M parameters in %s, %.1f s.',
    name,
    params_lib.count(weights) / 1e6,
    jnp.dtype(dtype).name,
    time.monotonic() - start,
  )
  return cfg, values, checkpoint


class _Safetensors(Mapping[str, np.ndarray]):
  """The tensors of one or more safetensors files."""

  def __init__(self, files: list[pathlib.Path]):
    self._file_of = {}
    for path in files:
      try:
        file = safetensors.safe_open(path, 'numpy')
      except (OSError, safetensors.SafetensorError) as error:
        raise errors.UserError(
          f'{path} cannot be read ({error}): fetch it again.'
        ) from error
      self._file_of.update(dict.fromkeys(file.keys(), file))

  def __getitem__(self, name: str) -> np.ndarray:
    return self._file_of[name].get_tensor(name)

  def __iter__(self) -> Iterator[str]:
    return iter(self._file_of)

  def __len__(self) -> int:
    return len(self._file_of)


class _HubNames(Mapping[str, np.ndarray]):
  """Tensors of a Llama GGUF under the hub's names and in its row order."""

  def __init__(
    self, tensors: Mapping[str, np.ndarray], cfg: decoder.DecoderConfig
  ):
    self._tensors = tensors
    self._half = cfg.head_dim // 2
    self._name_of = {_hub_name(name): name for name in tensors}

  def __getitem__(self, name: str) -> np.ndarray:
    tensor = self._tensors[self._name_of[name]]
    if not name.endswith(('.q_proj.weight', '.k_proj.weight')):
      return tensor
    # The file pairs rows (2i, 2i + 1) of a head for interleaved RoPE; the
    # hub's layout, rotate-half, pairs (i, i + W / 2).
    rows = tensor.reshape(-1, self._half, 2, tensor.shape[-1])
    return rows.swapaxes(1, 2).reshape(tensor.shape)

  def __iter__(self) -> Iterator[str]:
    return iter(self._name_of)

  def __len__(self) -> int:
    return len(self._name_of)


def _hub_name(name: str) -> str:
  match = re.fullmatch(r'blk\.(\d+)\.(\w+)\.weight', name)
  if match and match[2] in _GGUF_LAYER_NAMES:
    return f'model.layers.{match[1]}.{_GGUF_LAYER_NAMES[match[2]]}.weight'
  return _GGUF_NAMES.get(name, name)


def _open(name: str, path: pathlib.Path, revision: str) -> Checkpoint:
  """Opens a folder or GGUF file; an empty revision means to hash it."""
  if path.is_dir() and not any(path.glob('*.safetensors')):
    path = _only_gguf(path)
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
  tensors = _Safetensors(files)
  config = json_file.read(path / 'config.json')
  revision = revision or _folder_hash(path, files)
  return Checkpoint(name, path, revision, config, tensors)


def _only_gguf(folder: pathlib.Path) -> pathlib.Path:
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
      f'{folder} holds torch .bin weights only; safetensors are needed: use a '
      'revision that has them.'
    )
  raise errors.UserError(
    f'{folder} holds no weights: *.safetensors or one .gguf file is needed.'
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
    for pattern in _SMALL_FILES
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
