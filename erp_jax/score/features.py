"""A frozen network's vector of a prompt with a response: what a head reads.

An encoder reads `[CLS] prompt [SEP] response [SEP]` and is pooled as its
checkpoint says (segment embeddings are those of the first text throughout).
A decoder reads the conversation in its chat template, the prompt once for all
its responses, and gives its hidden state at the last token.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes, sharding
from erp_jax.models import checkpoint, encoder, encoder_config, pooling
from erp_jax.models import tokenizer as tokenizer_lib
from erp_jax.score import pairs
from erp_jax.score import reader as reader_lib

_MIN_TOKENS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
  """Which network reads, and how."""

  model: str = 'package:minilm-l6-v2'  # An encoder or a decoder.
  dtype: str = 'float32'  # Of its weights and matmuls.
  max_tokens: int = 512  # Of prompt and response; longer ones are cut.
  batch_tokens: int = 1024  # Positions read at once; more on accelerators.

  def __post_init__(self):
    if self.dtype not in ('bfloat16', 'float32'):
      raise errors.UserError(
        f'features.dtype must be bfloat16 or float32, got {self.dtype!r}.'
      )
    if self.max_tokens < _MIN_TOKENS or self.batch_tokens < 1:
      raise errors.UserError(
        f'features needs max_tokens >= {_MIN_TOKENS} and batch_tokens >= 1, '
        f'got {self.max_tokens} and {self.batch_tokens}.'
      )


@dataclasses.dataclass
class EncoderReader:
  """A loaded encoder.

  Attributes:
    num_cut: rows that the last call of `read` cut.
  """

  cfg: FeatureConfig
  model: encoder.EncoderConfig
  params: Any
  tokenizer: tokenizer_lib.Tokenizer
  pooling_mode: str
  num_cut: int = 0

  @property
  def width(self) -> int:
    """E."""
    return self.model.width

  def read(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """Float32 [K, E] of each prompt's K responses; sets `num_cut`.

    `advance(n, positions=p)` is called when n more rows with p tokens are read.
    """
    rows, self.num_cut = pairs.encode(
      self.tokenizer, prompts, texts, self.cfg.max_tokens
    )
    x_BE = np.empty((len(rows), self.width), np.float32)
    for indices, token_BT, valid_BT in shapes.fitted(
      rows, self.cfg.batch_tokens, self.cfg.max_tokens
    ):
      pooled_BE = _encode(
        self.params, self.model, self.pooling_mode, token_BT, valid_BT
      )
      x_BE[indices] = sharding.fetch(pooled_BE)[: len(indices)]
      advance(len(indices), positions=int(valid_BT.sum()))
    ends = list(itertools.accumulate(len(responses) for responses in texts))
    return [x_BE[i:j] for i, j in zip([0, *ends], ends, strict=False)]


@dataclasses.dataclass
class DecoderReader:
  """A loaded decoder; as EncoderReader."""

  cfg: FeatureConfig
  reader: reader_lib.Reader
  num_cut: int = 0

  @property
  def width(self) -> int:
    """E."""
    return self.reader.cfg.width

  def read(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """Float32 [K, E] of each prompt's K responses; sets `num_cut`."""
    self.num_cut = 0
    groups = [
      reader_lib.group([self._row(prompt, text) for text in responses])
      for prompt, responses in zip(prompts, texts, strict=True)
    ]
    return self.reader.last_hidden(groups, advance)

  def _row(self, prompt: str, text: str) -> list[int]:
    """Ids of the conversation; what is too long loses its beginning.

    The first id stays: decoders are trained with it in front of everything.
    """
    ids = self.reader.tokenizer.render_ids(
      [
        {'role': 'user', 'content': prompt},
        {'role': 'assistant', 'content': text},
      ],
      generation_prompt=False,
    )
    limit = self.cfg.max_tokens
    if len(ids) <= limit:
      return ids
    self.num_cut += 1
    return [ids[0], *ids[len(ids) - limit + 1 :]]


def load(cfg: FeatureConfig) -> EncoderReader | DecoderReader:
  """Raises UserError for a network that we do not have, or too many tokens."""
  ckpt = checkpoint.open_checkpoint(cfg.model)
  if ckpt.config.get('model_type') not in encoder_config.MODEL_TYPES:
    reader = reader_lib.load(cfg.model, cfg.dtype, cfg.batch_tokens)
    _check_max_tokens(cfg, reader.cfg.max_position)
    return DecoderReader(cfg, reader)
  model = encoder_config.from_hf(ckpt.config)
  _check_max_tokens(cfg, model.max_position)
  tokenizer = tokenizer_lib.load_tokenizer(ckpt.path)
  if len(tokenizer.encode('', special=True)) != 2:
    raise errors.UserError(
      f'features.model is {cfg.model!r}, whose tokenizer does not put [CLS] '
      'and [SEP] around a text: choose another encoder.'
    )
  default = 'cls' if model.gated else 'mean'  # gte's, and BERT's.
  return EncoderReader(
    cfg=cfg,
    model=model,
    params=encoder.load(model, ckpt.tensors, jnp.dtype(cfg.dtype)),
    tokenizer=tokenizer,
    pooling_mode=pooling.read_mode(ckpt.path, default),
  )


def _check_max_tokens(cfg: FeatureConfig, max_position: int) -> None:
  if cfg.max_tokens > max_position:
    raise errors.UserError(
      f'features.max_tokens is {cfg.max_tokens}, but {cfg.model} has '
      f'{max_position} positions: choose at most that.'
    )


@functools.partial(jax.jit, static_argnames=('model', 'mode'))
def _encode(params, model, mode, token_BT, valid_BT):
  x_BTD = encoder.encode(params, model, token_BT, valid_BT)
  return pooling.pool(x_BTD, valid_BT, mode)
