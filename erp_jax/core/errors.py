"""The one exception that means: a person can mend this."""

from collections.abc import Iterable, Sequence


class UserError(ValueError):
  """Input, config or file that the user can fix; shown as one line, no trace.

  The message names the value, what is allowed, and the fix.
  """


def said(e: BaseException) -> str:
  """The first line of what an exception says; its name where it says none."""
  return (f'{e}'.strip() or type(e).__name__).splitlines()[0]


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
  """UserError unless the config field `name` is one of the allowed."""
  allowed = tuple(allowed)
  if value not in allowed:
    raise UserError(f'{name} is {value!r}; allowed: {", ".join(allowed)}.')


def check_least(name: str, value: float, least: float) -> None:
  """UserError unless the config field `name` is `least` or more."""
  if not value >= least:
    raise UserError(f'{name} must be >= {least}, got {value}.')


def check_grid(name: str, grid: Sequence[int], lowest: int) -> None:
  """UserError unless the config field `name` ascends from `lowest` or more."""
  if not grid or grid[0] < lowest or list(grid) != sorted(set(grid)):
    raise UserError(f'{name} must ascend from {lowest} or more, got {grid}.')
