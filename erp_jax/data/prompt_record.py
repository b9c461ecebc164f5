"""Which prompts a run is about, kept in it: prompts/, with counts of rows."""

import pyarrow as pa

from erp_jax.core import config, group, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import prompts as prompts_lib

FOLDER = 'prompts'
FILE = 'prompts.parquet'
FORMAT_VERSION = 1


def write(
  workdir: workdir_lib.Workdir,
  cfg: prompts_lib.PromptConfig,
  selection: prompts_lib.Selection,
) -> None:
  """Ids, categories and sources as a table; counts by source in the manifest.

  It is written anew where any of it has changed; of replicas by the first.
  """
  identity = {
    'stage': 'prompts',
    'format_version': FORMAT_VERSION,
    'config': config.as_plain(cfg),
    'prompts': prompts_lib.digest(selection.prompts),
    'counts': store.digest(selection.counts),
  }
  artifact = workdir.artifact(FOLDER, identity, replaceable=True)
  if workdir.share.index or group.of_first(artifact.is_done):
    return
  table = pa.table(
    {
      'prompt_id': pa.array([p.id for p in selection.prompts], pa.string()),
      'category': pa.array(
        [p.category for p in selection.prompts], pa.string()
      ),
      'source': pa.array(selection.sources, pa.string()),
    }
  )
  with workdir.writer(artifact) as writer:
    writer.write_file(FILE, store.parquet_bytes(table))
    writer.finish({'sources': selection.counts})
