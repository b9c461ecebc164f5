"""What of a response is thought, and what a user sees.

A model that thinks writes <think>…</think> and then what the user sees, which
is all that is scored.
"""

# Qwen3's; added tokens that are not flagged special, so decoded text has them.
_THINK, _END_THINK = '<think>', '</think>'


def open_thinking(text: str) -> str:
  """The `<think>` with which a rendered prompt ends, or '': its last text.

  Templates of models that always think open the thinking themselves; then
  nothing in a response that is cut before `</think>` would tell. So what is
  kept of a response is this text and what the model wrote after it.
  """
  head, tag, tail = text.rpartition(_THINK)
  return tag + tail if tag and not tail.strip() else ''


def visible_text(response: str) -> str:
  """What a user sees of a response: what follows the last `</think>`.

  Empty where that begins with a `<think>` that is never closed. A response
  that has neither is returned as it is.
  """
  _, tag, seen = response.rpartition(_END_THINK)
  if seen.lstrip().startswith(_THINK):
    return ''
  return seen.lstrip('\n') if tag else seen


def whole_text(thought: str, said: str, is_cut: bool) -> str:
  """A response of which a server gives the two parts, as a model writes it.

  `is_cut` tells that it ended at a limit: without anything said, the thought is
  what was cut, and stays open.
  """
  if not thought:
    return said
  is_open = is_cut and not said
  return f'{_THINK}\n{thought}' + (
    '' if is_open else f'\n{_END_THINK}\n\n{said}'
  )
