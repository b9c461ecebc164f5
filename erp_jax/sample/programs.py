"""The sampler's device programs: begin prompts, draw tokens, move sequences.

Shapes: P groups, a prefix and K sequences each. The programs work on the first
P of the groups and the first entries of the caches; what lies beyond stays as
it is, and is not read.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from erp_jax.models import cache as cache_lib
from erp_jax.models import decoder
from erp_jax.sample import inverse_cdf, noise, truncation

NO_TOKEN = -1
_CPU_ROWS = 128  # 25 MB of logits at 49 152 ids.


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


class Slots(NamedTuple):
  """Where each sequence is."""

  key_PK: jax.Array
  token_PK: jax.Array  # Last token sampled, fed next.
  count_PK: jax.Array  # Tokens sampled so far.
  limit_PK: jax.Array  # Tokens after which it ends.
  active_PK: jax.Array
  birth_P: jax.Array  # Step at which the group began.
  step: jax.Array
  finite: jax.Array  # All logits were so far.


class State(NamedTuple):
  """All that a decode step reads and writes."""

  prefix: cache_lib.Prefix
  suffix: cache_lib.Suffix  # A ring: step t writes entry t modulo its size.
  slots: Slots


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def empty(
  task: Task, groups: int, group: int, prefix: int, ring: int, dtype
) -> State:
  """No group has begun. Compiled, so that no device holds all of a cache."""
  shared = decoder.empty_cache(task.model, groups, 1, prefix, dtype)
  shape = (groups, group)
  return State(
    prefix=cache_lib.as_prefix(shared, jnp.zeros(groups, jnp.int32), prefix),
    suffix=decoder.empty_cache(task.model, groups, group, ring, dtype),
    slots=Slots(
      key_PK=jax.random.split(jax.random.key(0), shape),
      token_PK=jnp.zeros(shape, jnp.int32),
      count_PK=jnp.zeros(shape, jnp.int32),
      limit_PK=jnp.zeros(shape, jnp.int32),
      active_PK=jnp.zeros(shape, bool),
      birth_P=jnp.zeros(groups, jnp.int32),
      step=jnp.int32(0),
      finite=jnp.bool_(True),
    ),
  )


@functools.partial(jax.jit, static_argnames='task', donate_argnames='state')
def admit(
  params: Any,
  task: Task,
  state: State,
  token_RT: jax.Array,
  len_R: jax.Array,
  group_RJ: jax.Array,
  words_RKJ: jax.Array,
  limit_RK: jax.Array,
) -> tuple[State, jax.Array]:
  """Prefills R prompts, draws their first tokens, seats them in groups.

  Args:
    group_RJ: of each prompt's J groups in turn; one past the last is a padding
      row's, and goes nowhere. The last group may have seats to spare.
    limit_RK: tokens of each response, at most.
  Returns:
    state, and the first tokens [R, K].
  """
  hidden_RTD, cache = decoder.prefill(params, task.model, token_RT)
  last_RD = hidden_RTD[jnp.arange(len(len_R)), len_R - 1]
  slots, first_RK = _seat(
    params, task, state.slots, last_RD, group_RJ, words_RKJ, limit_RK
  )
  size = state.prefix.key_LPGWS.shape[-1]
  prefix = cache_lib.as_prefix(cache, len_R, size)
  at_B, num = group_RJ.ravel(), group_RJ.shape[1]

  def seat(old, new, axis):
    at = (slice(None),) * axis + (at_B,)
    return old.at[at].set(jnp.repeat(new, num, axis=axis), mode='drop')

  return State(
    cache_lib.Prefix(
      seat(state.prefix.key_LPGWS, prefix.key_LPGWS, 1),
      seat(state.prefix.value_LPGSW, prefix.value_LPGSW, 1),
      seat(state.prefix.len_P, len_R, 0),
    ),
    state.suffix,
    slots,
  ), first_RK


@functools.partial(
  jax.jit, static_argnames=('task', 'groups', 'size'), donate_argnames='state'
)
def step(
  params: Any, task: Task, state: State, groups: int, size: int
) -> tuple[State, jax.Array]:
  """One token for every slot of the first groups: state and tokens [P, K].

  A slot that has stopped gives NO_TOKEN. `size` is how many entries of the
  ring are in use, those of this step included, at most all. Steps are not under
  one loop: the layers' own loop inside it would make the compiler copy weights
  and caches.
  """
  slots, ring = state.slots, state.suffix.key_LPKGWS.shape[-1]
  count_PK = slots.count_PK[:groups]
  # Steps since an entry was written, where it was written at all.
  age_S = (slots.step - jnp.arange(size)) % ring
  seen_PS = age_S <= (slots.step - slots.birth_P[:groups])[:, None]
  position_PK = state.prefix.len_P[:groups, None] + count_PK - 1
  hidden_PKTD, suffix = decoder.extend(
    params,
    task.model,
    slots.token_PK[:groups, :, None],
    position_PK[..., None],
    state.prefix,
    state.suffix,
    slots.step % ring,
    jnp.broadcast_to(seen_PS[:, None, None], (*count_PK.shape, 1, size)),
  )
  slots, token_PK = _answer(params, task, slots, hidden_PKTD)
  return State(state.prefix, suffix, slots), token_PK


@functools.partial(jax.jit, donate_argnames='state')
def move(state: State, from_M: jax.Array, to_M: jax.Array) -> State:
  """Sequences from slots to others, one after the other; slots count P × K.

  A group's prefix and birth go with each of its sequences, so all that moves
  into one group is of one prompt. What was in `from` is inactive afterwards.
  Moves end at the first negative entry of `from_M`.
  """
  K = state.slots.token_PK.shape[1]

  def copy(source, target, axis, x):
    """The slice at `source`, an index of the axes from `axis`, to `target`."""
    rest = x.shape[axis + len(source) :]
    sizes = (*x.shape[:axis], *(1 for _ in source), *rest)
    start = lambda at: (*(0 for _ in range(axis)), *at, *(0 for _ in rest))
    part = jax.lax.dynamic_slice(x, start(source), sizes)
    return jax.lax.dynamic_update_slice(x, part, start(target))

  def one(m, state):
    source, target = ((x[m] // K, x[m] % K) for x in (from_M, to_M))
    sequence = functools.partial(copy, source, target)
    group = functools.partial(copy, source[:1], target[:1])
    slots = state.slots
    return State(
      cache_lib.Prefix(
        group(1, state.prefix.key_LPGWS),
        group(1, state.prefix.value_LPGSW),
        group(0, state.prefix.len_P),
      ),
      cache_lib.Suffix(
        sequence(1, state.suffix.key_LPKGWS),
        sequence(1, state.suffix.value_LPKGSW),
        sequence(0, state.suffix.position_PKS),
      ),
      slots._replace(
        key_PK=sequence(0, slots.key_PK),
        token_PK=sequence(0, slots.token_PK),
        count_PK=sequence(0, slots.count_PK),
        limit_PK=sequence(0, slots.limit_PK),
        active_PK=sequence(0, slots.active_PK).at[source].set(False),
        birth_P=group(0, slots.birth_P),
      ),
    )

  return jax.lax.fori_loop(0, (from_M >= 0).sum(), one, state)


def _seat(params, task, slots, last_RD, group_RJ, words_RKJ, limit_RK):
  """The slots with new prompts in their groups, and first tokens [R, K]."""
  R, K = words_RKJ.shape[:2]
  group = slots.token_PK.shape[1]
  num_seats = group_RJ.shape[1] * group
  logits_RV, finite_R = _allowed_logits(params, task, last_RD)
  key_B = noise.response_keys(task.seed, words_RKJ.reshape(R * K, -1))
  logits_BV = jnp.repeat(logits_RV, K, axis=0)
  first_RK = _draw(task, logits_BV, key_B, jnp.zeros(R * K)).reshape(R, K)
  at_B = group_RJ.ravel()

  def seat(old, new_RK):
    # Seats to spare are inactive; what else is in them does not matter.
    at_J = jnp.arange(num_seats)
    new_RJ = new_RK[:, jnp.minimum(at_J, K - 1)]
    if new_RJ.dtype == bool:
      new_RJ &= at_J < K
    new = new_RJ.reshape(len(at_B), group)
    return old.at[at_B].set(new, mode='drop')

  birth_B = jnp.broadcast_to(slots.step, at_B.shape)
  return slots._replace(
    key_PK=seat(slots.key_PK, key_B.reshape(R, K)),
    token_PK=seat(slots.token_PK, first_RK),
    count_PK=seat(slots.count_PK, jnp.ones_like(first_RK)),
    limit_PK=seat(slots.limit_PK, limit_RK),
    active_PK=seat(slots.active_PK, _goes_on(task, first_RK, 1, limit_RK)),
    birth_P=slots.birth_P.at[at_B].set(birth_B, mode='drop'),
    finite=slots.finite & finite_R.all(),
  ), first_RK


def _answer(params, task, slots, hidden_PKTD):
  """The drawn tokens [P, K], and the slots after them."""
  P, K = hidden_PKTD.shape[:2]
  key_PK, count_PK, limit_PK, active_PK = (
    x[:P]
    for x in (slots.key_PK, slots.count_PK, slots.limit_PK, slots.active_PK)
  )
  token_B, finite_B = _sample(
    params,
    task,
    hidden_PKTD.reshape(P * K, -1),
    key_PK.ravel(),
    count_PK.ravel(),
  )
  token_PK = token_B.reshape(P, K)
  count_PK += active_PK
  goes_on_PK = active_PK & _goes_on(task, token_PK, count_PK, limit_PK)
  put = lambda old, new: old.at[:P].set(new)
  return slots._replace(
    token_PK=put(slots.token_PK, token_PK),
    count_PK=put(slots.count_PK, count_PK),
    active_PK=put(slots.active_PK, goes_on_PK),
    step=slots.step + 1,
    finite=slots.finite & (finite_B | ~active_PK.ravel()).all(),
  ), jnp.where(active_PK, token_PK, NO_TOKEN)


def _sample(params, task, hidden_BD, key_B, step_B):
  """Token `step` of each response, and which had finite logits alone.

  On CPU some rows at a time, whose logits stay in the cache.
  """

  def rows(hidden_BD, key_B, step_B):
    logits_BV, finite_B = _allowed_logits(params, task, hidden_BD)
    return _draw(task, logits_BV, key_B, step_B), finite_B

  if len(hidden_BD) <= _CPU_ROWS or jax.default_backend() != 'cpu':
    return rows(hidden_BD, key_B, step_B)
  one = lambda row: jax.tree.map(lambda x: x[0], rows(*(x[None] for x in row)))
  return jax.lax.map(one, (hidden_BD, key_B, step_B), batch_size=_CPU_ROWS)


def _allowed_logits(params, task, hidden_BD):
  """Float32 logits with -inf at ids no tokenizer has, and which are finite."""
  logits_BV = decoder.logits(params, task.model, hidden_BD)
  # An infinity or NaN makes the sum one; finite logits do not.
  finite_B = jnp.isfinite(logits_BV.sum(axis=-1))
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


def _goes_on(task, token_PK, count_PK, limit_PK):
  """True where the response is neither stopped nor at its limit."""
  stop_J = jnp.asarray(task.stop_ids, jnp.int32)
  is_stop_PK = (token_PK[..., None] == stop_J).any(axis=-1)
  return ~is_stop_PK & (count_PK < limit_PK)
