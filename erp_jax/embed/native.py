"""Vectors of texts from our own networks: an encoder, or a decoder's states."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes, sharding
from erp_jax.models import (
  bits,
  catalog,
  checkpoint,
  decoder,
  decoder_weights,
  encoder,
  encoder_config,
  pooling,
  tokenizer,
)
from erp_jax.models import params as params_lib

# Of decoders: heads, and a buffer that follows from the config.
_UNUSED = ('lm_head.weight', 'score.weight', '*.rotary_emb.inv_freq')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """A loaded network. Vectors of one text differ by up to 1e-6 over batches.

  Attributes:
    model: an encoder sees the whole text at every token, a decoder what comes
      before it.
    pooling_mode: one of pooling.MODES.
  """

  model: encoder.EncoderConfig | decoder.DecoderConfig
  pooling_mode: str
  max_tokens: int
  batch_tokens: int
  layer: int  # Hidden states after so many layers; 0 for the last.
  _params: Any
  _tokenizer: tokenizer.Tokenizer
  _num_ending: int

  @property
  def width(self) -> int:
    """E."""
    return self.model.width

  def vectors(
    self, texts: Sequence[str], advance: Callable[[int], None]
  ) -> tuple[np.ndarray, int]:
    """Float32 [N, E], and how many texts were longer than max_tokens."""
    ids = self._tokenizer.encode_batch(texts, special=True)
    num_truncated = sum(len(row) > self.max_tokens for row in ids)
    rows = [_cut(row, self.max_tokens, self._num_ending) for row in ids]
    emb_NE = np.zeros((len(texts), self.width), np.float32)
    for indices, token_BT, valid_BT in shapes.fitted(
      rows, self.batch_tokens, self.max_tokens
    ):
      emb_NE[indices] = self._run(token_BT, valid_BT)[: len(indices)]
      advance(len(indices))
    return emb_NE, num_truncated

  def warm_up(self) -> None:
    """Compiles what `vectors` will ever need: a batch of each shape."""
    for size in shapes.fine_sizes(self.max_tokens):
      for num_rows in shapes.row_counts(size, self.batch_tokens):
        zeros_BT = np.zeros((num_rows, size), np.int32)
        self._run(zeros_BT, zeros_BT == 0)

  def _run(self, token_BT: np.ndarray, valid_BT: np.ndarray) -> np.ndarray:
    """emb_BE of one batch."""
    emb_BE = _forward(
      self._params,
      self.model,
      self.pooling_mode,
      self.layer,
      token_BT,
      valid_BT,
    )
    return sharding.fetch(emb_BE)


def load(
  name: str,
  *,
  pooling_mode: str,
  max_tokens: int,
  batch_tokens: int,
  layer: int,
  dtype: str,
) -> Network:
  """Network of a checkpoint; `pooling_mode` 'auto' takes the checkpoint's own.

  That is what modules.json says, else [CLS] for gte, the mean for BERT and the
  last token for a decoder.
  Raises UserError for a network that we do not have, and where max_tokens or
  layer are more than it has.
  """
  ckpt = checkpoint.open_checkpoint(name)
  is_encoder = ckpt.config.get('model_type') in encoder_config.MODEL_TYPES
  try:
    if is_encoder:
      model, tensors = encoder_config.from_hf(ckpt.config), ckpt.tensors
      catalog.check(name, model)
    else:
      model, tensors = _headless_decoder(ckpt)
    if pooling_mode == 'auto':
      pooling_mode = pooling.read_mode(ckpt.path, _default_pooling(model))
    tokens = tokenizer.load_tokenizer(ckpt.path)
    keeps_case = tokens.encode('A') != tokens.encode('a')
    if keeps_case and pooling.lower_cases(ckpt.path):
      raise errors.UserError(
        f'{ckpt.path} lower-cases texts, but its tokenizer does not.'
      )
  except errors.UserError as error:
    raise errors.UserError(
      f'embed.encoder={name}: {error} Or set '
      'embed.backend=sentence-transformers, which runs any model of that '
      "library (pip install 'erp_jax[st]')."
    ) from error
  if max_tokens > model.max_position:
    raise errors.UserError(
      f'embed.max_tokens is {max_tokens}, but {name} has '
      f'{model.max_position} positions: choose at most that.'
    )
  if layer >= model.num_layers:
    raise errors.UserError(
      f'embed.layer is {layer}, but {name} has {model.num_layers} layers: '
      'choose one before the last, or 0 for the last.'
    )
  read = encoder.load if is_encoder else _load_decoder
  return Network(
    model=model,
    pooling_mode=pooling_mode,
    max_tokens=max_tokens,
    batch_tokens=batch_tokens,
    layer=layer,
    _params=read(model, tensors, jnp.dtype(dtype)),
    _tokenizer=tokens,
    _num_ending=_num_ending(tokens),
  )


def _headless_decoder(
  ckpt: checkpoint.Checkpoint,
) -> tuple[decoder.DecoderConfig, Mapping[str, Any]]:
  """A decoder without its head, which a vector does not need, and tensors."""
  # Saved without a head to begin with; then some configs say so, some don't.
  if 'embed_tokens.weight' in ckpt.tensors:
    named = (ckpt.config.get('architectures') or [''])[0]
    if named.endswith('Model'):
      named = named.removesuffix('Model') + 'ForCausalLM'
    ckpt = dataclasses.replace(
      ckpt,
      config={**ckpt.config, 'architectures': [named]},
      tensors={f'model.{key}': value for key, value in ckpt.tensors.items()},
    )
  model, tensors = checkpoint.decoder_tensors(ckpt)
  return dataclasses.replace(model, tied=True, num_labels=0), tensors


def _load_decoder(
  model: decoder.DecoderConfig,
  tensors: Mapping[str, Any],
  dtype: jax.typing.DTypeLike,
) -> Any:
  weights = decoder_weights.declare(model)
  params = params_lib.load(weights, tensors, dtype, _UNUSED)
  return params | {'layers': bits.pack(params['layers'])}


def _default_pooling(
  model: encoder.EncoderConfig | decoder.DecoderConfig,
) -> str:
  """What sentence-transformers falls back on; it knows nothing of gte's."""
  if isinstance(model, decoder.DecoderConfig):
    return 'last'
  return 'cls' if model.gated else 'mean'


def _num_ending(tokens: tokenizer.Tokenizer) -> int:
  """How many tokens the tokenizer puts after every text: BERT's [SEP]."""
  plain, full = tokens.encode('a'), tokens.encode('a', special=True)
  num_added = len(full) - len(plain)
  starts = (full[i : i + len(plain)] == plain for i in range(num_added + 1))
  return num_added - list(starts).index(True)


def _cut(row: list[int], max_tokens: int, num_ending: int) -> list[int]:
  """A row without what is too long before its ending."""
  if len(row) <= max_tokens:
    return row
  return row[: max_tokens - num_ending] + row[len(row) - num_ending :]


@functools.partial(jax.jit, static_argnames=('model', 'mode', 'layer'))
def _forward(params, model, mode, layer, token_BT, valid_BT):
  if isinstance(model, decoder.DecoderConfig):
    # Padding needs no mask: it lies on the right, where no token looks.
    x_BTD, _ = decoder.prefill(params, model, token_BT, num_layers=layer)
  else:
    x_BTD = encoder.encode(params, model, token_BT, valid_BT, layer)
  return pooling.pool(x_BTD, valid_BT, mode)
