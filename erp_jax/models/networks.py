"""What network a name stands for, before any weight is read or fetched."""

import pathlib

from erp_jax.core import errors
from erp_jax.models import catalog, checkpoint, deberta, encoder_config


def is_at_hand(name: str) -> bool:
  """Whether the checkpoint is a packaged asset, or a file or folder here."""
  return name.startswith('package:') or pathlib.Path(name).expanduser().exists()


def find(name: str) -> catalog.Config:
  """The config of the checkpoint's network.

  The catalogue's, or that of a checkpoint at hand, whose headers are read.
  Raises UserError for a hub id that the catalogue lacks.
  """
  entry = catalog.CATALOG.get(name.partition('@')[0])
  if entry:
    return entry.config
  if not is_at_hand(name):
    raise errors.UserError(
      f'the network of {name!r} is unknown before it is fetched: name a folder '
      f'that holds it, or one of {", ".join(catalog.CATALOG)}.'
    )
  ckpt = checkpoint.open_checkpoint(name)
  if ckpt.config.get('model_type') in encoder_config.MODEL_TYPES:
    return encoder_config.from_hf(ckpt.config)
  if ckpt.config.get('model_type') == 'deberta-v2':
    return deberta.from_hf(ckpt.config)
  return checkpoint.decoder_tensors(ckpt)[0]
