"""Tokenizers of checkpoints: text, or a conversation, to ids and back.

What a user writes is always text: only a chat template (and `special`) yields
control tokens, see `Tokenizer.render_ids`.
"""

import pathlib
import re
import secrets
from collections.abc import Mapping, Sequence

import tokenizers

from erp_jax.core import errors
from erp_jax.models import chat_template, folder_tokenizer, gguf_tokenizer

# Tokens that end a turn or a text. Configs often list only one of them:
# gemma-7b-it lacks <end_of_turn>, Qwen2.5's tokenizer lacks <|endoftext|>.
STOP_TOKENS = (
  *('<|im_end|>', '<|endoftext|>', '<end_of_turn>'),
  *('<|eot_id|>', '<|eom_id|>', '<|end_of_text|>'),
)


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
  """Tokenizer of a checkpoint: of a folder, or a GGUF file.

  Args:
    path: local; a folder holds tokenizer.json, a SentencePiece model
      (tokenizer.model or spm.model) or one GGUF file: the first that is there.

  Raises UserError if there is none, or if one of its files is damaged.
  """
  path = pathlib.Path(path)
  if path.suffix == '.gguf':
    return Tokenizer(*gguf_tokenizer.load(path))
  if folder_tokenizer.holds_one(path):
    return Tokenizer(*folder_tokenizer.load(path))
  files = sorted(path.glob('*.gguf'))
  if len(files) == 1:
    return Tokenizer(*gguf_tokenizer.load(files[0]))
  raise errors.UserError(
    f'{path} holds no tokenizer: tokenizer.json, '
    f'{", ".join(folder_tokenizer.SENTENCEPIECE_FILES)} or one .gguf file is '
    f'needed, it has {len(files)} .gguf files.'
  )


def _replace(
  pattern: re.Pattern, replacements: Mapping[str, str], text: str
) -> str:
  return pattern.sub(lambda match: replacements[match[0]], text)
