"""Reward models that read a prompt and a response as a pair: DeBERTa-v3.

Made for OpenAssistant/reward-model-deberta-v3-large-v2. Padding, batch and
order change a reward by rounding only.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes, sharding
from erp_jax.models import catalog, checkpoint, deberta
from erp_jax.models import params as params_lib
from erp_jax.models import tokenizer as tokenizer_lib

PAIRS = ('pair', 'joined')
_MIN_TOKENS = 5  # [CLS], two times [SEP], one of the prompt and the response.
_PER_DOUBLING = 8  # Widths of batches: a position costs more than a program.


@dataclasses.dataclass
class PairScorer:
  """A loaded reward model with its tokenizer.

  Attributes:
    pair: 'pair' reads `[CLS] prompt [SEP] response [SEP]`, as in training;
      'joined' `[CLS] prompt+response [SEP]` with nothing between the two, as
      RewardBench does (its template `raw`; with 2048 tokens).
    max_tokens: special ones included; longer rows are cut.
    batch_tokens: positions read at once, padding counted.
    num_cut: rows that the last call of `score` cut, for the manifest.
  """

  cfg: deberta.DebertaConfig
  params: Any
  tokenizer: tokenizer_lib.Tokenizer
  pair: str
  max_tokens: int
  batch_tokens: int
  num_cut: int = 0

  def __post_init__(self):
    self._tables = _tables(self.params, self.cfg)

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None] = lambda num_done, positions=0: None,
  ) -> list[np.ndarray]:
    """Rewards of each prompt's responses, float32: raw logits.

    Sets `num_cut`. `advance(n, positions=p)` is called when n more rows with p
    tokens are read.
    """
    rows = self._rows(prompts, texts)
    reward = np.empty(len(rows), np.float32)
    for indices, token_BT, valid_BT in shapes.fitted(
      rows, self.batch_tokens, self.max_tokens, _PER_DOUBLING
    ):
      reward_B = _reward(
        self.params, self._tables, self.cfg, token_BT, valid_BT
      )
      reward[indices] = sharding.fetch(reward_B)[: len(indices)]
      advance(len(indices), positions=int(valid_BT.sum()))
    ends = list(itertools.accumulate(len(responses) for responses in texts))
    return [reward[i:j] for i, j in zip([0, *ends], ends, strict=False)]

  def _rows(
    self, prompts: Sequence[str], texts: Sequence[Sequence[str]]
  ) -> list[list[int]]:
    """Ids of every response with its prompt, at most max_tokens each."""
    if self.pair == 'pair':
      rows, self.num_cut = encode(
        self.tokenizer, prompts, texts, self.max_tokens
      )
      return rows
    cls, sep = self.tokenizer.encode('', special=True)
    joined = self.tokenizer.encode_batch(
      [
        prompt + text
        for prompt, responses in zip(prompts, texts, strict=True)
        for text in responses
      ]
    )
    limit = self.max_tokens - 2
    self.num_cut = sum(len(ids) > limit for ids in joined)
    return [[cls, *ids[:limit], sep] for ids in joined]


def encode(
  tokenizer: tokenizer_lib.Tokenizer,
  prompts: Sequence[str],
  texts: Sequence[Sequence[str]],
  max_tokens: int,
) -> tuple[list[list[int]], int]:
  """`[CLS] prompt [SEP] response [SEP]` of every response; how many are cut.

  A prompt is encoded once for all its responses.
  """
  cls, sep = tokenizer.encode('', special=True)
  heads = tokenizer.encode_batch(prompts)
  bodies = iter(
    tokenizer.encode_batch([text for group in texts for text in group])
  )
  num_cut, rows = 0, []
  for head, responses in zip(heads, texts, strict=True):
    for body in itertools.islice(bodies, len(responses)):
      num_head, num_body = longest_first(len(head), len(body), max_tokens - 3)
      num_cut += num_head + num_body < len(head) + len(body)
      rows.append([cls, *head[:num_head], sep, *body[:num_body], sep])
  return rows, num_cut


def load(
  model: str,
  dtype: str = 'float32',
  pair: str = 'pair',
  max_tokens: int = 512,
  batch_tokens: int = 4096,
) -> PairScorer:
  """A PairScorer of the checkpoint named by `model`.

  Raises UserError for a checkpoint that is no DeBERTa-v3 reward model, and for
  a dtype other than float32.
  """
  if dtype != 'float32':
    raise errors.UserError(
      f'rewards.NAME.dtype is {dtype!r}, but a DeBERTa reward model needs '
      "'float32': bfloat16 moves its rewards by as much as they differ between "
      'responses (0.014 where it was measured), float16 overflows.'
    )
  if pair not in PAIRS:
    raise errors.UserError(
      f'rewards.NAME.pair {pair!r} is unknown; allowed: {", ".join(PAIRS)}.'
    )
  errors.check_least('rewards.NAME.max_tokens', max_tokens, _MIN_TOKENS)
  errors.check_least('rewards.NAME.batch_tokens', batch_tokens, 1)
  ckpt = checkpoint.open_checkpoint(model)
  if ckpt.is_gguf:
    raise errors.UserError(
      f'rewards.NAME.model is {model!r}, a GGUF file; a DeBERTa-v3 reward '
      'model as a folder or hub id is needed.'
    )
  cfg = deberta.from_hf(ckpt.config)
  catalog.check(model, cfg)
  return PairScorer(
    cfg=cfg,
    params=params_lib.load(
      deberta.weights(cfg), ckpt.tensors, jnp.float32, deberta.IGNORED
    ),
    tokenizer=load_tokenizer(ckpt.path),
    pair=pair,
    max_tokens=max_tokens,
    batch_tokens=batch_tokens,
  )


def longest_first(num_head: int, num_body: int, limit: int) -> tuple[int, int]:
  """Leading tokens that two texts keep, `limit` together, as `tokenizers` cuts.

  The longer one loses until both are equal, then both lose. The odd token of
  the limit stays with the one that was longer, or with the second.
  """
  if num_head + num_body <= limit:
    return num_head, num_body
  less = min(num_head, num_body, limit // 2)
  more = limit - less
  return (more, less) if num_head > num_body else (less, more)


def load_tokenizer(folder: pathlib.Path) -> tokenizer_lib.Tokenizer:
  """The tokenizer in a checkpoint's folder.

  Raises UserError if it does not put [CLS] and [SEP] around a text.
  """
  tokenizer = tokenizer_lib.load_tokenizer(folder)
  around = tokenizer.encode('', special=True)
  if len(around) != 2:
    raise errors.UserError(
      f'the tokenizer of {folder} puts {len(around)} tokens around a text, not '
      '[CLS] and [SEP]: choose a DeBERTa-v3 reward model.'
    )
  return tokenizer


# By default TPUs multiply float32 as bfloat16, and recent GPUs as TF32.
@functools.partial(jax.jit, static_argnames='cfg')
def _tables(params, cfg):
  with jax.default_matmul_precision('highest'):
    return deberta.distance_tables(params, cfg)


@functools.partial(jax.jit, static_argnames='cfg')
def _reward(params, tables, cfg, token_BT, valid_BT):
  with jax.default_matmul_precision('highest'):
    return deberta.reward(params, tables, cfg, token_BT, valid_BT)
