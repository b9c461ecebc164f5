"""Reward models by kind: (prompt, response) -> reward.

Each is a function of prompts and their responses; what decides its values is
in `RewardConfig`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.data import prompts as prompts_lib
from erp_jax.score import reader as reader_lib
from erp_jax.score import verify

KINDS = ('verify', 'relevance', 'judge')
_NEUTRAL_PER_BATCH = 32

# Per prompt, the rewards of its responses, float32 and maybe not finite.
Scores = list[np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """One reward model."""

  kind: str = 'verify'  # verify, relevance or judge.
  model: str = ''  # The decoder of relevance and judge.
  dtype: str = 'bfloat16'  # Of its weights and matmuls.
  max_responses: int = 0  # Scored per prompt and arm; 0 is all of them.
  neutral_prompt: str = 'Write something.'  # relevance is measured against it.
  question: str = (  # What the judge answers with Yes or No.
    'Is the answer correct, helpful and complete? Reply Yes or No.'
  )
  batch_tokens: int = 4096  # Positions read at once.
  shard_prompts: int = 64  # Prompts per shard: what a kill can lose.

  def __post_init__(self):
    if self.kind not in KINDS:
      raise errors.UserError(
        f'rewards.NAME.kind {self.kind!r} is unknown; allowed: '
        f'{", ".join(KINDS)}.'
      )
    if (self.kind == 'verify') != (not self.model):
      raise errors.UserError(
        f'rewards.NAME.model is {self.model!r} for kind {self.kind!r}: '
        'relevance and judge need a decoder, verify takes none.'
      )
    if self.dtype not in ('bfloat16', 'float32'):
      raise errors.UserError(
        f'rewards.NAME.dtype must be bfloat16 or float32, got {self.dtype!r}.'
      )
    if (
      self.max_responses < 0 or self.shard_prompts < 1 or self.batch_tokens < 1
    ):
      raise errors.UserError(
        'rewards.NAME needs max_responses >= 0, shard_prompts >= 1 and '
        f'batch_tokens >= 1, got {self.max_responses}, {self.shard_prompts} '
        f'and {self.batch_tokens}.'
      )


def scorer(cfg: RewardConfig) -> Callable[..., Scores]:
  """`score(prompts, texts, advance)` of this reward model, weights loaded.

  `texts` holds each prompt's responses; `advance(n, positions=0)` is told of
  every pass over n responses (`passes` of them each) and of positions read.
  """
  if cfg.kind == 'verify':
    return _verify
  reader = reader_lib.load(cfg.model, cfg.dtype, cfg.batch_tokens)
  score = {'relevance': _relevance, 'judge': _judge}[cfg.kind]
  return lambda prompts, texts, advance: score(
    reader, cfg, prompts, texts, advance
  )


def check_prompts(
  rewards: Iterable[RewardConfig], prompts: Iterable[prompts_lib.Prompt]
) -> None:
  """UserError naming a prompt whose checks `verify` could not read."""
  if any(cfg.kind == 'verify' for cfg in rewards):
    for prompt in prompts:
      if prompt.checks:
        verify.validate_checks(prompt.checks, f'prompt {prompt.id!r}')


def passes(cfg: RewardConfig) -> int:
  """How often each response is read."""
  return 2 if cfg.kind == 'relevance' else 1


def _verify(
  prompts: Sequence[prompts_lib.Prompt],
  texts: Sequence[Sequence[str]],
  advance: Callable[..., None],
) -> Scores:
  """Share of a prompt's checks that each response passes, in [0, 1].

  NaN where the prompt has nothing to check.
  """
  out = []
  for prompt, responses in zip(prompts, texts, strict=True):
    out.append(
      np.array(
        [
          verify.verify(prompt.checks, text) if prompt.checks else np.nan
          for text in responses
        ],
        np.float32,
      )
    )
    advance(len(responses))
  return out


def _relevance(
  reader: reader_lib.Reader,
  cfg: RewardConfig,
  prompts: Sequence[prompts_lib.Prompt],
  texts: Sequence[Sequence[str]],
  advance: Callable[..., None],
) -> Scores:
  """Mean log p(response | prompt) − mean log p(response | neutral prompt).

  In nats per token; NaN for an empty response.
  """
  tokenizer = reader.tokenizer
  neutral = tokenizer.render_ids(cfg.neutral_prompt)
  own, flat = [], []
  for prompt, responses in zip(prompts, texts, strict=True):
    ids = tokenizer.render_ids(prompt.prompt)
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
    reader.mean_logprob(
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
  for value in reader.mean_logprob(own, advance):
    out.append(value - against[start : start + len(value)])
    start += len(value)
  return out


def _judge(
  reader: reader_lib.Reader,
  cfg: RewardConfig,
  prompts: Sequence[prompts_lib.Prompt],
  texts: Sequence[Sequence[str]],
  advance: Callable[..., None],
) -> Scores:
  """logit("Yes") − logit("No") of the decoder asked about each response."""
  yes, no = (_single_id(reader, word) for word in ('Yes', 'No'))
  groups = []
  for prompt, responses in zip(prompts, texts, strict=True):
    ids = [
      reader.tokenizer.render_ids(
        f'Question: {prompt.prompt}\n\nAnswer: {text}\n\n{cfg.question}'
      )
      for text in responses
    ]
    shared = _common_prefix(ids)
    groups.append(reader_lib.Group(ids[0][:shared], [x[shared:] for x in ids]))
  return reader.yes_minus_no(groups, yes, no, advance)


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
  """How many leading ids all share, each keeping at least one of its own."""
  longest = min(map(len, sequences)) - 1
  for i in range(longest):
    if len({x[i] for x in sequences}) > 1:
      return i
  return longest


def _single_id(reader: reader_lib.Reader, word: str) -> int:
  ids = reader.tokenizer.encode(word)
  if len(ids) != 1:
    raise errors.UserError(
      f'the judge needs {word!r} as one token, but this tokenizer makes '
      f'{len(ids)} of it: choose another rewards.NAME.model.'
    )
  return ids[0]
