"""Tokenizers of GGUF files.

The file names its kind: byte-level BPE with merges ('gpt2') and a rule, `pre`,
of how text is cut before them, or a SentencePiece vocabulary with scores
('llama'). What the file does not say follows the original checkpoints.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from erp_jax.core import errors
from erp_jax.models import chat_template, gguf_file, sentencepiece_core
from erp_jax.models import sentencepiece_file as spm

# Tokens that chat templates may name -> their keys in the file.
_TOKENS = {
  'bos_token': 'bos_token_id',
  'eos_token': 'eos_token_id',
  'unk_token': 'unknown_token_id',
  'pad_token': 'padding_token_id',
}

# Words with one mark before them, numerals one by one, runs of marks with the
# line ends after them, line ends, spaces but the last.
_QWEN2 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
  r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)

# `pre` -> normalisation and how text is cut before the merges.
_PRE = {
  'qwen2': lambda: (
    normalizers.NFC(),
    [
      pre_tokenizers.Split(tokenizers.Regex(_QWEN2), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
  ),
  'smollm': lambda: (
    normalizers.Sequence([]),
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
  ),
}


def load(
  path: pathlib.Path,
) -> tuple[tokenizers.Tokenizer, chat_template.ChatTemplate, list[int]]:
  """The program, the chat template and the ids that end a response.

  Raises UserError for a tokenizer of another kind.
  """
  fields = {
    key.removeprefix('tokenizer.ggml.'): value
    for key, value in gguf_file.GgufFile(path).metadata.items()
    if key.startswith('tokenizer.')
  }
  model, pre = fields.get('model'), fields.get('pre')
  if model == 'llama':
    core = _sentencepiece(fields)
  elif model == 'gpt2' and pre in _PRE:
    core = _byte_level(fields)
  else:
    raise errors.UserError(
      f'{path} has a tokenizer of model {model!r}, pre {pre!r}; supported are '
      f"'llama', and 'gpt2' with pre {', '.join(map(repr, _PRE))}: use the "
      "checkpoint's folder of safetensors instead."
    )
  vocabulary = fields['tokens']
  tokens = {
    name: vocabulary[fields[key]]
    for name, key in _TOKENS.items()
    if key in fields
  }
  # Older files do not say whether text starts with <s>; SentencePiece's do.
  has_bos = fields.get('add_bos_token', model == 'llama')
  has_eos = fields.get('add_eos_token', False)
  sentencepiece_core.surround(
    core,
    first=[tokens['bos_token']] if has_bos else [],
    last=[tokens['eos_token']] if has_eos else [],
  )
  source = fields.get('tokenizer.chat_template') or chat_template.NONE
  template = chat_template.ChatTemplate(source=source, tokens=tokens)
  end_ids = [fields['eos_token_id']] if 'eos_token_id' in fields else []
  return core, template, end_ids


def _sentencepiece(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
  kinds = fields['token_type']
  return sentencepiece_core.build(
    spm.Model(
      pieces=[
        # Runs of spaces are written as such where the user defined them.
        piece.replace(' ', spm.SPACE) if kind == spm.USER_DEFINED else piece
        for piece, kind in zip(fields['tokens'], kinds, strict=True)
      ],
      scores=fields['scores'],
      kinds=kinds,
      adds_space=fields.get('add_space_prefix', True),
    )
  )


def _byte_level(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
  tokens = list(zip(fields['tokens'], fields['token_type'], strict=True))
  core = tokenizers.Tokenizer(
    models.BPE(
      # Unused ones fill up the rows of the embedding table.
      vocab={
        token: i for i, (token, kind) in enumerate(tokens) if kind != spm.UNUSED
      },
      merges=[tuple(merge.split(' ')) for merge in fields['merges']],
    )
  )
  core.normalizer, steps = _PRE[fields['pre']]()
  core.pre_tokenizer = pre_tokenizers.Sequence(steps)
  core.decoder = decoders.ByteLevel()
  core.add_tokens(
    [
      tokenizers.AddedToken(
        token, special=kind == spm.CONTROL, normalized=False
      )
      for token, kind in tokens
      if kind in (spm.CONTROL, spm.USER_DEFINED)
    ]
  )
  return core
