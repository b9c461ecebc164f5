"""SentencePiece models: the .model file, and the pieces in any file.

The file is one protobuf message, ModelProto of google/sentencepiece,
src/sentencepiece_model.proto; the few fields that matter are read here, so
that neither sentencepiece nor protobuf is needed.
"""

import dataclasses
import pathlib
import struct
from collections.abc import Iterator, Sequence

from erp_jax.core import errors

# Kinds of pieces; GGUF's tokenizer.ggml.token_type has the same numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

SPACE = '▁'  # What stands for a space inside pieces.

_UNIGRAM, _BPE = 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """A SentencePiece vocabulary and what is done to text before it is cut.

  Attributes:
    pieces: by id.
    scores: by id; of merges (higher is earlier), or log-probabilities.
    kinds: by id.
    is_unigram: cut by the likeliest path; else by merges (BPE).
    adds_space: a space goes before the text.
    cleans_spaces: those around the text go, several become one.
    charsmap: compiled rules of normalisation; empty for none.
  """

  pieces: Sequence[str]
  scores: Sequence[float]
  kinds: Sequence[int]
  is_unigram: bool = False
  adds_space: bool = True
  cleans_spaces: bool = False
  charsmap: bytes = b''


def read(path: pathlib.Path) -> Model:
  """The model in a file.

  Raises UserError if it is no SentencePiece file, or neither BPE nor Unigram.
  """
  try:
    return _read(path)
  except (IndexError, TypeError, ValueError, struct.error) as error:
    if isinstance(error, errors.UserError):
      raise
    raise errors.UserError(
      f'{path} is not a SentencePiece model ({error}): fetch it again, or '
      'tokenizer.json instead.'
    ) from error


def _read(path: pathlib.Path) -> Model:
  pieces, scores, kinds = [], [], []
  model_type = _UNIGRAM
  adds_space = cleans_spaces = True
  charsmap = b''
  for number, value in _fields(memoryview(path.read_bytes())):
    if number == 1:
      piece, score, kind = '', 0.0, NORMAL
      for inner, item in _fields(value):
        if inner == 1:
          piece = str(item, 'utf-8')
        elif inner == 2:
          (score,) = struct.unpack('<f', item)
        elif inner == 3:
          kind = item
      pieces.append(piece)
      scores.append(score)
      kinds.append(kind)
    elif number == 2:  # TrainerSpec.
      model_type = dict(_fields(value)).get(3, _UNIGRAM)
    elif number == 3:  # NormalizerSpec.
      spec = dict(_fields(value))
      charsmap = bytes(spec.get(2, b''))
      adds_space = bool(spec.get(3, True))
      cleans_spaces = bool(spec.get(4, True))
  if model_type not in (_UNIGRAM, _BPE) or not pieces:
    raise errors.UserError(
      f'{path} has {len(pieces)} pieces of model type {model_type}; supported '
      'are 1 (Unigram) and 2 (BPE): fetch tokenizer.json instead.'
    )
  return Model(
    pieces=pieces,
    scores=scores,
    kinds=kinds,
    is_unigram=model_type == _UNIGRAM,
    adds_space=adds_space,
    cleans_spaces=cleans_spaces,
    charsmap=charsmap,
  )


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
  """Field numbers and values of a message: whole numbers, or bytes."""
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    wire = tag & 7
    if wire == 0:
      value, at = _varint(data, at)
    else:
      if wire == 2:
        size, at = _varint(data, at)
      else:
        size = {1: 8, 5: 4}.get(wire, -1)
      if not 0 <= size <= len(data) - at:
        raise ValueError(f'a field of wire type {wire} ends outside')
      value = data[at : at + size]
      at += size
    yield tag >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = data[at]
    at += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, at
    shift += 7
