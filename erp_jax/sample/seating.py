"""Which response runs in which slot: what the host keeps, in NumPy alone."""

import dataclasses

import numpy as np

FREE = -1


@dataclasses.dataclass
class Seating:
  """Seats [P, K]: P groups of one prompt each.

  Attributes:
    owner_PK: index n × k + j of the response that runs there, or FREE.
    k: responses of a prompt.
  """

  owner_PK: np.ndarray
  k: int

  @property
  def num_running(self) -> int:
    """Responses that have not stopped."""
    return int((self.owner_PK != FREE).sum())

  @property
  def groups_each(self) -> int:
    """Groups that the responses of one prompt take."""
    return -(-self.k // self.owner_PK.shape[1])

  @property
  def num_used(self) -> int:
    """Groups up to the last in which something runs."""
    used = np.flatnonzero(self._in_use())
    return int(used[-1]) + 1 if len(used) else 0

  def num_needed(self) -> int:
    """Groups that `compact` would leave."""
    prompts = self.owner_PK[self.owner_PK != FREE] // self.k
    size = self.owner_PK.shape[1]
    return int((-(-np.unique(prompts, return_counts=True)[1] // size)).sum())

  def compact(self) -> list[tuple[int, int]]:
    """Makes the fewest, lowest groups run everything.

    Returns the moves that do it, in order: (from, to) of slots counted P × K,
    each to one where nothing runs.
    """
    moves = []
    size = self.owner_PK.shape[1]

    def shift(source, target):
      self.owner_PK[target] = self.owner_PK[source]
      self.owner_PK[source] = FREE
      moves.append(tuple(int(p * size + k) for p, k in (source, target)))

    prompt_P = self.owner_PK.max(axis=1) // self.k  # FREE stays negative.
    running_P = (self.owner_PK != FREE).sum(axis=1)
    for prompt in np.unique(prompt_P[prompt_P >= 0]):
      groups = np.flatnonzero(prompt_P == prompt)
      groups = groups[np.argsort(-running_P[groups], kind='stable')]
      num_kept = -(-running_P[groups].sum() // size)
      kept, left = groups[:num_kept], groups[num_kept:]
      free = [(p, k) for p in kept for k in range(size)]
      free = [seat for seat in free if self.owner_PK[seat] == FREE]
      taken = [(p, k) for p in left for k in range(size)]
      taken = [seat for seat in taken if self.owner_PK[seat] != FREE]
      for source, target in zip(taken, free, strict=False):
        shift(source, target)
    in_use_P = self._in_use()
    num = in_use_P.sum()
    holes = np.flatnonzero(~in_use_P[:num])
    for p, hole in zip(
      num + np.flatnonzero(in_use_P[num:]), holes, strict=True
    ):
      for k in np.flatnonzero(self.owner_PK[p] != FREE):
        shift((p, k), (hole, k))
    return moves

  def seat(self, prompts: list[int]) -> np.ndarray:
    """Gives the first prompts that fit the lowest free groups.

    Returns the groups of each, [R, J]; R of the prompts fit.
    """
    free = np.flatnonzero(~self._in_use())
    num = min(len(prompts), len(free) // self.groups_each)
    group_RJ = free[: num * self.groups_each].reshape(num, self.groups_each)
    for n, group_J in zip(prompts, group_RJ, strict=False):
      flat = np.full(self.groups_each * self.owner_PK.shape[1], FREE)
      flat[: self.k] = n * self.k + np.arange(self.k)
      self.owner_PK[group_J] = flat.reshape(self.groups_each, -1)
    return group_RJ

  def _in_use(self) -> np.ndarray:
    return (self.owner_PK != FREE).any(axis=1)


def empty(num_prompts: int, k: int, slots: int, group: int) -> Seating:
  """Nothing runs; as many groups as the slots make, and one prompt at least."""
  size = min(group, k)
  each = -(-k // size)
  num = max(each, min(slots // size, num_prompts * each))
  return Seating(np.full((num, size), FREE), k)
