"""From hidden states to one vector, as a sentence-transformers folder says."""

import pathlib

import jax
import jax.numpy as jnp

from erp_jax.core import errors
from erp_jax.models import json_file


def read_mode(folder: pathlib.Path) -> str:
  """'mean' or 'cls', as modules.json says; the mean where there is none.

  Raises UserError for a module or pooling mode that is not supported.
  """
  path = folder / 'modules.json'
  if not path.exists():
    return 'mean'
  modules = json_file.read(path, list)
  folders = {m['type'].split('.')[-1]: m['path'] for m in modules}
  unknown = set(folders) - {'Transformer', 'Pooling', 'Normalize'}
  if unknown or 'Pooling' not in folders:
    raise errors.UserError(
      f'{path} lists the modules {", ".join(folders)}; supported are '
      'Transformer, Pooling and Normalize: choose another encoder.'
    )
  path = folder / folders['Pooling'] / 'config.json'
  modes = _modes(json_file.read(path))
  if modes not in (['mean'], ['cls']):
    raise errors.UserError(
      f'{path} has pooling {" + ".join(modes)}; supported are mean or cls: '
      'choose another encoder.'
    )
  return modes[0]


def pool(x_BTD: jax.Array, valid_BT: jax.Array, mode: str) -> jax.Array:
  """One float32 vector [B, D] per row, from its valid tokens.

  'cls' is the first token, 'mean' the mean over all, [CLS] and [SEP] included,
  and zero where a row has none.
  """
  if mode == 'cls':
    return x_BTD[:, 0].astype(jnp.float32)
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
