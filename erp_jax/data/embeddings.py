"""Stored prompt embeddings, as any stage reads them."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from erp_jax.core import errors, store

_MAX_NAMED = 10


def read(path: epath.PathLike, prompt_ids: Sequence[str]) -> np.ndarray:
  """The embeddings of these prompts, in their order: float32 [N, E].

  Raises UserError naming a prompt that has no embedding, or those whose are
  not finite.
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
  check_finite(
    emb_NE,
    prompt_ids,
    str(path),
    'delete that folder and run launch.embed again',
  )
  return emb_NE


def check_finite(
  emb_NE: np.ndarray, prompt_ids: Sequence[str], where: str, fix: str
) -> None:
  """UserError naming the prompts whose embeddings are not finite."""
  bad = np.flatnonzero(~np.isfinite(emb_NE).all(axis=1))
  if len(bad):
    ids = ', '.join(repr(prompt_ids[n]) for n in bad[:_MAX_NAMED])
    more = len(bad) - _MAX_NAMED
    raise errors.UserError(
      f'{where}: the embeddings of prompts {ids}'
      f'{f" and {more} more" if more > 0 else ""} are not finite; {fix}.'
    )
