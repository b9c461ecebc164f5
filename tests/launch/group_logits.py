"""Logits of a decoder, by each of four hosts: DECODER OUT COORDINATOR HOST."""

import sys

import jax
import numpy as np

from erp_jax.core import runtime, sharding
from erp_jax.models import checkpoint, decoder

HOSTS = 4


def logits(folder: str) -> np.ndarray:
  """logits_BTV for some tokens, on the mesh in force."""
  cfg, params, _ = checkpoint.load_decoder(folder, np.dtype('float32'))
  token_BT = np.random.default_rng(0).integers(2, 200, (4, 24))

  @jax.jit
  def run(params):
    hidden_BTD, _ = decoder.prefill(params, cfg, token_BT)
    return decoder.logits(params, cfg, hidden_BTD)

  return sharding.fetch(run(params))


if __name__ == '__main__':
  decoder_folder, out_folder, coordinator, host = sys.argv[1:]
  config = runtime.RuntimeConfig(
    hosts=HOSTS, host=int(host), coordinator=coordinator, data=2, model=4
  )
  with runtime.started(config):
    assert jax.process_count() == HOSTS and jax.local_device_count() == 2
    np.save(f'{out_folder}/{host}.npy', logits(decoder_folder))
