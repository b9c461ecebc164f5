"""Vectors of texts by the library sentence-transformers, the extra `st`.

For the encoders that erp_jax has no network of. It needs torch, so it is
imported when it is asked for and not before.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from erp_jax.core import errors, shapes
from erp_jax.models import checkpoint

_CHUNK = 256  # Texts between two steps of progress; batches are within one.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
  """A SentenceTransformer without its final Normalize."""

  max_tokens: int
  batch_size: int
  _model: Any

  @property
  def width(self) -> int:
    """E."""
    return self._model.get_embedding_dimension()

  def vectors(
    self, texts: Sequence[str], advance: Callable[[int], None]
  ) -> tuple[np.ndarray, int]:
    """Float32 [N, E], and how many texts were longer than max_tokens."""
    emb_NE = np.zeros((len(texts), self.width), np.float32)
    num_truncated = 0
    for start in range(0, len(texts), _CHUNK):
      part = texts[start : start + _CHUNK]
      ids = self._model.tokenizer(part, truncation=False)['input_ids']
      num_truncated += sum(len(row) > self.max_tokens for row in ids)
      # The empty prompt is none, not the model's default one.
      emb_NE[start : start + len(part)] = self._model.encode(
        part, prompt='', batch_size=self.batch_size, show_progress_bar=False
      )
      advance(len(part))
    return emb_NE, num_truncated

  def warm_up(self) -> None:
    """Nothing: torch compiles no program for a shape."""


def load(
  name: str, *, max_tokens: int, batch_tokens: int, dtype: str
) -> Pipeline:
  """Pipeline of a checkpoint, from the same files that `jax` would read.

  Raises UserError if the library is not installed or cannot read it, and if
  max_tokens is more than the model takes.
  """
  try:
    import sentence_transformers
  except ImportError as error:
    raise errors.UserError(
      'embed.backend=sentence-transformers is not installed: pip install '
      "'erp_jax[st]'."
    ) from error
  path = checkpoint.open_checkpoint(name).path
  try:
    model = sentence_transformers.SentenceTransformer(
      str(path), local_files_only=True, model_kwargs={'dtype': dtype}
    )
  except (OSError, ValueError) as error:
    raise errors.UserError(
      f'embed.encoder={name} cannot be read by sentence-transformers '
      f'({errors.said(error)}): choose another encoder.'
    ) from error
  limits = (
    model.tokenizer.model_max_length,
    getattr(model[0].config, 'max_position_embeddings', max_tokens),
  )
  if max_tokens > min(limits):
    raise errors.UserError(
      f'embed.max_tokens is {max_tokens}, but {name} has {min(limits)} '
      'positions: choose at most that.'
    )
  model.max_seq_length = max_tokens
  while type(model[-1]).__name__ == 'Normalize':
    del model[-1]  # The norm is measured, and embed.normalize decides.
  return Pipeline(
    max_tokens=max_tokens,
    batch_size=shapes.num_rows(max_tokens, batch_tokens),
    _model=model,
  )
