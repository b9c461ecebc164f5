"""Reward models that read a conversation: decoders with a head `score`.

The user's and the assistant's turn are rendered by the checkpoint's template,
without the head of a further turn, and the score is that of the last token:
the newline after Gemma's <end_of_turn>, a token that InternLM2 has for it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.models import checkpoint, decoder_config
from erp_jax.score import reader as reader_lib

BOS = ('auto', 'template', 'doubled')
_MIN_TOKENS = 8
# Of internlm2-7b-reward and its kin; its text, [UNUSED_TOKEN_130], is tokenised
# into others.
_INTERNLM2_REWARD_ID = 92527
# The value head of GRM's sftreg models, which we do not have.
_VALUE_HEAD = 'v_head.summary'
# Last part of a published model's name -> beginnings of text, where its files
# don't say, with where that was read.
_KNOWN_BOS = {
  # Its template writes one. The authors' code (reward_models/load_datasets.py
  # and rm_eval/load_eval_datasets.py of YangRui2015/Generalizable-Reward-Model)
  # tokenises the rendered text as any other, which puts a second before it.
  'GRM-Gemma-2B-rewardmodel-ft': 'doubled',
}


@dataclasses.dataclass(frozen=True)
class Convention:
  """How a conversation becomes ids.

  Attributes:
    bos: beginnings of text: 'template' as the template has it, or 'doubled'.
    end_ids: appended, unless the conversation ends with them.
    max_tokens: in all; longer ones lose what follows the beginning of text.
  """

  bos: str
  end_ids: tuple[int, ...]
  max_tokens: int


@dataclasses.dataclass
class ConversationScorer:
  """A loaded reward model with its tokenizer.

  Attributes:
    bos_id: what begins a text, -1 if the model has no such token.
    num_cut: rows that the last call of `score` cut.
  """

  reader: reader_lib.Reader
  convention: Convention
  bos_id: int
  num_cut: int = 0

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """Rewards of each prompt's responses, float32: raw logits.

    What a prompt's conversations have in common is read once. Sets `num_cut`.
    """
    return self.reader.score(self.groups(prompts, texts), advance)

  def groups(
    self, prompts: Sequence[str], texts: Sequence[Sequence[str]]
  ) -> list[reader_lib.Group]:
    """Ids of each prompt's conversations; sets `num_cut`."""
    self.num_cut = 0
    return [
      reader_lib.group([self._row(prompt, text) for text in responses])
      for prompt, responses in zip(prompts, texts, strict=True)
    ]

  def has_bos(self) -> bool:
    """Whether the template writes a beginning of text."""
    return self._render('a', 'b')[0] == self.bos_id

  def _row(self, prompt: str, text: str) -> list[int]:
    """Ids of a conversation, at most max_tokens."""
    body = self._render(prompt, text)
    head = [self.bos_id] if body[0] == self.bos_id else []
    body = body[len(head) :]
    if self.convention.bos == 'doubled':
      head *= 2
    end = self.convention.end_ids
    if tuple(body[-len(end) :]) == end:
      end = ()
    room = self.convention.max_tokens - len(head) - len(end)
    if len(body) > room:
      self.num_cut += 1
      body = body[-room:]
    return [*head, *body, *end]

  def _render(self, prompt: str, text: str) -> list[int]:
    return self.reader.tokenizer.render_ids(
      [
        {'role': 'user', 'content': prompt},
        {'role': 'assistant', 'content': text},
      ],
      generation_prompt=False,
    )


def known_bos(model: str) -> str:
  """'doubled' or 'template', for a reward model by its name.

  The last part of the name decides, so that a copy in a folder, or one under
  another organisation, is read as the original.
  """
  name = model.rstrip('/').split('/')[-1].split('@')[0]
  return _KNOWN_BOS.get(name, 'template')


def convention(
  ckpt: checkpoint.Checkpoint, bos: str, max_tokens: int
) -> Convention:
  """What `bos` ('auto' goes by the name) and `max_tokens` (0: all) come to.

  Raises UserError for a checkpoint without a head of one score.
  """
  if ckpt.is_gguf:
    raise errors.UserError(
      f'rewards.NAME.model is {ckpt.name!r}, a GGUF file, which has no reward '
      'head: give a folder or hub id, or choose kind relevance or judge.'
    )
  value_head = [name for name in ckpt.tensors if name.startswith(_VALUE_HEAD)]
  if value_head:
    raise errors.UserError(
      f'{ckpt.name} holds {value_head[0]}, a value head of several layers, '
      'which is not supported: choose a checkpoint with score.weight (of the '
      'GRM models, those named rewardmodel-ft, not sftreg).'
    )
  cfg = decoder_config.from_hf(ckpt.config)
  if cfg.num_labels != 1:
    raise errors.UserError(
      f'{ckpt.name} is of architecture {ckpt.config["architectures"][0]} and '
      f'has {cfg.num_labels} scores, but a reward model has one: choose '
      'another, or a language model with kind relevance or judge.'
    )
  end_ids = ()
  if cfg.qkv_fused:  # InternLM2.
    end_ids = (ckpt.config.get('reward_token_id', _INTERNLM2_REWARD_ID),)
    if end_ids[0] >= cfg.vocab_size:
      raise errors.UserError(
        f'the reward token of {ckpt.name} is {end_ids[0]}, but it has '
        f'{cfg.vocab_size} tokens: set reward_token_id in its config.json.'
      )
  max_tokens = max_tokens or cfg.max_position
  if not _MIN_TOKENS <= max_tokens <= cfg.max_position:
    raise errors.UserError(
      f'rewards.NAME.max_tokens is {max_tokens}, but must be from '
      f'{_MIN_TOKENS} to the {cfg.max_position} positions of {ckpt.name}, or 0 '
      'for all of them.'
    )
  bos = known_bos(ckpt.name) if bos == 'auto' else bos
  return Convention(bos, end_ids, max_tokens)


def load(
  model: str, dtype: str, convention: Convention, batch_tokens: int
) -> ConversationScorer:
  """A ConversationScorer of the checkpoint named by `model`."""
  reader = reader_lib.load(model, dtype, batch_tokens)
  bos_id = checkpoint.open_checkpoint(model).config.get('bos_token_id')
  bos_id = -1 if bos_id is None else bos_id
  scorer = ConversationScorer(reader, convention, bos_id)
  if convention.bos == 'doubled' and not scorer.has_bos():
    raise errors.UserError(
      f"rewards.NAME.bos is 'doubled', but the chat template of {model} writes "
      "no beginning of text: set it to 'template'."
    )
  return scorer
