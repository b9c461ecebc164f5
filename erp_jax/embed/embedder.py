"""Prompts to vectors with a frozen encoder: the v(x) of Sec. 3."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from erp_jax.core import errors
from erp_jax.embed import native, sentence_transformers_backend
from erp_jax.models import pooling

_JAX = 'jax'
_SENTENCE_TRANSFORMERS = 'sentence-transformers'
_AUTO = 'auto'


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedConfig:
  """Which encoder, and how prompts are given to it."""

  encoder: str = 'package:minilm-l6-v2'
  # 'sentence-transformers' runs the models that 'jax' has no network of.
  backend: str = _JAX
  prompt: str = ''  # Before each text: 'query: ' for e5.
  # Prompt and control tokens included; longer texts are cut.
  max_tokens: int = 256
  # On two CPU cores, in bfloat16 with AMX, 2048 has 1.1 times the tokens/s and
  # 4096 two thirds of them: intermediate values leave the cache.
  batch_tokens: int = 1024
  # Of a token's states, one vector: 'mean', 'cls', 'last', or 'auto' for what
  # the checkpoint says.
  pooling: str = _AUTO
  # Hidden states after so many layers (no final norm, which decoders have); 0
  # for the network's output.
  layer: int = 0
  # To unit length. The ridge penalty depends on it (MiniLM's own pipeline does
  # it); the paper does not say.
  normalize: bool = True
  dtype: str = 'float32'  # Of weights and matmuls, or 'bfloat16'.

  def __post_init__(self):
    for name, allowed in (
      ('backend', (_JAX, _SENTENCE_TRANSFORMERS)),
      ('pooling', (_AUTO, *pooling.MODES)),
      ('dtype', ('float32', 'bfloat16')),
    ):
      value = getattr(self, name)
      if value not in allowed:
        raise errors.UserError(
          f'embed.{name} must be one of {", ".join(allowed)}, got {value!r}.'
        )
    for name, least in (('max_tokens', 3), ('batch_tokens', 1), ('layer', 0)):
      errors.check_least(f'embed.{name}', getattr(self, name), least)
    if self.backend != _JAX and (self.pooling != _AUTO or self.layer):
      raise errors.UserError(
        f'embed.pooling is {self.pooling!r} and embed.layer is {self.layer}, '
        f"but embed.backend={self.backend} runs the model's own pipeline: "
        "leave them at 'auto' and 0."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings:
  """Vectors of prompts, in their order, and what to record about them."""

  emb_NE: np.ndarray  # float32.
  num_truncated: int  # Prompts that were longer than max_tokens.
  mean_norm: float  # Before normalisation.


class Backend(Protocol):
  """A loaded encoder of whatever library."""

  @property
  def width(self) -> int:
    """E."""

  def vectors(
    self, texts: Sequence[str], advance: Callable[[int], None]
  ) -> tuple[np.ndarray, int]:
    """Float32 [N, E] before normalisation, and how many texts were cut."""

  def warm_up(self) -> None:
    """Compiles what `vectors` will ever need."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedder:
  """An encoder, and what is done before and after it."""

  cfg: EmbedConfig
  backend: Backend

  @property
  def width(self) -> int:
    """E."""
    return self.backend.width

  def embed(
    self,
    texts: Sequence[str],
    advance: Callable[[int], None] = lambda num_done: None,
  ) -> Embeddings:
    """Vectors of texts; `advance(n)` is called when n more are done."""
    texts = [self.cfg.prompt + text for text in texts]
    emb_NE, num_truncated = self.backend.vectors(texts, advance)
    norm_N = np.linalg.norm(emb_NE, axis=1)
    if self.cfg.normalize:
      emb_NE /= np.maximum(norm_N, 1e-12)[:, None]
    return Embeddings(
      emb_NE=emb_NE,
      num_truncated=num_truncated,
      mean_norm=float(norm_N.mean(dtype=np.float64)) if len(texts) else 0.0,
    )

  def warm_up(self) -> None:
    """Compiles what `embed` will ever need."""
    self.backend.warm_up()


def load(cfg: EmbedConfig) -> Embedder:
  """Embedder on the default device.

  Raises UserError if the backend cannot run the checkpoint, or if
  embed.max_tokens is more than it has positions for.
  """
  if cfg.backend == _SENTENCE_TRANSFORMERS:
    backend = sentence_transformers_backend.load(
      cfg.encoder,
      max_tokens=cfg.max_tokens,
      batch_tokens=cfg.batch_tokens,
      dtype=cfg.dtype,
    )
  else:
    backend = native.load(
      cfg.encoder,
      pooling_mode=cfg.pooling,
      max_tokens=cfg.max_tokens,
      batch_tokens=cfg.batch_tokens,
      layer=cfg.layer,
      dtype=cfg.dtype,
    )
  return Embedder(cfg=cfg, backend=backend)
