"""Stored prompt embeddings, as any stage reads them."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from erp_jax.core import errors, store


def read(path: epath.PathLike, prompt_ids: Sequence[str]) -> np.ndarray:
  """The embeddings of these prompts, in their order: float32 [N, E].

  Raises UserError naming a prompt that has no embedding, or one that is not
  finite.
  """
  table = store.read_table(path)
  column = table['embedding'].combine_chunks()
  emb_NE = column.values.to_numpy().reshape(len(table), -1)
  row_of = {name: i for i, name in enumerate(table['prompt_id'].to_pylist())}
  missing = [name for name in prompt_ids if name not in row_of]
  if missing:
    raise errors.UserError(
      f'{path} lacks {len(missing)} prompts, such as {missing[0]!r}: run '
      'launch.embed with the same --config and --workdir.'
    )
  emb_NE = emb_NE[[row_of[name] for name in prompt_ids]]
  bad = np.flatnonzero(~np.isfinite(emb_NE).all(axis=1))
  if len(bad):
    raise errors.UserError(
      f'{path}: the embedding of prompt {prompt_ids[bad[0]]!r} (and '
      f'{len(bad) - 1} more) is not finite: delete that folder and run '
      'launch.embed again.'
    )
  return emb_NE
