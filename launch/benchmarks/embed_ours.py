"""Our encoders on the embedding workload, and that workload's texts."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from erp_jax.data import assets, paretobandit
from erp_jax.embed import embedder
from erp_jax.models import checkpoint, encoder, tokenizer
from erp_jax.models import params as params_lib
from launch.benchmarks import contest, hf_folder

_COMPARED = 64  # Prompts that two dtypes are compared on.


def texts(num: int) -> list[str]:
  """Benchmark prompts, at even steps of the alphabet."""
  table = paretobandit.long_table(assets.fetch('paretobandit'))
  found = sorted(set(table['prompt'].to_pylist()))
  return [found[int((i + 0.5) * len(found) / num)] for i in range(num)]


def minilm(argument):
  """A packaged encoder; in bfloat16 it says how near float32 it is."""
  work, dtype = argument
  prompts = texts(work.num_prompts)
  batch_tokens = work.batch_tokens
  if dtype == 'bfloat16':
    batch_tokens = work.batch_tokens_bfloat16
  cfg = embedder.EmbedConfig(
    encoder=work.encoder, batch_tokens=batch_tokens, dtype=dtype
  )
  ours = embedder.load(cfg)
  detail = {}
  if dtype != 'float32':
    wide = embedder.load(dataclasses.replace(cfg, dtype='float32'))
    few = prompts[:: -(-len(prompts) // _COMPARED)]
    got_NE, want_NE = (e.embed(few).emb_NE for e in (ours, wide))
    cosine_N = np.einsum('NE,NE->N', got_NE, want_NE)
    detail = {
      'least_cosine': float(cosine_N.min()),
      'mean_cosine': float(cosine_N.mean()),
    }
  return timed(ours, prompts, detail)


def gte(argument):
  """Random weights of gte-large's shape, with MiniLM's tokenizer."""
  work, dtype = argument
  with tempfile.TemporaryDirectory() as folder:
    hf_folder.write_gte(pathlib.Path(folder), work.encoder, work.seed)
    ours = embedder.load(
      embedder.EmbedConfig(
        encoder=folder,
        batch_tokens=work.batch_tokens,
        pooling='mean',
        dtype=dtype,
      )
    )
    prompts = texts(work.gte_prompts)
    return timed(ours, prompts, {})


def timed(ours: embedder.Embedder, prompts: list[str], detail: dict):
  """What embeds the prompts; its flops are those of the tokens read."""
  model, cfg = ours.backend.model, ours.cfg
  tokens = tokenizer.load_tokenizer(
    checkpoint.open_checkpoint(cfg.encoder).path
  )
  lengths = [
    min(len(ids), cfg.max_tokens)
    for ids in tokens.encode_batch(prompts, special=True)
  ]
  per_token = 2 * params_lib.count(encoder.weights(model)['layers'])
  per_pair = 4 * model.num_layers * model.width
  flops = sum(per_token * n + per_pair * n * n for n in lengths)

  def run() -> contest.Work:
    made = ours.embed(prompts)
    found = {
      'mean_tokens': float(np.mean(lengths)),
      # What all contenders should agree on.
      'sum': float(abs(made.emb_NE).sum(dtype=np.float64)),
    }
    return contest.Work(len(prompts), flops, detail=detail | found)

  return run
