"""Tokenizers of checkpoint folders: tokenizer.json, or a SentencePiece model.

Both are completed from the configs beside them, which may name tokens that the
file itself lacks or has under a placeholder's name (InternLM2's <|im_start|>).
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from erp_jax.core import errors
from erp_jax.models import chat_template, json_file, sentencepiece_core
from erp_jax.models import sentencepiece_file as spm

# Files of SentencePiece models, as Llama's kin and DeBERTa name them.
SENTENCEPIECE_FILES = ('tokenizer.model', 'spm.model')

# Tokens that chat templates may name.
_ROLES = (
  *('bos_token', 'eos_token', 'unk_token', 'pad_token'),
  *('cls_token', 'sep_token', 'mask_token'),
)


def holds_one(folder: pathlib.Path) -> bool:
  """Whether `load` has something to read."""
  return any(
    (folder / name).exists()
    for name in ('tokenizer.json', *SENTENCEPIECE_FILES)
  )


def load(
  folder: pathlib.Path,
) -> tuple[tokenizers.Tokenizer, chat_template.ChatTemplate, list[int]]:
  """The program, the chat template and the ids that end a response.

  Raises UserError if a file is damaged or contradicts another.
  """
  config = _read(folder / 'tokenizer_config.json')
  named = _read(folder / 'special_tokens_map.json') | {
    key: value for key, value in config.items() if value is not None
  }
  tokens = {role: _string(named[role]) for role in _ROLES if role in named}
  added = _added_tokens(folder, named, tokens)
  path = folder / 'tokenizer.json'
  if path.exists():
    core = _from_json(path, added)
  else:
    core = _from_sentencepiece(folder, added, named, tokens)
  for token in added:
    found = core.token_to_id(token['content'])
    if found != token['id']:
      raise errors.UserError(
        f'{folder} gives token {token["content"]!r} the id {found}, but its '
        f'configs say {token["id"]}: the files are of different checkpoints; '
        'fetch them again.'
      )
  end_ids = set()
  for name in ('generation_config.json', 'config.json'):
    value = _read(folder / name).get('eos_token_id') or []
    end_ids.update([value] if isinstance(value, int) else value)
  if 'eos_token' in tokens:
    end_ids.add(core.token_to_id(tokens['eos_token']))
  path = folder / 'chat_template.jinja'
  source = path.read_text() if path.exists() else config.get('chat_template')
  if isinstance(source, list):  # Several, by name.
    source = {item['name']: item['template'] for item in source}['default']
  template = chat_template.ChatTemplate(
    source=source or chat_template.NONE, tokens=tokens
  )
  return core, template, sorted(end_ids)


def _added_tokens(
  folder: pathlib.Path, named: Mapping[str, Any], tokens: Mapping[str, str]
) -> list[dict[str, Any]]:
  """Tokens that the configs name, by id, as tokenizer.json writes them.

  Checkpoints saved before transformers 4.34 have added_tokens.json instead.
  """
  of_id = {int(i): t for i, t in named.get('added_tokens_decoder', {}).items()}
  if not of_id:
    others = named.get('additional_special_tokens', ())
    special = {*tokens.values(), *map(_string, others)}
    of_id = {
      i: {'content': content, 'special': content in special}
      for content, i in _read(folder / 'added_tokens.json').items()
    }
  flags = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
  return [
    {'id': i, 'content': token['content']}
    | {flag: token.get(flag, False) for flag in flags}
    for i, token in sorted(of_id.items())
  ]


def _from_json(
  path: pathlib.Path, added: Sequence[Mapping[str, Any]]
) -> tokenizers.Tokenizer:
  # Read here first: `tokenizers` raises a bare Exception for what is not JSON.
  program = json_file.read(path)
  listed = program.get('added_tokens', [])
  present = {token['content'] for token in listed}
  lacking = [token for token in added if token['content'] not in present]
  is_unigram = program['model'].get('type') == 'Unigram'
  if not (lacking or is_unigram):
    return tokenizers.Tokenizer.from_file(str(path))
  vocab = program['model']['vocab']
  listed = [*listed, *lacking]
  if is_unigram:
    for token in listed:
      if token['id'] < len(vocab):
        old, score = vocab[token['id']]
        if token['special']:
          # It is in the vocabulary with score 0, so text would match it.
          score = sentencepiece_core.UNWRITABLE
        vocab[token['id']] = [token['content'], score]
  else:
    piece_of = {i: piece for piece, i in vocab.items()}
    for token in lacking:
      if token['id'] in piece_of:
        del vocab[piece_of[token['id']]]
        vocab[token['content']] = token['id']
  program['added_tokens'] = sorted(listed, key=lambda token: token['id'])
  return tokenizers.Tokenizer.from_str(json.dumps(program))


def _from_sentencepiece(
  folder: pathlib.Path,
  added: Sequence[Mapping[str, Any]],
  named: Mapping[str, Any],
  tokens: Mapping[str, str],
) -> tokenizers.Tokenizer:
  """Of the first model in the folder, with what goes around every text."""
  path = next(p for n in SENTENCEPIECE_FILES if (p := folder / n).exists())
  core = sentencepiece_core.build(_extended(spm.read(path), added))
  if 'cls_token' in tokens and 'sep_token' in tokens:
    first, last = [tokens['cls_token']], [tokens['sep_token']]
  else:
    has_bos = 'bos_token' in tokens and named.get('add_bos_token', True)
    has_eos = 'eos_token' in tokens and named.get('add_eos_token', False)
    first = [tokens['bos_token']] if has_bos else []
    last = [tokens['eos_token']] if has_eos else []
  sentencepiece_core.surround(core, first, last)
  return core


def _extended(
  model: spm.Model, added: Sequence[Mapping[str, Any]]
) -> spm.Model:
  """The model with tokens renamed or appended."""
  pieces, kinds = list(model.pieces), list(model.kinds)
  scores = list(model.scores)
  for token in added:
    kind = spm.CONTROL if token['special'] else spm.USER_DEFINED
    if token['id'] >= len(pieces):
      pieces.append(token['content'])
      scores.append(0.0)
      kinds.append(kind)
    else:
      pieces[token['id']] = token['content']
      if kinds[token['id']] != spm.UNKNOWN:
        kinds[token['id']] = kind
  return dataclasses.replace(model, pieces=pieces, scores=scores, kinds=kinds)


def _read(path: pathlib.Path) -> dict[str, Any]:
  return json_file.read(path) if path.exists() else {}


def _string(token: str | Mapping[str, Any]) -> str:
  """As transformers 4 wrote tokens, or as 5 does."""
  return token if isinstance(token, str) else token['content']
