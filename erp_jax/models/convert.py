"""Torch's .bin pickles to safetensors, without running what they hold.

The only module that opens a .bin file. torch reads it with `weights_only`,
which refuses whatever is not a tensor, and maps it into memory, so that a shard
need not fit. Tensors keep their names, dtypes and bits; those that share memory
(a tied head) are written once each.
"""

import hashlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import safetensors

from erp_jax.core import errors, failures, store, whole_files
from erp_jax.models import checkpoint, json_file

_SINGLE = 'pytorch_model.bin'
_INDEX = 'pytorch_model.bin.index.json'
_WEIGHTS = ('pytorch_model*.bin', _INDEX)
_MADE_FROM = 'source_sha256'  # In a header, so that a restart knows its files.


def convert(name: str, target: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  """Writes a checkpoint's weights and small files into `target`.

  `name` is a folder or a hub id, with '@revision' or without. Each file appears
  whole, config.json last: without it nothing opens the folder. Files that an
  interrupted run finished are kept.

  Returns the sha256 of each weights file, those read before those written.
  Raises UserError for a pickle that holds anything but tensors, for damaged or
  missing files, without torch, and if `target` holds other weights.
  """
  source = pathlib.Path(name).expanduser()
  if not source.exists():
    patterns = (*_WEIGHTS, *checkpoint.SMALL_FILES)
    source = checkpoint.download(name, patterns)
  files = _weight_files(source)
  with failures.writing(target, 0):
    target.mkdir(parents=True, exist_ok=True)
  for stale in target.rglob(f'{whole_files.TMP}*'):
    stale.unlink()
  new_of = {path: target / _new_name(path.name) for path in files}
  _check_no_others(target, set(new_of.values()))
  old, weight_map, size = [], {}, 0
  for path, new in new_of.items():
    old.append((path, _sha256(path)))
    if not new.exists():
      _write_tensors(new, read(path), made_from=old[-1][1])
    names, num_bytes = _check_made_from(new, *old[-1])
    for tensor in names:
      if weight_map.setdefault(tensor, new.name) != new.name:
        raise errors.UserError(
          f'{tensor} is in {new.name} and in {weight_map[tensor]}: {source} '
          'mixes two checkpoints; fetch it again.'
        )
    size += num_bytes
  if (source / _INDEX).is_file():
    _check_index(source / _INDEX, weight_map)
    index = {'metadata': {'total_size': size}, 'weight_map': weight_map}
    store.write_json(target / _new_name(_INDEX), index)
  _copy_small_files(source, target)
  return [*old, *((new, _sha256(new)) for new in new_of.values())]


def read(path: pathlib.Path) -> Mapping[str, Any]:
  """Torch tensors of a .bin file by name; they stay on disk until used.

  Raises UserError as `convert` does.
  """
  try:
    import torch  # The one place that needs it: see the extra.
  except ImportError as error:
    raise errors.UserError(
      f"reading {path} needs torch: pip install 'erp_jax[convert]'."
    ) from error
  try:
    # Files of torch before 1.6 are no zip archives and cannot be mapped.
    state = torch.load(
      *(path, 'cpu'), weights_only=True, mmap=zipfile.is_zipfile(path)
    )
  except pickle.UnpicklingError as error:
    found = re.search(r'GLOBAL (\S+)', str(error))
    if not found:
      raise _damaged(path, 'it is no file that torch saved') from error
    raise errors.UserError(
      f'{path} is refused: it holds {found[1]}, which is no tensor, and could '
      'run code when opened; take the weights from a source that you trust, as '
      'safetensors.'
    ) from error
  except (EOFError, RuntimeError, OSError) as error:
    reason = (str(error) or 'it ends too early').splitlines()[0]
    raise _damaged(path, reason) from error
  if not isinstance(state, dict):
    kind = type(state).__name__
    raise _damaged(path, f'it holds a {kind}, not named tensors')
  for name, tensor in state.items():
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
      raise errors.UserError(
        f'{path} holds {name!r}, which is no plain tensor: only weights alone, '
        'as save_pretrained writes them, can be converted.'
      )
  return state


def _damaged(path: pathlib.Path, reason: str) -> errors.UserError:
  return errors.UserError(f'{path} cannot be read ({reason}): fetch it again.')


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The .bin files of a checkpoint, all of them there."""
  if (folder / _INDEX).is_file():
    names = set(_weight_map(folder / _INDEX).values())
  elif (folder / _SINGLE).is_file():
    names = {_SINGLE}
  else:
    raise errors.UserError(
      f'{folder} holds neither {_SINGLE} nor {_INDEX}: give --from the folder '
      'or hub id of a checkpoint with torch .bin weights.'
    )
  files = [folder / name for name in sorted(names)]
  for path in files:
    if path.parent != folder or not path.is_file():
      raise errors.UserError(
        f'{path} is missing, but {_INDEX} names it: fetch it again.'
      )
  return files


def _new_name(name: str) -> str:
  """pytorch_model-00001-of-00002.bin -> model-00001-of-00002.safetensors."""
  return name.removeprefix('pytorch_').replace('.bin', '.safetensors')


def _check_no_others(target: pathlib.Path, ours: set[pathlib.Path]) -> None:
  for path in sorted(target.glob('*.safetensors')):
    if path not in ours:
      raise errors.UserError(
        f'{path} is there already and not of this checkpoint: choose another '
        '--to, or delete that folder.'
      )


def _write_tensors(
  path: pathlib.Path, tensors: Mapping[str, Any], made_from: str
) -> None:
  import safetensors.torch  # Loads torch.

  seen = set()
  packed = {}
  for name, tensor in tensors.items():
    place = tensor.untyped_storage().data_ptr()
    tensor = tensor.detach().contiguous()
    # Shared memory is refused by safetensors; what is alone is not copied.
    shared = place in seen and tensor.untyped_storage().data_ptr() == place
    packed[name] = tensor.clone() if shared else tensor
    seen.add(place)
  tmp = path.with_name(whole_files.TMP + path.name)
  size = sum(tensor.nbytes for tensor in packed.values())
  try:
    with failures.writing(path, size):
      safetensors.torch.save_file(
        packed, tmp, {'format': 'pt', _MADE_FROM: made_from}
      )
      with tmp.open('rb+') as file:
        os.fsync(file.fileno())
      os.replace(tmp, path)
  except safetensors.SafetensorError as error:
    raise errors.UserError(
      f'cannot write {path} ({size} bytes): {error}; free some space or choose '
      'another --to, then start the same command again.'
    ) from error


def _check_made_from(
  path: pathlib.Path, source: pathlib.Path, checksum: str
) -> tuple[list[str], int]:
  """Tensor names and bytes of a target file; UserError if it is another's."""
  try:
    with safetensors.safe_open(path, 'np') as file:
      names = sorted(file.keys())
      made_from = (file.metadata() or {}).get(_MADE_FROM)
  except (OSError, safetensors.SafetensorError) as error:
    raise errors.UserError(
      f'{path} cannot be read ({error}): delete it and run again.'
    ) from error
  if made_from != checksum:
    raise errors.UserError(
      f'{path} is there already and was not made from {source}: choose another '
      '--to, or delete that folder.'
    )
  with path.open('rb') as file:
    header_size = int.from_bytes(file.read(8), 'little')
  return names, path.stat().st_size - 8 - header_size


def _weight_map(path: pathlib.Path) -> dict[str, str]:
  """Tensor -> file of an index."""
  weight_map = json_file.read(path).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise _damaged(path, 'it has no weight_map')
  return weight_map


def _check_index(path: pathlib.Path, found: Mapping[str, str]) -> None:
  listed = {name: _new_name(file) for name, file in _weight_map(path).items()}
  for name in sorted(listed.keys() | found.keys()):
    old, new = listed.get(name, 'no file'), found.get(name, 'no file')
    if old != new:
      raise errors.UserError(
        f'{path} puts {name} in {old}, but it is in {new}: fetch the '
        'checkpoint again.'
      )


def _copy_small_files(source: pathlib.Path, target: pathlib.Path) -> None:
  """Configs, tokenizer and pooling; config.json, which opens it, last."""
  found = {
    path.relative_to(source)
    for pattern in checkpoint.SMALL_FILES
    for place in ('', '*/')
    for path in source.glob(place + pattern)
    if path.name != _INDEX
  }
  last = pathlib.PurePath('config.json')
  for name in sorted(found, key=lambda name: (name == last, name)):
    try:
      data = (source / name).read_bytes()
    except OSError as error:
      raise _damaged(source / name, str(error.strerror)) from error
    if not (target / name).is_file() or (target / name).read_bytes() != data:
      store.write_bytes(target / name, data)


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
