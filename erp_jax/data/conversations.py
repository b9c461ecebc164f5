"""Conversations: what a user asked first in one, which is the paper's prompt.

A conversation is a list of turns, each {from, value} as ShareGPT has them or
{role, content} as chat templates do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from erp_jax.core import errors

NO_USER_TURN, EMPTY_USER_TURN = 'no_user_turn', 'empty_user_turn'

_KEYS = (('from', 'value'), ('role', 'content'))
_SYSTEM = ('system',)
_USER = ('human', 'user')
_OTHERS = (
  *('gpt', 'assistant', 'model', 'chatgpt', 'bing', 'bard'),
  *('tool', 'function', 'function_call', 'observation'),
)


class Opening(NamedTuple):
  """What a conversation asks first."""

  text: str
  missing: str  # Why there is no text; empty where there is.


def opening(turns: Any, keep_system: bool, where: str) -> Opening:
  """The first user turn; after the system turns before it, if these are kept.

  Texts stand as they are, with an empty line between two. A system turn after
  the first user turn is not read, and neither are the answers.
  Raises UserError, naming the place, unless `turns` is a list of turns of known
  roles, or nothing.
  """
  if not isinstance(turns, list | None):
    raise errors.UserError(
      f'{where} has a conversation {turns!r:.60}, but must have a list of '
      'turns there, each with from and value, or role and content.'
    )
  system = []
  user = None
  for turn in turns or []:
    role, text = _read(turn, where)  # All of them: roles are checked.
    if user is None and role in _SYSTEM and text.strip():
      system.append(text)
    elif user is None and role in _USER:
      user = text
  if user is None:
    return Opening('', NO_USER_TURN)
  if not user.strip():
    return Opening('', EMPTY_USER_TURN)
  return Opening('\n\n'.join([*(system if keep_system else []), user]), '')


def _read(turn: Any, where: str) -> tuple[str, str]:
  """(role, text) of a turn; null is an empty text."""
  keys = [
    pair
    for pair in _KEYS
    if isinstance(turn, Mapping) and all(key in turn for key in pair)
  ]
  if not keys:
    raise errors.UserError(
      f'{where} has a turn {turn!r:.60}, but must have from and value '
      'there, or role and content.'
    )
  role, text = (turn[key] for key in keys[0])
  known = (*_SYSTEM, *_USER, *_OTHERS)
  if role not in known:
    raise errors.UserError(
      f'{where} has a turn of {role!r:.60}, but only these are known: '
      f'{", ".join(known)}; rename it, or delete the turn.'
    )
  if not isinstance(text, str | None):
    raise errors.UserError(
      f'{where} has a turn of {role!r} with {text!r:.60}, but must have a text '
      'there.'
    )
  return role, text or ''
