"""What else embeds: sentence-transformers, in either dtype."""

import pathlib
import tempfile

import numpy as np

from erp_jax.embed import embedder
from erp_jax.models import checkpoint
from launch.benchmarks import contest, embed_ours, hf_folder


def minilm(argument):
  """The same checkpoint."""
  work, dtype = argument
  path = checkpoint.open_checkpoint(work.encoder).path
  rows = work.peer_rows_bfloat16 if dtype == 'bfloat16' else work.peer_rows
  return _timed(load(path, dtype), embed_ours.texts(work.num_prompts), rows)


def gte(argument):
  """The same random weights, in transformers' GteModel."""
  work, dtype = argument
  with tempfile.TemporaryDirectory() as folder:
    hf_folder.write_gte(pathlib.Path(folder), work.encoder, work.seed)
    model = load(folder, dtype)
  return _timed(model, embed_ours.texts(work.gte_prompts), work.peer_rows)


def load(path, dtype: str):
  """SentenceTransformer of a folder."""
  import sentence_transformers

  model = sentence_transformers.SentenceTransformer(
    str(path), local_files_only=True, model_kwargs={'dtype': dtype}
  )
  model.max_seq_length = embedder.EmbedConfig().max_tokens
  return model


def _timed(model, prompts, rows):
  def run() -> contest.Work:
    emb_NE = model.encode(
      prompts,
      batch_size=rows,
      normalize_embeddings=True,
      show_progress_bar=False,
    )
    detail = {'sum': float(abs(emb_NE).sum(dtype=np.float64))}
    return contest.Work(len(prompts), detail=detail)

  return run
