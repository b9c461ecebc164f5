"""K responses to each of many prompts from one decoder, slots kept busy.

Slots lie in groups: the K sequences of one prompt, which share its prefix. A
group whose sequences have all stopped takes the next prompt. All groups write
their new keys at the same place of a ring, the step modulo its size; a group
sees the entries since it began. Which prompt runs where and when depends on
the prompts and the config alone, so a shard done again is bit-equal.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes
from erp_jax.models import decoder
from erp_jax.sample import inverse_cdf, noise, truncation

NO_TOKEN = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
  """Shapes of the programs; part of what makes a response's bits."""

  slots: int = 128  # Sequences decoded at once; at least one prompt's K.
  chunk_steps: int = 16  # Decode steps between looks at what has stopped.
  prompt_buckets: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)

  def __post_init__(self):
    if self.slots < 1 or self.chunk_steps < 1:
      raise errors.UserError(
        'sample.engine.slots and .chunk_steps must be >= 1, got '
        f'{self.slots} and {self.chunk_steps}.'
      )
    buckets = self.prompt_buckets
    if not buckets or buckets[0] < 1 or list(buckets) != sorted(set(buckets)):
      raise errors.UserError(
        'sample.engine.prompt_buckets must be ascending lengths >= 1, at least '
        f'one, got {buckets}.'
      )


@dataclasses.dataclass(frozen=True)
class Task:
  """What is the same for every prompt of a run; hashable, static under jit."""

  model: decoder.DecoderConfig
  num_ids: int  # Ids from here on are padding rows of the vocabulary.
  stop_ids: tuple[int, ...]
  k: int
  temperature: float  # 0 is greedy.
  max_new_tokens: int
  seed: int
  top_k: int = 0  # Only the k likeliest ids; 0 is all.
  top_p: float = 1.0  # Only the likeliest ids of this mass; 1 is all.


class Response(NamedTuple):
  """One sampled response; the stop token, if any, is the last id."""

  ids: list[int]
  stopped: bool


class Use(NamedTuple):
  """How busy the slots were, over one call of `generate`."""

  tokens: int  # Sampled, up to and including the stop.
  slot_steps: int  # Slots × decode steps that were computed.


class _State(NamedTuple):
  prefix: decoder.Prefix
  suffix: decoder.Suffix
  key_PK: jax.Array
  token_PK: jax.Array  # Last token sampled, fed next.
  count_PK: jax.Array  # Tokens sampled so far.
  active_PK: jax.Array
  birth_P: jax.Array  # Step at which the group began.
  step: jax.Array
  finite: jax.Array  # All logits were so far.


def generate(
  params: Any,
  task: Task,
  cfg: EngineConfig,
  prompts: Sequence[Sequence[int]],
  words_NKJ: np.ndarray,
  advance: Callable[[int], None] = lambda n: None,
) -> tuple[list[list[Response]], Use]:
  """Samples K responses per prompt, distributed as model and task say.

  Args:
    params: of `task.model`.
    prompts: token ids of each prompt, N of them.
    words_NKJ: what names each response's noise (`noise.response_words`).
    advance: told how many tokens were sampled since the last time.
  Returns:
    responses[n][k], and how busy the slots were.
  Raises:
    UserError: the network gave a logit that is not finite.
  """
  groups = max(1, min(cfg.slots // task.k, len(prompts)))
  rows = max(1, groups // 8)  # Prompts in one prefill.
  queue = sorted(range(len(prompts)), key=lambda n: (-len(prompts[n]), n))
  size = shapes.bucket(len(prompts[queue[0]]), cfg.prompt_buckets)
  dtype = params['embed_VD'].dtype
  state = _empty_state(task, groups, size, dtype)
  owner = np.full(groups, -1)  # Index of the prompt that each group answers.
  ids: list[list[list[int]]] = [[[] for _ in range(task.k)] for _ in prompts]
  active_PK = np.zeros((groups, task.k), bool)
  steps = 0
  tokens = 0
  while queue or active_PK.any():
    free = np.flatnonzero(~active_PK.any(axis=1))
    while queue and len(free) >= min(rows, len(queue)):
      taken, queue = queue[:rows], queue[rows:]
      at, free = free[: len(taken)], free[len(taken) :]
      owner[at] = taken
      token_RT, len_R = _pad([prompts[n] for n in taken], rows, cfg)
      words_RKJ = np.resize(words_NKJ[taken], (rows, *words_NKJ.shape[1:]))
      group_R = np.append(at, np.full(rows - len(at), groups))
      state, first_RK = _admit(
        params, task, state, token_RT, len_R, group_R, words_RKJ
      )
      first_RK = jax.device_get(first_RK)
      for n, token_K in zip(taken, first_RK, strict=False):
        for k, token in enumerate(token_K):
          ids[n][k].append(int(token))
      tokens += len(taken) * task.k
      advance(len(taken) * task.k)
    chunk = []
    for _ in range(cfg.chunk_steps):
      state, token_PK = _step(params, task, state)
      chunk.append(token_PK)
    token_CPK, active_PK, finite = jax.device_get(
      (chunk, state.active_PK, state.finite)
    )
    if not finite:
      raise errors.UserError(
        'the network gave a logit that is not finite: its weights are '
        'damaged, or its dtype is too narrow (sample.dtype).'
      )
    steps += cfg.chunk_steps
    token_CPK = np.stack(token_CPK)
    for c, p, k in np.argwhere(token_CPK != NO_TOKEN):
      ids[owner[p]][k].append(int(token_CPK[c, p, k]))
    sampled = int((token_CPK != NO_TOKEN).sum())
    tokens += sampled
    advance(sampled)
  responses = [
    [Response(x, x[-1] in task.stop_ids) for x in per_prompt]
    for per_prompt in ids
  ]
  return responses, Use(tokens, steps * groups * task.k)


def _pad(
  prompts: Sequence[Sequence[int]], rows: int, cfg: EngineConfig
) -> tuple[np.ndarray, np.ndarray]:
  """Tokens [R, T], right-padded to a bucket, and lengths [R] (at least 1)."""
  length = shapes.bucket(max(map(len, prompts)), cfg.prompt_buckets)
  token_RT = np.zeros((rows, length), np.int32)
  len_R = np.ones(rows, np.int32)
  for r, ids in enumerate(prompts):
    token_RT[r, : len(ids)] = ids
    len_R[r] = len(ids)
  return token_RT, len_R


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _empty_state(task: Task, groups: int, size: int, dtype) -> _State:
  """No group has begun. Compiled, so that no device holds all of a cache."""
  ring = -(-task.max_new_tokens // 32) * 32
  empty = decoder.empty_cache(task.model, groups, 1, size, dtype)
  shape = (groups, task.k)
  return _State(
    prefix=decoder.as_prefix(empty, jnp.zeros(groups, jnp.int32), size),
    suffix=decoder.empty_cache(task.model, groups, task.k, ring, dtype),
    key_PK=jax.random.split(jax.random.key(0), shape),
    token_PK=jnp.zeros(shape, jnp.int32),
    count_PK=jnp.zeros(shape, jnp.int32),
    active_PK=jnp.zeros(shape, bool),
    birth_P=jnp.zeros(groups, jnp.int32),
    step=jnp.int32(0),
    finite=jnp.bool_(True),
  )


@functools.partial(jax.jit, static_argnames='task', donate_argnames='state')
def _admit(params, task, state, token_RT, len_R, group_R, words_RKJ):
  """Prefills R prompts, draws their first tokens, seats them in groups.

  A group index past the last is a padding row and goes nowhere.
  """
  R, K = words_RKJ.shape[:2]
  hidden_RTD, cache = decoder.prefill(params, task.model, token_RT)
  prefix = decoder.as_prefix(cache, len_R, state.prefix.key_LPGWS.shape[-1])
  last_RD = hidden_RTD[jnp.arange(R), len_R - 1]
  logits_RV, finite_R = _allowed_logits(params, task, last_RD)
  key_B = noise.response_keys(task.seed, words_RKJ.reshape(R * K, -1))
  logits_BV = jnp.repeat(logits_RV, K, axis=0)
  first_RK = _draw(task, logits_BV, key_B, jnp.zeros(R * K)).reshape(R, K)

  seat = lambda old, new: old.at[group_R].set(new, mode='drop')
  return state._replace(
    prefix=decoder.Prefix(
      state.prefix.key_LPGWS.at[:, group_R].set(prefix.key_LPGWS, mode='drop'),
      state.prefix.value_LPGSW.at[:, group_R].set(
        prefix.value_LPGSW, mode='drop'
      ),
      seat(state.prefix.len_P, len_R),
    ),
    key_PK=seat(state.key_PK, key_B.reshape(R, K)),
    token_PK=seat(state.token_PK, first_RK),
    count_PK=seat(state.count_PK, 1),
    active_PK=seat(state.active_PK, _goes_on(task, first_RK, 1)),
    birth_P=seat(state.birth_P, state.step),
    finite=state.finite & finite_R.all(),
  ), first_RK


@functools.partial(jax.jit, static_argnames='task', donate_argnames='state')
def _step(params, task, state):
  """One token for every slot: state and tokens [P, K].

  A slot that has stopped gives NO_TOKEN. The steps are not under one loop: the
  layers' own loop inside it would make the compiler copy weights and caches.
  """
  P, K = state.token_PK.shape
  S = state.suffix.key_LPKGWS.shape[-1]
  age_S = (state.step - jnp.arange(S)) % S  # Steps since it was written.
  seen_PS = age_S <= (state.step - state.birth_P)[:, None]
  position_PK = state.prefix.len_P[:, None] + state.count_PK - 1
  hidden_PKTD, suffix = decoder.extend(
    params,
    task.model,
    state.token_PK[..., None],
    position_PK[..., None],
    state.prefix,
    state.suffix,
    state.step % S,
    jnp.broadcast_to(seen_PS[:, None, None], (P, K, 1, S)),
  )
  hidden_BD = hidden_PKTD.reshape(P * K, -1)
  logits_BV, finite_B = _allowed_logits(params, task, hidden_BD)
  token_PK = _draw(
    task, logits_BV, state.key_PK.ravel(), state.count_PK.ravel()
  ).reshape(P, K)
  active_PK = state.active_PK
  count_PK = state.count_PK + active_PK
  state = state._replace(
    suffix=suffix,
    token_PK=token_PK,
    count_PK=count_PK,
    active_PK=active_PK & _goes_on(task, token_PK, count_PK),
    step=state.step + 1,
    finite=state.finite & (finite_B | ~active_PK.ravel()).all(),
  )
  return state, jnp.where(active_PK, token_PK, NO_TOKEN)


def _allowed_logits(params, task, hidden_BD):
  """Float32 logits with -inf at ids no tokenizer has, and which are finite."""
  logits_BV = decoder.logits(params, task.model, hidden_BD)
  finite_B = jnp.isfinite(logits_BV).all(axis=-1)
  if task.num_ids < task.model.vocab_size:
    allowed_V = jnp.arange(task.model.vocab_size) < task.num_ids
    logits_BV = jnp.where(allowed_V, logits_BV, -jnp.inf)
  return logits_BV, finite_B


def _draw(task, logits_BV, key_B, step_B):
  """Token `step` of each response; greedy at temperature 0."""
  if task.temperature == 0:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  key_B = jax.vmap(jax.random.fold_in)(key_B, step_B.astype(jnp.uint32))
  u_BU = inverse_cdf.uniforms(key_B)
  logits_BV = logits_BV / task.temperature
  if task.top_k or task.top_p < 1:
    logits_BV = truncation.keep_likeliest(logits_BV, task.top_k, task.top_p)
  return inverse_cdf.sample(logits_BV, u_BU)


def _goes_on(task, token_PK, count_PK):
  """True where the response is neither stopped nor at its full length."""
  stop_J = jnp.asarray(task.stop_ids, jnp.int32)
  is_stop_PK = (token_PK[..., None] == stop_J).any(axis=-1)
  return ~is_stop_PK & (count_PK < task.max_new_tokens)
