"""A decoder that reads: likelihoods and answers of given continuations.

The continuations of a prompt are read against one encoding of it, in batches
of few shapes. Padding changes nothing but rounding.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes, sharding
from erp_jax.models import bits, checkpoint, decoder
from erp_jax.models import cache as cache_lib
from erp_jax.models import tokenizer as tokenizer_lib

# Fewer shapes are fewer programs, but suffixes are nearly all that is read.
_PREFIX_BUCKETS = shapes.sizes(2**17, shortest=32)
_SUFFIX_BUCKETS = (
  1,
  8,
  *(n * 2**i for i in range(2, 15) for n in (4, 5, 6, 7)),
)
# Suffixes of a prefix that are read at once, of similar lengths. Of 32 that are
# half to 1.5 times their mean long, padding adds a seventh; with 8, a fifth.
_WIDTH = 4


class Group(NamedTuple):
  """Continuations that share a prefix; each holds at least one token."""

  prefix: Sequence[int]
  suffixes: Sequence[Sequence[int]]


def group(rows: Sequence[list[int]]) -> Group:
  """Rows as continuations of the longest beginning that all share."""
  shared = min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1)
  return Group(rows[0][:shared], [row[shared:] for row in rows])


@dataclasses.dataclass(frozen=True)
class Reader:
  """A loaded decoder with its tokenizer.

  Attributes:
    batch_tokens: positions read at once, padding counted.
  """

  cfg: decoder.DecoderConfig
  params: Any
  tokenizer: tokenizer_lib.Tokenizer
  batch_tokens: int

  def mean_logprob(self, groups: Sequence[Group], advance) -> list[np.ndarray]:
    """Mean log p of each continuation's tokens after its first.

    The first token is the last of what is conditioned on. Returns one array
    per group, NaN where a continuation has one token only (nothing to read).
    """
    return self._read(groups, _mean_logprob, advance)

  def yes_minus_no(
    self, groups: Sequence[Group], yes: int, no: int, advance
  ) -> list[np.ndarray]:
    """logit(yes) − logit(no) after the last token of each continuation."""
    head = functools.partial(_difference, yes=yes, no=no)
    return self._read(groups, head, advance)

  def score(self, groups: Sequence[Group], advance) -> list[np.ndarray]:
    """The reward head's score at the last token of each continuation."""
    return self._read(groups, _score, advance)

  def last_hidden(self, groups: Sequence[Group], advance) -> list[np.ndarray]:
    """Hidden state [D] at the last token of each continuation, float32."""
    return self._read(groups, _last_hidden, advance)

  def _read(
    self, groups: Sequence[Group], head: Callable, advance
  ) -> list[np.ndarray]:
    """`head` of each continuation's hidden states, one array per group."""
    self._check_lengths(groups)
    out = [np.empty(0)] * len(groups)
    width = min(_WIDTH, max(len(g.suffixes) for g in groups))
    size_S = lambda n: shapes.bucket(len(groups[n].prefix), _PREFIX_BUCKETS)
    order = sorted(
      range(len(groups)),
      key=lambda n: (size_S(n), sum(map(len, groups[n].suffixes)), n),
    )
    longest = max(len(ids) for g in groups for ids in g.suffixes)
    widest = width * shapes.bucket(longest, _SUFFIX_BUCKETS) + size_S(order[-1])
    num_batches = -(-len(order) // max(1, self.batch_tokens // widest))
    rows = -(-len(order) // num_batches)
    while order:  # From the long end; all batches but the last are full.
      order, batch = order[:-rows], order[-rows:]
      values = self._read_batch(
        [groups[n] for n in batch], head, rows, width, size_S(batch[-1])
      )
      for n, value_J in zip(batch, values, strict=True):
        out[n] = value_J
        read = sum(map(len, groups[n].suffixes)) + len(groups[n].prefix)
        advance(len(groups[n].suffixes), positions=read)
    return out

  def _read_batch(
    self, groups: list[Group], head: Callable, rows: int, width: int, size: int
  ) -> list[np.ndarray]:
    """`head` of the continuations of at most `rows` groups.

    The longest `width` of each group are read at once, then the next ones.
    """
    prefix_RS, len_R = _pad([g.prefix for g in groups], rows, size)
    prefix = _prefix(self.params, self.cfg, prefix_RS, len_R)
    orders = [
      sorted(range(len(g.suffixes)), key=lambda j: -len(g.suffixes[j]))
      for g in groups
    ]
    values = []
    for start in range(0, max(map(len, orders)), width):
      parts = [
        [g.suffixes[j] for j in order[start : start + width]]
        for g, order in zip(groups, orders, strict=True)
      ]
      longest = max(len(ids) for part in parts for ids in part)
      size = shapes.bucket(longest, _SUFFIX_BUCKETS)
      parts += [[]] * (rows - len(parts))
      token_RJT, len_RJ = map(
        np.stack, zip(*(_pad(part, width, size) for part in parts), strict=True)
      )
      values.append(head(self.params, self.cfg, prefix, token_RJT, len_RJ))
    value_RJ = np.concatenate(sharding.fetch(values), axis=1)
    out = []
    for order, value_J in zip(orders, value_RJ, strict=False):
      placed_J = np.empty_like(value_J[: len(order)])
      placed_J[order] = value_J[: len(order)]
      out.append(placed_J)
    return out

  def _check_lengths(self, groups: Sequence[Group]) -> None:
    for group in groups:
      length = len(group.prefix) + max(map(len, group.suffixes))
      if length > self.cfg.max_position:
        raise errors.UserError(
          f'a prompt and response of {length} tokens do not fit the scoring '
          f'decoder (at most {self.cfg.max_position}): sample with a smaller '
          'sample.max_new_tokens, or choose another rewards.NAME.model.'
        )


def load(model: str, dtype: str, batch_tokens: int) -> Reader:
  """A Reader of the checkpoint named by `model`."""
  cfg, params, ckpt = checkpoint.load_decoder(model, jnp.dtype(dtype))
  params = {**params, 'layers': bits.pack(params['layers'])}
  tokenizer = tokenizer_lib.load_tokenizer(ckpt.path)
  return Reader(cfg, params, tokenizer, batch_tokens)


def _pad(rows, num_rows: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Ids padded on the right, [num_rows, size], and how many of a row are."""
  ids_BT, valid_BT = shapes.pad_to(rows, num_rows, size)
  return ids_BT, valid_BT.sum(axis=1, dtype=np.int32)


@functools.partial(jax.jit, static_argnames='cfg')
def _prefix(params, cfg, prefix_RS, len_R) -> cache_lib.Prefix:
  """Keys and values of the beginnings that continuations share."""
  _, cache = decoder.prefill(params, cfg, prefix_RS)
  return cache_lib.as_prefix(cache, len_R, prefix_RS.shape[1])


def _hidden(params, cfg, prefix, token_RJT) -> jax.Array:
  """Hidden states [R, J, T, D] of continuations, each after its prefix."""
  R, J, T = token_RJT.shape
  suffix = decoder.empty_cache(cfg, R, J, T, params['embed_VD'].dtype)
  position_RJT = jnp.broadcast_to(
    prefix.len_P[:, None, None] + jnp.arange(T), (R, J, T)
  )
  visible_RJTS = jnp.broadcast_to(jnp.tri(T, dtype=bool), (R, J, T, T))
  hidden_RJTD, _ = decoder.extend(
    params, cfg, token_RJT, position_RJT, prefix, suffix, 0, visible_RJTS
  )
  return hidden_RJTD


@functools.partial(jax.jit, static_argnames='cfg')
def _mean_logprob(params, cfg, prefix, token_RJT, len_RJ):
  """Mean over t >= 1 of log p(token t | all before), [R, J], float32."""
  hidden_RJTD = _hidden(params, cfg, prefix, token_RJT)

  def logprob(inputs):  # Of one position, so that no [R, J, T, V] is made.
    hidden_D, target = inputs
    logits_V = decoder.logits(params, cfg, hidden_D)
    return logits_V[target] - jax.nn.logsumexp(logits_V)

  next_RJT = jnp.roll(token_RJT, -1, axis=-1)
  hidden_BD = hidden_RJTD.reshape(-1, cfg.width)
  logprob_B = jax.lax.map(
    logprob, (hidden_BD, next_RJT.ravel()), batch_size=256
  )
  T = token_RJT.shape[-1]
  used_RJT = jnp.arange(T) < len_RJ[..., None] - 1
  sum_RJ = jnp.where(used_RJT, logprob_B.reshape(used_RJT.shape), 0).sum(-1)
  return sum_RJ / (len_RJ - 1)


@functools.partial(jax.jit, static_argnames='cfg')
def _score(params, cfg, prefix, token_RJT, len_RJ):
  """The one score at the last token, [R, J], float32."""
  hidden_RJTD = _hidden(params, cfg, prefix, token_RJT)
  return decoder.score(params, _last(hidden_RJTD, len_RJ))[..., 0]


@functools.partial(jax.jit, static_argnames='cfg')
def _last_hidden(params, cfg, prefix, token_RJT, len_RJ):
  """Final-norm hidden states at the last token, [R, J, D], float32."""
  hidden_RJTD = _hidden(params, cfg, prefix, token_RJT)
  return _last(hidden_RJTD, len_RJ).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=('cfg', 'yes', 'no'))
def _difference(params, cfg, prefix, token_RJT, len_RJ, *, yes, no):
  """logit(yes) − logit(no) at the last token, [R, J], float32."""
  hidden_RJTD = _hidden(params, cfg, prefix, token_RJT)
  logits_RJV = decoder.logits(params, cfg, _last(hidden_RJTD, len_RJ))
  return logits_RJV[..., yes] - logits_RJV[..., no]


def _last(hidden_RJTD, len_RJ):
  """Hidden states [R, J, D] at the last token of each continuation."""
  last_RJ11 = (len_RJ - 1)[..., None, None]
  return jnp.take_along_axis(hidden_RJTD, last_RJ11, axis=2)[:, :, 0]
