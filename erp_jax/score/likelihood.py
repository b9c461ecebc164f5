"""Rewards that any language model gives: `relevance` and `judge`."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.score import reader as reader_lib

_NEUTRAL_PER_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Relevance:
  """Mean log p(response | prompt) − mean log p(response | neutral prompt).

  Attributes:
    num_cut: nothing is cut; what is too long is an error.
  """

  reader: reader_lib.Reader
  neutral_prompt: str
  num_cut: int = 0

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """In nats per token; NaN for an empty response."""
    tokenizer = self.reader.tokenizer
    neutral = tokenizer.render_ids(self.neutral_prompt)
    own, flat = [], []
    for prompt, responses in zip(prompts, texts, strict=True):
      ids = tokenizer.render_ids(prompt)
      bodies = [tokenizer.encode(text) for text in responses]
      own.append(
        reader_lib.Group(ids[:-1], [[ids[-1], *body] for body in bodies])
      )
      flat += [[neutral[-1], *body] for body in bodies]
    # By length, so that a batch of the neutral prompt has little padding.
    order = sorted(range(len(flat)), key=lambda i: (len(flat[i]), i))
    chunks = [
      order[i : i + _NEUTRAL_PER_BATCH]
      for i in range(0, len(order), _NEUTRAL_PER_BATCH)
    ]
    against = np.empty(len(flat), np.float32)
    for chunk, value in zip(
      chunks,
      self.reader.mean_logprob(
        [
          reader_lib.Group(neutral[:-1], [flat[i] for i in chunk])
          for chunk in chunks
        ],
        advance,
      ),
      strict=True,
    ):
      against[chunk] = value
    out, start = [], 0
    for value in self.reader.mean_logprob(own, advance):
      out.append(value - against[start : start + len(value)])
      start += len(value)
    return out


def asked(prompt: str, text: str, question: str) -> str:
  """What a judge is asked about a response."""
  return f'Question: {prompt}\n\nAnswer: {text}\n\n{question}'


@dataclasses.dataclass(frozen=True)
class Judge:
  """logit("Yes") − logit("No") of the decoder asked about each response.

  Attributes:
    num_cut: nothing is cut; what is too long is an error.
  """

  reader: reader_lib.Reader
  question: str
  num_cut: int = 0

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """In logits."""
    yes, no = (self._single_id(word) for word in ('Yes', 'No'))
    groups = [
      reader_lib.group(
        [
          self.reader.tokenizer.render_ids(asked(prompt, text, self.question))
          for text in responses
        ]
      )
      for prompt, responses in zip(prompts, texts, strict=True)
    ]
    return self.reader.yes_minus_no(groups, yes, no, advance)

  def _single_id(self, word: str) -> int:
    ids = self.reader.tokenizer.encode(word)
    if len(ids) != 1:
      raise errors.UserError(
        f'the judge needs {word!r} as one token, but this tokenizer makes '
        f'{len(ids)} of it: choose another rewards.NAME.model.'
      )
    return ids[0]


def load(
  kind: str, model: str, dtype: str, batch_tokens: int, text: str
) -> Relevance | Judge:
  """The reward `kind`; `text` is its neutral prompt or its question.

  Raises UserError for a checkpoint that is no language model.
  """
  reader = reader_lib.load(model, dtype, batch_tokens)
  if reader.cfg.num_labels:
    raise errors.UserError(
      f'rewards.NAME.model is {model!r}, a reward model, but kind {kind!r} '
      "needs a language model: set rewards.NAME.kind='reward_model'."
    )
  return {'relevance': Relevance, 'judge': Judge}[kind](reader, text)
