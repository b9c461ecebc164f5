"""Chat templates: a conversation becomes the text that a model was trained on.

The templates are the checkpoints' own Jinja programs. They run in a sandbox
that gives them what transformers' renderer gives (loop controls, `tojson`,
`raise_exception`, `strftime_now`), with one difference: the date is constant,
so a prompt is the same tomorrow.
"""

import dataclasses
import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

from erp_jax.core import errors

# The date that Llama 3.1's template falls back to; 3.2's asks for today.
DATE = datetime.datetime(2024, 7, 26)

# The template of checkpoints that have none.
NONE = '{{ raise_exception("the checkpoint has no chat template") }}'

Message = Mapping[str, str]  # 'role' and 'content'.

_PROBE = {'role': 'user', 'content': 'user-probe'}


def conversation(
  prompt: str | Sequence[Message], system_prompt: str = ''
) -> list[Message]:
  """Messages of a prompt, which may already be a list of messages.

  An empty system prompt adds no turn: the template's default applies.
  """
  if isinstance(prompt, str):
    prompt = [{'role': 'user', 'content': prompt}]
  if not system_prompt:
    return list(prompt)
  if prompt[0]['role'] == 'system':
    raise errors.UserError(
      f'system_prompt is {system_prompt!r}, but the conversation starts with a '
      'system message of its own: give one of them.'
    )
  return [{'role': 'system', 'content': system_prompt}, *prompt]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
  """A checkpoint's chat template.

  Raises UserError where the template cannot be compiled.
  """

  source: str  # Jinja.
  tokens: Mapping[str, str]  # bos_token, eos_token, ... as text.

  def __post_init__(self):
    try:
      self._program  # noqa: B018 (compiles)
    except jinja2.TemplateError as error:
      raise errors.UserError(
        f'the chat template cannot be compiled: {error}; mend the template of '
        'the checkpoint.'
      ) from error

  def render(
    self,
    messages: Sequence[Message],
    generation_prompt: bool = True,
    thinking: str = 'default',
  ) -> str:
    """Text of the conversation, with the head of the answer's turn.

    `thinking` 'off' or 'on' sets the template's variable `enable_thinking` to
    False or True; 'default' leaves it undefined.

    Where the template has no system role (Gemma's raises, others drop the
    text), the system text goes before the first user turn, with a blank line.
    Raises UserError if the template refuses the conversation, or has no
    switch for thinking where one is set.
    """
    if thinking != 'default' and not self._has_thinking_switch:
      raise errors.UserError(
        f'thinking is {thinking!r}, but the chat template reads no variable '
        "enable_thinking: set arms.NAME.thinking='default'."
      )
    if messages[0]['role'] == 'system' and not self._has_system_role:
      system, first, *rest = messages
      text = f'{system["content"]}\n\n{first["content"]}'
      messages = [{**first, 'content': text}, *rest]
    try:
      return self._run(messages, generation_prompt, thinking)
    except jinja2.TemplateError as error:
      roles = ', '.join(message['role'] for message in messages)
      raise errors.UserError(
        f'the chat template refuses a conversation of the roles {roles}: '
        f'{error}.'
      ) from error

  @functools.cached_property
  def _program(self) -> jinja2.Template:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[jinja2.ext.loopcontrols],
    )
    env.filters['tojson'] = functools.partial(json.dumps, ensure_ascii=False)
    env.globals['raise_exception'] = _refuse
    env.globals['strftime_now'] = DATE.strftime
    return env.from_string(self.source)

  @functools.cached_property
  def _has_system_role(self) -> bool:
    probe = [{'role': 'system', 'content': 'system-probe'}, _PROBE]
    try:
      return 'system-probe' in self._run(probe)
    except jinja2.TemplateError:
      return False

  @functools.cached_property
  def _has_thinking_switch(self) -> bool:
    try:
      off, on = (self._run([_PROBE], thinking=mode) for mode in ('off', 'on'))
    except jinja2.TemplateError:
      return False
    return off != on

  def _run(
    self,
    messages: Sequence[Message],
    generation_prompt: bool = True,
    thinking: str = 'default',
  ) -> str:
    names = {
      'date_string': DATE.strftime('%d %b %Y'),
      'tools': None,
      'documents': None,
      **self.tokens,
    }
    if thinking != 'default':
      names['enable_thinking'] = thinking == 'on'
    return self._program.render(
      messages=messages, add_generation_prompt=generation_prompt, **names
    )


def _refuse(message: str) -> NoReturn:
  raise jinja2.TemplateError(message)
