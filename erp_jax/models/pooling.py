"""From hidden states to one vector, as a sentence-transformers folder says."""

import pathlib

import jax
import jax.numpy as jnp

from erp_jax.core import errors
from erp_jax.models import json_file

MODES = ('mean', 'cls', 'last')

# Their names in sentence-transformers.
_MODE_OF = {'mean': 'mean', 'cls': 'cls', 'lasttoken': 'last'}


def read_mode(folder: pathlib.Path, default: str) -> str:
  """One of MODES, as modules.json says; the default where there is none.

  Raises UserError for a module or pooling that is not supported.
  """
  path = folder / 'modules.json'
  if not path.exists():
    return default
  modules = json_file.read(path, list)
  folders = {m['type'].split('.')[-1]: m['path'] for m in modules}
  unknown = set(folders) - {'Transformer', 'Pooling', 'Normalize'}
  if unknown or 'Pooling' not in folders:
    raise errors.UserError(
      f'{path} lists the modules {", ".join(folders)}; supported are '
      'Transformer, Pooling and Normalize: choose another encoder.'
    )
  path = folder / folders['Pooling'] / 'config.json'
  config = json_file.read(path)
  modes = _modes(config)
  if len(modes) != 1 or modes[0] not in _MODE_OF:
    raise errors.UserError(
      f'{path} has pooling {" + ".join(modes)}; supported are '
      f'{", ".join(_MODE_OF)}: choose another encoder.'
    )
  if not config.get('include_prompt', True):
    raise errors.UserError(
      f'{path} has include_prompt = false, supported is true: choose another '
      'encoder.'
    )
  return _MODE_OF[modes[0]]


def lower_cases(folder: pathlib.Path) -> bool:
  """Whether sentence-transformers lower-cases texts before the tokenizer."""
  path = folder / 'sentence_bert_config.json'
  return path.exists() and json_file.read(path).get('do_lower_case', False)


def pool(x_BTD: jax.Array, valid_BT: jax.Array, mode: str) -> jax.Array:
  """One float32 vector [B, D] per row, from its valid tokens.

  'cls' is the first token, 'last' the last one, 'mean' the mean over all,
  [CLS] and [SEP] included. A row that has none gets a finite vector.
  """
  if mode == 'cls':
    return x_BTD[:, 0].astype(jnp.float32)
  if mode == 'last':
    last_B = jnp.maximum(valid_BT.sum(axis=1) - 1, 0)  # Padding is right.
    x_B1D = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)
    return x_B1D[:, 0].astype(jnp.float32)
  weight_BT = valid_BT.astype(jnp.float32)
  total_BD = jnp.einsum('BTD,BT->BD', x_BTD.astype(jnp.float32), weight_BT)
  return total_BD / jnp.maximum(weight_BT.sum(axis=1, keepdims=True), 1)


def _modes(config: dict) -> list[str]:
  """Names of the modes; until version 5, one boolean key for each."""
  if 'pooling_mode' in config:
    mode = config['pooling_mode']
    return [mode] if isinstance(mode, str) else list(mode)
  prefix = 'pooling_mode_'
  return [
    key.removeprefix(prefix).removesuffix('_tokens').removesuffix('_token')
    for key, value in config.items()
    if key.startswith(prefix) and value
  ]
