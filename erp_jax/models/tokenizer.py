"""Tokenizers of checkpoints: text, or a conversation, to ids and back.

Built with `tokenizers` from tokenizer.json, or from the vocabulary of a GGUF
file. What a user writes is always text: only a chat template (and `special`)
yields control tokens, see `Tokenizer.render_ids`.
"""

import pathlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from erp_jax.core import errors
from erp_jax.models import chat_template, gguf_file, json_file

# Tokens that end a turn or a text. Configs often list only one of them:
# gemma-7b-it lacks <end_of_turn>, Qwen2.5's tokenizer lacks <|endoftext|>.
STOP_TOKENS = (
  *('<|im_end|>', '<|endoftext|>', '<end_of_turn>'),
  *('<|eot_id|>', '<|eom_id|>', '<|end_of_text|>'),
)

# Tokens that chat templates may name -> their keys in GGUF files.
_GGUF_TOKENS = {
  'bos_token': 'tokenizer.ggml.bos_token_id',
  'eos_token': 'tokenizer.ggml.eos_token_id',
  'unk_token': 'tokenizer.ggml.unknown_token_id',
  'pad_token': 'tokenizer.ggml.padding_token_id',
}

# GGUF tokenizer.ggml.token_type.
_CONTROL, _USER_DEFINED = 3, 4

# GGUF tokenizer.ggml.pre -> how text is cut before the merges.
_PRE_TOKENIZERS = {
  'smollm': lambda: [
    pre_tokenizers.Digits(individual_digits=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False),
  ],
}


class Tokenizer:
  """Text to ids and back, for one checkpoint.

  Attributes:
    vocab_size: ids from here on are padding rows of the embedding table: no
      text has them, and a sampler must mask them.
    stop_ids: sorted ids that end a response: those of the checkpoint's configs
      (a list or one id; GGUF's eos) and its tokens among STOP_TOKENS.
  """

  def __init__(
    self,
    core: tokenizers.Tokenizer,
    template: chat_template.ChatTemplate,
    end_ids: Sequence[int],
  ):
    core.no_truncation()
    core.no_padding()
    # Special tokens' strings in a text are text.
    core.encode_special_tokens = True
    added = core.get_added_tokens_decoder()
    special = {t.content: i for i, t in added.items() if t.special}
    named = [special[token] for token in STOP_TOKENS if token in special]
    self.vocab_size = 1 + max(core.get_vocab().values())
    self.stop_ids = tuple(sorted({*end_ids, *named}))
    self._core = core
    self._template = template
    # Templates' control tokens are told from the same strings in a message by
    # names that nobody can guess: a message's become guards while the template
    # runs, then the template's become aliases that the core tokenizer knows.
    nonce = secrets.token_hex(8)
    self._special = re.compile('|'.join(map(re.escape, special)) or '(?!)')
    self._guards = {t: f'<{nonce}-{i}>' for t, i in special.items()}
    self._guarded = {guard: t for t, guard in self._guards.items()}
    self._guard = re.compile(f'<{nonce}-[0-9]+>')
    self._aliases = {t: f'<{nonce}+{i}>' for t, i in special.items()}
    core.add_tokens(
      [
        tokenizers.AddedToken(
          self._aliases[token],
          normalized=False,
          lstrip=added[i].lstrip,
          rstrip=added[i].rstrip,
        )
        for token, i in special.items()
      ]
    )
    self._aliased = {
      core.token_to_id(alias): special[token]
      for token, alias in self._aliases.items()
    }

  def encode(self, text: str, special: bool = False) -> list[int]:
    """Ids of a text, in which no string stands for a control token.

    Args:
      text: any text.
      special: adds the tokens that the tokenizer puts around every text (BERT's
        [CLS] and [SEP], Llama's beginning of text).
    """
    return self._core.encode(text, add_special_tokens=special).ids

  def encode_batch(
    self, texts: Sequence[str], special: bool = False
  ) -> list[list[int]]:
    """`encode` of each text, on all cores."""
    batch = self._core.encode_batch_fast(texts, add_special_tokens=special)
    return [encoding.ids for encoding in batch]

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids; control tokens are left out, broken UTF-8 becomes U+FFFD."""
    return self._core.decode(ids, skip_special_tokens=True)

  def chat(
    self,
    prompt: str | Sequence[chat_template.Message],
    system_prompt: str = '',
    generation_prompt: bool = True,
    thinking: str = 'default',
  ) -> str:
    """Text of a conversation, to look at; for ids, use `render_ids`.

    Args:
      prompt: what the user says, or messages with 'role' and 'content'.
      system_prompt: empty for the template's default.
      generation_prompt: ends with the head of the answer's turn.
      thinking: 'off' or 'on' for templates that have the switch.
    """
    messages = chat_template.conversation(prompt, system_prompt)
    return self._template.render(messages, generation_prompt, thinking)

  def render_ids(
    self,
    prompt: str | Sequence[chat_template.Message],
    system_prompt: str = '',
    generation_prompt: bool = True,
    thinking: str = 'default',
  ) -> list[int]:
    """Ids of `chat`: the template's control tokens and the messages' text.

    The template writes the beginning of text where there is one, so no other
    is added. A control token's string inside a message is encoded as text, as
    if the vocabulary lacked that token: nobody can open or end a turn. That
    does not hold for added tokens that are not flagged special (Qwen's
    <tool_call> and <think>): the checkpoint means them to be writable.
    """
    messages = [
      {**message, 'content': _replace(self._special, self._guards, content)}
      for message in chat_template.conversation(prompt, system_prompt)
      for content in [message['content']]
    ]
    text = self._template.render(messages, generation_prompt, thinking)
    text = _replace(self._special, self._aliases, text)
    text = _replace(self._guard, self._guarded, text)
    return [self._aliased.get(i, i) for i in self.encode(text)]


def load_tokenizer(path: pathlib.Path | str) -> Tokenizer:
  """Tokenizer of a checkpoint: a folder with tokenizer.json, or a GGUF file.

  Args:
    path: local; a folder may also hold one GGUF file and no tokenizer.json.

  Raises UserError if there is neither, or if one of its files is damaged.
  """
  path = pathlib.Path(path)
  if path.suffix == '.gguf':
    return _load_gguf(path)
  if (path / 'tokenizer.json').exists():
    return _load_json(path)
  files = sorted(path.glob('*.gguf'))
  if len(files) == 1:
    return _load_gguf(files[0])
  raise errors.UserError(
    f'{path} holds no tokenizer: tokenizer.json or one .gguf file is needed, '
    f'it has {len(files)} .gguf files.'
  )


def _load_json(folder: pathlib.Path) -> Tokenizer:
  path = folder / 'tokenizer.json'
  # Read here first: `tokenizers` raises a bare Exception for what is not JSON.
  json_file.read(path)
  core = tokenizers.Tokenizer.from_file(str(path))
  config = _read_json(folder / 'tokenizer_config.json')
  tokens = {
    name: token if isinstance(token, str) else token['content']
    for name in _GGUF_TOKENS
    if (token := config.get(name))
  }
  end_ids = set()
  for name in ('generation_config.json', 'config.json'):
    value = _read_json(folder / name).get('eos_token_id') or []
    end_ids.update([value] if isinstance(value, int) else value)
  if 'eos_token' in tokens:
    end_ids.add(core.token_to_id(tokens['eos_token']))
  path = folder / 'chat_template.jinja'
  source = path.read_text() if path.exists() else config.get('chat_template')
  template = _template(source, tokens)
  return Tokenizer(core, template, sorted(end_ids))


def _load_gguf(path: pathlib.Path) -> Tokenizer:
  fields = gguf_file.GgufFile(path).metadata
  model = fields.get('tokenizer.ggml.model')
  pre = fields.get('tokenizer.ggml.pre')
  if model != 'gpt2' or pre not in _PRE_TOKENIZERS:
    raise errors.UserError(
      f'{path} has a tokenizer of model {model!r}, pre {pre!r}; supported is '
      f"'gpt2' with pre {', '.join(map(repr, _PRE_TOKENIZERS))}: use the "
      "checkpoint's folder of safetensors instead."
    )
  vocabulary = fields['tokenizer.ggml.tokens']
  merges = [tuple(m.split(' ')) for m in fields['tokenizer.ggml.merges']]
  core = tokenizers.Tokenizer(
    models.BPE(vocab={t: i for i, t in enumerate(vocabulary)}, merges=merges)
  )
  core.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[pre]())
  core.decoder = decoders.ByteLevel()
  kinds = fields['tokenizer.ggml.token_type']
  for token, kind in zip(vocabulary, kinds, strict=True):
    if kind in (_CONTROL, _USER_DEFINED):
      special = kind == _CONTROL
      added = tokenizers.AddedToken(token, special=special, normalized=False)
      core.add_tokens([added])
  tokens = {
    name: vocabulary[fields[key]]
    for name, key in _GGUF_TOKENS.items()
    if key in fields
  }
  source = fields.get('tokenizer.chat_template')
  template = _template(source, tokens)
  eos_key = _GGUF_TOKENS['eos_token']
  end_ids = [fields[eos_key]] if eos_key in fields else []
  return Tokenizer(core, template, end_ids)


def _template(
  source: Any, tokens: Mapping[str, str]
) -> chat_template.ChatTemplate:
  if isinstance(source, list):  # Several, by name.
    source = {item['name']: item['template'] for item in source}['default']
  return chat_template.ChatTemplate(
    source=source or chat_template.NONE, tokens=tokens
  )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  return json_file.read(path) if path.exists() else {}


def _replace(
  pattern: re.Pattern, replacements: Mapping[str, str], text: str
) -> str:
  return pattern.sub(lambda match: replacements[match[0]], text)
