"""K responses to each of many prompts from one decoder, slots kept busy.

Slots lie in small groups: sequences of one prompt, which share its prefix.
All write their new keys at the same entry of a ring; a sequence sees the
entries since its group began. Between chunks of steps the host looks at what
has stopped. When what still runs fits a smaller batch, it is moved together;
when enough slots are free, the next prompts begin. Which response runs where
and when depends on the prompts and the config alone, so a shard done again is
bit-equal.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, shapes, sharding
from erp_jax.models import attention, bits
from erp_jax.sample import programs, seating


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
  """Shapes of the programs; part of what makes a response's bits."""

  slots: int = 512  # Sequences decoded at once; at least one prompt's K.
  group: int = 4  # Sequences of a prompt that stop and move together, at most.
  # The next prompts begin when at most this share of the slots runs. With 0,
  # when all have stopped: then no cache is longer than its sequences, but the
  # last of them run alone.
  refill: float = 0.5
  chunk_steps: int = 16  # Decode steps between looks at what has stopped.
  prompt_buckets: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
  prefill_tokens: int = 2048  # Of prompts read at once, or one prompt.

  def __post_init__(self):
    for name in ('slots', 'group', 'chunk_steps', 'prefill_tokens'):
      errors.check_least(f'sample.engine.{name}', getattr(self, name), 1)
    if not 0 <= self.refill < 1:
      raise errors.UserError(
        f'sample.engine.refill must be in [0, 1), got {self.refill}.'
      )
    buckets = self.prompt_buckets
    if not buckets or buckets[0] < 1 or list(buckets) != sorted(set(buckets)):
      raise errors.UserError(
        'sample.engine.prompt_buckets must be ascending lengths >= 1, at least '
        f'one, got {buckets}.'
      )


class Response(NamedTuple):
  """One sampled response; the stop token, if any, is the last id."""

  ids: list[int]
  stopped: bool


class Use(NamedTuple):
  """How busy the slots were, over one call of `generate`."""

  tokens: int  # Sampled, up to and including the stop.
  first: int  # Of these, those that came with their prompts.
  slot_steps: int  # Slots × decode steps that were computed.

  @property
  def busy(self) -> float:
    """Share of the slots' steps that gave a token."""
    return (self.tokens - self.first) / max(1, self.slot_steps)


def generate(
  params: Any,
  task: programs.Task,
  cfg: EngineConfig,
  prompts: Sequence[Sequence[int]],
  words_NKJ: np.ndarray,
  advance: Callable[..., None] = lambda n, busy, slots: None,
  limit_NK: np.ndarray | None = None,
) -> tuple[list[list[Response]], Use]:
  """Samples K responses per prompt, distributed as model and task say.

  Args:
    params: of `task.model`.
    prompts: token ids of each prompt, N of them.
    words_NKJ: what names each response's noise (`noise.response_words`).
    advance: told how many tokens were sampled since the last time, and of how
      many slots × steps how many were busy: `progress.track`.
    limit_NK: tokens of each response, at most; from 1 to
      `task.max_new_tokens`, which it is where there is none.
  Returns:
    responses[n][k], and how busy the slots were.
  Raises:
    UserError: the network gave a logit that is not finite, or a limit is out of
      range.
  """
  params = params | {'layers': bits.pack(params['layers'])}
  if limit_NK is None:
    limit_NK = np.full((len(prompts), task.k), task.max_new_tokens)
  if limit_NK.min() < 1 or limit_NK.max() > task.max_new_tokens:
    raise errors.UserError(
      f'limits must be from 1 to max_new_tokens = {task.max_new_tokens}, got '
      f'{limit_NK.min()} to {limit_NK.max()}.'
    )
  run = _Run(params, task, cfg, prompts, words_NKJ, limit_NK)
  tokens = first = slot_steps = 0
  while run.queue or run.seats.num_running:
    begun = run.arrange()
    stepped, computed = run.chunk() if run.seats.num_running else (0, 0)
    advance(begun + stepped, busy=stepped, slots=computed)
    tokens, first = tokens + begun + stepped, first + begun
    slot_steps += computed
  return [
    [Response(x, x[-1] in task.stop_ids) for x in per_prompt]
    for per_prompt in run.ids
  ], Use(tokens, first, slot_steps)


class _Run:
  """One call of `generate`: the device's state, and the host's view of it."""

  def __init__(self, params, task, cfg, prompts, words_NKJ, limit_NK):
    self.params, self.task, self.cfg = params, task, cfg
    self.prompts, self.words_NKJ = prompts, words_NKJ
    self.limit_NK = limit_NK.astype(np.int32)
    # The longest begin, so that the last to stop are short.
    self.queue = sorted(
      range(len(prompts)), key=lambda n: (-len(prompts[n]), n)
    )
    self.seats = seating.empty(len(prompts), task.k, cfg.slots, cfg.group)
    self.ids = [[[] for _ in range(task.k)] for _ in prompts]
    groups = len(self.seats.owner_PK)
    # On a mesh, groups stay on their devices.
    mesh = jax.sharding.get_abstract_mesh()
    whole = mesh.shape.get(sharding.DATA, 1) > 1
    self.sizes_P = (groups,) if whole else _sizes(groups)
    steps = max(1, task.max_new_tokens - 1)  # The first token takes none.
    ring = -(-steps // cfg.chunk_steps) * cfg.chunk_steps
    self.sizes_S = shapes.sizes(ring, shortest=2 * cfg.chunk_steps)
    if attention.skips_unseen():  # Then more sizes are more programs alone.
      self.sizes_S = (ring,)
    self.groups = groups
    self.steps = 0  # Since the ring was empty.
    self.state = programs.empty(
      task,
      *self.seats.owner_PK.shape,
      shapes.bucket(len(prompts[self.queue[0]]), cfg.prompt_buckets),
      ring,
      params['embed_VD'].dtype,
    )

  def arrange(self) -> int:
    """Moves what runs together and begins what fits: first tokens drawn."""
    seats = self.seats
    begins = bool(self.queue) and (
      seats.num_running <= self.cfg.refill * seats.owner_PK.size
    )
    fewer = self._bucket(seats.num_needed()) < self._bucket(seats.num_used)
    if begins or fewer:
      self._move(seats.compact())
    if not seats.num_running:  # Nobody sees what is in the ring.
      slots = self.state.slots._replace(step=jnp.int32(0))
      self.state, self.steps = self.state._replace(slots=slots), 0
    tokens = 0
    if begins:
      group_NJ = seats.seat(self.queue)
      begun, self.queue = (
        self.queue[: len(group_NJ)],
        self.queue[len(group_NJ) :],
      )
      while begun:
        rows = self._admit(begun, group_NJ)
        tokens += rows * self.task.k
        begun, group_NJ = begun[rows:], group_NJ[rows:]
    self.groups = self._bucket(seats.num_used)
    return tokens

  def chunk(self) -> tuple[int, int]:
    """Decode steps up to the next look: tokens sampled, and slot steps."""
    ring = self.sizes_S[-1]
    chunk = []
    for _ in range(self.cfg.chunk_steps):
      self.steps += 1
      size = shapes.bucket(min(self.steps, ring), self.sizes_S)
      self.state, token_PK = programs.step(
        self.params, self.task, self.state, self.groups, size
      )
      chunk.append(token_PK)
    token_CPK, active_PK = self._get(chunk)
    token_CPK = np.stack(token_CPK)
    sampled = token_CPK != programs.NO_TOKEN
    for c, p, k in np.argwhere(sampled):
      self._append(self.seats.owner_PK[p, k], token_CPK[c, p, k])
    self.seats.owner_PK[~active_PK] = seating.FREE
    return int(sampled.sum()), token_CPK.size

  def _bucket(self, num_groups: int) -> int:
    return shapes.bucket(max(1, num_groups), self.sizes_P)

  def _move(self, moves: list[tuple[int, int]]) -> None:
    if moves:
      slots_2M = np.full((2, self.seats.owner_PK.size), -1, np.int32)
      slots_2M[:, : len(moves)] = np.transpose(moves)
      self.state = programs.move(self.state, *slots_2M)

  def _admit(self, begun: list[int], group_NJ: np.ndarray) -> int:
    """Prefills as many of the prompts as are read at once; how many."""
    cfg = self.cfg
    size = shapes.bucket(len(self.prompts[begun[0]]), cfg.prompt_buckets)
    most = len(self.seats.owner_PK) // self.seats.groups_each
    rows = max(1, min(most, cfg.prefill_tokens // size))
    begun = begun[:rows]
    token_RT, _ = shapes.pad_to([self.prompts[n] for n in begun], rows, size)
    len_R = np.ones(rows, np.int32)
    len_R[: len(begun)] = [len(self.prompts[n]) for n in begun]
    group_RJ = np.full((rows, self.seats.groups_each), len(self.seats.owner_PK))
    group_RJ[: len(begun)] = group_NJ[: len(begun)]
    of_rows = lambda x_NK: np.resize(x_NK[begun], (rows, *x_NK.shape[1:]))
    self.state, first_RK = programs.admit(
      self.params,
      self.task,
      self.state,
      token_RT,
      len_R,
      group_RJ,
      of_rows(self.words_NKJ),
      of_rows(self.limit_NK),
    )
    first_RK, active_PK = self._get(first_RK)
    for n, first_K in zip(begun, first_RK, strict=False):
      for k, token in enumerate(first_K):
        self._append(n * self.task.k + k, token)
    # Of these groups alone: what is seated next has not begun.
    at_J = group_NJ[: len(begun)].ravel()
    self.seats.owner_PK[at_J] = np.where(
      active_PK[at_J], self.seats.owner_PK[at_J], seating.FREE
    )
    return len(begun)

  def _get(self, tokens: Any) -> tuple[Any, np.ndarray]:
    """Tokens on the host, and which slots are active; UserError for a NaN."""
    slots = self.state.slots
    tokens, active_PK, finite = sharding.fetch(
      (tokens, slots.active_PK, slots.finite)
    )
    if not finite:
      raise errors.UserError(
        'the network gave a logit that is not finite: its weights are '
        'damaged, or its dtype is too narrow (sample.dtype).'
      )
    return tokens, active_PK

  def _append(self, owner: int, token: int) -> None:
    n, k = divmod(int(owner), self.task.k)
    self.ids[n][k].append(int(token))


def _sizes(groups: int) -> tuple[int, ...]:
  """Batches of groups for which there are programs: all, 7/8, 6/8, …

  Each is at least 4/5 of the next, down to the twentieth part.
  """
  parts = [part / 2**e for e in (3, 4, 5, 6) for part in (8, 7, 6, 5)]
  return tuple(sorted({math.ceil(groups * part) for part in parts}))
