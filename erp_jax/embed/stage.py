"""Prompts -> vectors: one artefact per encoder."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from erp_jax.core import group, progress
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.embed import embedder as embedder_lib
from erp_jax.models import checkpoint

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
_SHARD_PROMPTS = 1024  # What a kill can lose.


def folder(cfg: embedder_lib.EmbedConfig) -> str:
  """The artefact's folder in the run: embeddings/{last part of the name}."""
  return (
    f'embeddings/{cfg.encoder.rstrip("/").replace(":", "/").split("/")[-1]}'
  )


def run(
  workdir: workdir_lib.Workdir,
  prompts: Sequence[prompts_lib.Prompt],
  cfg: embedder_lib.EmbedConfig,
) -> None:
  """Embeds what is missing."""
  identity = {
    'stage': 'embed',
    'format_version': FORMAT_VERSION,
    'embed': dataclasses.asdict(cfg),
    'revision': checkpoint.open_checkpoint(cfg.encoder).revision,
    'prompts': prompts_lib.text_digest(prompts),
  }
  num_shards = -(-len(prompts) // _SHARD_PROMPTS)
  artifact = workdir.artifact(folder(cfg), identity, num_shards)
  if group.of_first(artifact.is_done):
    return
  embedder = embedder_lib.load(cfg)
  with workdir.writer(artifact) as writer:
    for i in writer.missing():
      part = prompts[i * _SHARD_PROMPTS : (i + 1) * _SHARD_PROMPTS]
      with progress.track('embed prompts', len(part), 'prompts') as advance:
        result = embedder.embed([p.prompt for p in part], advance)
      writer.write_shard(
        i,
        _table([p.id for p in part], result.emb_NE),
        {
          'prompts': len(part),
          'truncated': result.num_truncated,
          'sum_of_norms': result.mean_norm * len(part),
        },
      )
    if not writer.is_complete():
      return
    counts = writer.shard_counts()
    if counts['truncated']:
      _log.warning(
        '%d of %d prompts are longer than embed.max_tokens and were cut.',
        *(counts['truncated'], counts['prompts']),
      )
    mean_norm = counts['sum_of_norms'] / counts['prompts']
    writer.finish({'width': embedder.width, 'mean_norm': mean_norm})


def _table(prompt_ids: Sequence[str], emb_NE: np.ndarray) -> pa.Table:
  values = pa.array(np.ascontiguousarray(emb_NE).ravel(), pa.float32())
  return pa.table(
    {
      'prompt_id': pa.array(prompt_ids, pa.string()),
      'embedding': pa.FixedSizeListArray.from_arrays(values, emb_NE.shape[1]),
    }
  )
