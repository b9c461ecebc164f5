"""Prompts to vectors with a frozen encoder: the v(x) of Sec. 3."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes
from erp_jax.models import checkpoint, encoder, pooling, tokenizer
from erp_jax.models import params as params_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedConfig:
  """Which encoder, and how prompts are given to it."""

  encoder: str = 'package:minilm-l6-v2'
  max_tokens: int = 256  # [CLS] and [SEP] included; longer prompts are cut.
  # On two CPU cores, 4096 has two thirds of its tokens/s at 256 tokens a row.
  batch_tokens: int = 1024
  # To unit length. The ridge penalty depends on it (MiniLM's own pipeline does
  # it); the paper does not say.
  normalize: bool = True

  def __post_init__(self):
    if self.max_tokens < 3:
      raise errors.UserError(
        f'embed.max_tokens must be >= 3, got {self.max_tokens}.'
      )
    if self.batch_tokens < 1:
      raise errors.UserError(
        f'embed.batch_tokens must be >= 1, got {self.batch_tokens}.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings:
  """Vectors of prompts, in their order, and what to record about them."""

  emb_NE: np.ndarray  # float32.
  num_truncated: int  # Prompts that were longer than max_tokens.
  mean_norm: float  # Before normalisation.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedder:
  """A loaded encoder. Results of one text differ by up to 1e-6 over batches."""

  cfg: EmbedConfig
  model: encoder.EncoderConfig
  pooling_mode: str  # 'mean' or 'cls', of the checkpoint.
  _params: Any
  _tokenizer: tokenizer.Tokenizer

  @property
  def width(self) -> int:
    """E."""
    return self.model.width

  def embed(
    self,
    texts: Sequence[str],
    advance: Callable[[int], None] = lambda num_done: None,
  ) -> Embeddings:
    """Vectors of texts; `advance(n)` is called when n more are done."""
    max_tokens = self.cfg.max_tokens
    ids = self._tokenizer.encode_batch(texts, special=True)
    num_truncated = sum(len(row) > max_tokens for row in ids)
    # The last token is [SEP]; it stays.
    rows = [
      row if len(row) <= max_tokens else row[: max_tokens - 1] + row[-1:]
      for row in ids
    ]
    emb_NE = np.zeros((len(texts), self.width), np.float32)
    lengths = [len(row) for row in rows]
    sizes = shapes.sizes(max_tokens, shortest=32)
    for indices, size in shapes.batches(lengths, self.cfg.batch_tokens, sizes):
      num_rows = shapes.num_rows(size, self.cfg.batch_tokens)
      token_BT, valid_BT = shapes.pad_to(
        [rows[i] for i in indices], num_rows, size
      )
      emb_BE = _forward(
        self._params, self.model, self.pooling_mode, token_BT, valid_BT
      )
      emb_NE[indices] = jax.device_get(emb_BE)[: len(indices)]
      advance(len(indices))
    norm_N = np.linalg.norm(emb_NE, axis=1)
    if self.cfg.normalize:
      emb_NE /= np.maximum(norm_N, 1e-12)[:, None]
    return Embeddings(
      emb_NE=emb_NE,
      num_truncated=num_truncated,
      mean_norm=float(norm_N.mean(dtype=np.float64)) if len(texts) else 0.0,
    )


def load(cfg: EmbedConfig) -> Embedder:
  """Embedder with float32 weights on the default device.

  Raises UserError if the checkpoint is no BERT encoder, or if embed.max_tokens
  is more than it has positions for.
  """
  ckpt = checkpoint.open_checkpoint(cfg.encoder)
  if ckpt.is_gguf:
    raise errors.UserError(
      f'embed.encoder is {cfg.encoder!r}, a GGUF file; a BERT encoder as a '
      "folder or hub id is needed, for instance 'package:minilm-l6-v2'."
    )
  model = encoder.from_hf(ckpt.config)
  if cfg.max_tokens > model.max_position:
    raise errors.UserError(
      f'embed.max_tokens is {cfg.max_tokens}, but {cfg.encoder} has '
      f'{model.max_position} positions: choose at most that.'
    )
  return Embedder(
    cfg=cfg,
    model=model,
    pooling_mode=pooling.read_mode(ckpt.path),
    _params=params_lib.load(
      encoder.weights(model), ckpt.tensors, jnp.float32, encoder.IGNORED
    ),
    _tokenizer=tokenizer.load_tokenizer(ckpt.path),
  )


@functools.partial(jax.jit, static_argnames=('model', 'mode'))
def _forward(params, model, mode, token_BT, valid_BT):
  x_BTD = encoder.encode(params, model, token_BT, valid_BT)
  return pooling.pool(x_BTD, valid_BT, mode)
