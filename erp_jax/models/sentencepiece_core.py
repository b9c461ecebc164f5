"""SentencePiece vocabularies as `tokenizers` programs.

The same ids as transformers' conversions of the same models: merges are made
from scores, characters without a piece become bytes (BPE) or the unknown token
(Unigram).
"""

from collections.abc import Sequence

import tokenizers
from tokenizers import (
  AddedToken,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from erp_jax.models import sentencepiece_file as spm

# Of pieces that text must not match: far below what it costs to spell them,
# where their characters are pieces too (as those of [CLS] are).
UNWRITABLE = -1e4

_SPECIAL = (spm.UNKNOWN, spm.CONTROL)


def build(model: spm.Model) -> tokenizers.Tokenizer:
  """Tokenizer of a vocabulary; it puts nothing around the text.

  Control and unknown pieces are its special tokens.
  """
  core = _unigram(model) if model.is_unigram else _bpe(model)
  core.add_tokens(
    [
      AddedToken(piece, special=kind in _SPECIAL, normalized=False)
      for piece, kind in zip(model.pieces, model.kinds, strict=True)
      if kind in (*_SPECIAL, spm.USER_DEFINED)
    ]
  )
  return core


def surround(
  core: tokenizers.Tokenizer, first: Sequence[str], last: Sequence[str]
) -> None:
  """Makes `core` put tokens around every text.

  A second text of a pair has `last` after it, too; `first` before it where
  there is no `last` to part the two.
  """
  if not (first or last):
    return
  between = [] if last else first
  core.post_processor = processors.TemplateProcessing(
    single=[*first, '$A', *last],
    pair=[
      *(*first, '$A', *last),
      *(f'{item}:1' for item in (*between, '$B', *last)),
    ],
    special_tokens=[(t, core.token_to_id(t)) for t in {*first, *last}],
  )


def _bpe(model: spm.Model) -> tokenizers.Tokenizer:
  unknown = [
    piece
    for piece, kind in zip(model.pieces, model.kinds, strict=True)
    if kind == spm.UNKNOWN
  ]
  core = tokenizers.Tokenizer(
    models.BPE(
      vocab={piece: i for i, piece in enumerate(model.pieces)},
      merges=_merges(model),
      unk_token=unknown[0] if unknown else None,
      fuse_unk=True,
      byte_fallback=spm.BYTE in model.kinds,
    )
  )
  steps = _cleaning(model)
  if model.adds_space:
    steps.append(normalizers.Prepend(spm.SPACE))
  steps.append(normalizers.Replace(' ', spm.SPACE))
  core.normalizer = normalizers.Sequence(steps)
  undo = [decoders.Replace(spm.SPACE, ' '), decoders.ByteFallback()]
  undo.append(decoders.Fuse())
  if model.adds_space:
    undo.append(decoders.Strip(' ', 1, 0))
  core.decoder = decoders.Sequence(undo)
  return core


def _unigram(model: spm.Model) -> tokenizers.Tokenizer:
  readable = (spm.NORMAL, spm.USER_DEFINED)
  core = tokenizers.Tokenizer(
    models.Unigram(
      [
        (piece, score if kind in readable else UNWRITABLE)
        for piece, score, kind in zip(
          model.pieces, model.scores, model.kinds, strict=True
        )
      ],
      unk_id=list(model.kinds).index(spm.UNKNOWN),
    )
  )
  core.normalizer = normalizers.Sequence(_cleaning(model))
  scheme = 'always' if model.adds_space else 'never'
  core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
  core.decoder = decoders.Metaspace(prepend_scheme=scheme)
  return core


def _cleaning(model: spm.Model) -> list[normalizers.Normalizer]:
  steps = []
  if model.cleans_spaces:
    steps.append(normalizers.Strip())
  if model.charsmap:
    steps.append(normalizers.Precompiled(model.charsmap))
  if model.cleans_spaces:
    steps.append(normalizers.Replace(tokenizers.Regex(' {2,}'), ' '))
  return steps


def _merges(model: spm.Model) -> list[tuple[str, str]]:
  """Pairs whose union is a piece, those of the best piece first."""
  order = {}
  for piece, score, kind in zip(
    model.pieces, model.scores, model.kinds, strict=True
  ):
    if kind == spm.USER_DEFINED:
      # Found before anything is merged: GGUF files give it any score.
      order[piece] = float('inf')
    elif kind == spm.NORMAL:
      order[piece] = score
  found = [
    (score, i, len(piece) - i, piece)
    for piece, score in order.items()
    for i in range(1, len(piece))
    if piece[:i] in order and piece[i:] in order
  ]
  # Two ways to the same piece: the longer first half is first.
  found.sort(key=lambda item: item[:3], reverse=True)
  return [(piece[:i], piece[i:]) for _, i, _, piece in found]
