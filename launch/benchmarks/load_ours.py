"""Our weights from a folder, in this process and in a new one."""

import jax
import jax.numpy as jnp

from erp_jax.models import checkpoint, encoder, encoder_config


def decoder_weights(folder: str) -> None:
  """As for sampling."""
  jax.block_until_ready(checkpoint.load_decoder(folder, jnp.bfloat16)[1])


def encoder_weights(folder: str) -> None:
  """As for embedding."""
  ckpt = checkpoint.open_checkpoint(folder)
  model = encoder_config.from_hf(ckpt.config)
  jax.block_until_ready(encoder.load(model, ckpt.tensors, jnp.float32))


def prepare(argument):
  """Work.bytes are the file's, read and written once."""
  from launch.benchmarks import load_folder  # What a new process need not read.

  return load_folder.timed(argument, __name__)
