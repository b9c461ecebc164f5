"""Servers of OpenAI's API: where one is, and how it is asked."""

import dataclasses
import math
import re
import types
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

from erp_jax.core import errors

OPENAI = 'openai'
_OPENAI_HOST = 'api.openai.com'
_SERVED = 'served:'
_NEUTRAL = {
  'top_p': 1.0,
  'top_k': -1,
  'min_p': 0.0,
  'repetition_penalty': 1.0,
}
# What is sent beside the temperature, so that it alone shapes a response. vLLM
# and SGLang take what is not sent from the model's generation_config.json,
# llama.cpp has a top-k of 40, a top-p of 0.95 and a min-p of 0.05. Hosted APIs
# have no such defaults, and refuse names that they do not know.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
  OPENAI: {},
  'vllm': _NEUTRAL,
  'sglang': _NEUTRAL,
  'llama.cpp': {'samplers': ['temperature']},
}
CONTENT_FILTER = 'content_filter'
# Stands for the answer to a prompt that a server refuses for its content.
FILTERED: Mapping[str, Any] = {
  'choices': [{'finish_reason': CONTENT_FILTER, 'message': {}}],
  'usage': {'prompt_tokens': 0, 'completion_tokens': 0, 'total_tokens': 0},
}
CHARS_PER_TOKEN = 4.0  # Roughly, for limits on tokens per minute.
# Ends of what failed behind the server.
_FAILED = ('error', 'abort', 'insufficient_system_resource')
LIMIT_NAMES = ('max_tokens', 'max_completion_tokens')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
  """How fast and how long a server is asked; decides no answer."""

  concurrency: int = 32  # Requests at once.
  timeout_secs: float = 600.0  # Of one request.
  # A server that answers nothing for so long ends the stage. So does a question
  # that times out again and again for so long, while others are answered.
  patience_secs: float = 600.0
  requests_per_minute: float = 0.0  # 0: no limit.
  tokens_per_minute: float = 0.0  # Read and written; 0: no limit.

  def __post_init__(self):
    errors.check_least('endpoint.traffic.concurrency', self.concurrency, 1)
    for name in ('requests_per_minute', 'tokens_per_minute', 'patience_secs'):
      value = getattr(self, name)
      errors.check_least(f'endpoint.traffic.{name}', value, 0)
      if math.isinf(value):
        raise errors.UserError(
          f'endpoint.traffic.{name} is {value}, but must be finite.'
        )
    if not 0 < self.timeout_secs < math.inf:
      raise errors.UserError(
        'endpoint.traffic.timeout_secs must be > 0 and finite, got '
        f'{self.timeout_secs}.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
  """A server that speaks OpenAI's API; without a URL there is none.

  Of these fields an identity holds `revision` and what `server` decides: an
  arm's the `settings`, a judge's its switch for thinking.
  """

  url: str = ''  # As http://HOST:8000/v1. It may change: another port, a proxy.
  server: str = OPENAI  # One of SETTINGS: 'openai' is any hosted API.
  # What is served, in your words, as 'fp8' or a date: nobody can ask a server
  # for the hash of its weights. Another one is another arm.
  revision: str = ''
  # The variable with the key. '' is OPENAI_API_KEY for OpenAI's own server, and
  # no key for all others.
  key_env: str = ''
  limit_name: str = 'max_tokens'  # What it calls the limit on a response.
  traffic: Traffic = Traffic()

  def __post_init__(self):
    errors.check_choice('endpoint.server', self.server, SETTINGS)
    errors.check_choice('endpoint.limit_name', self.limit_name, LIMIT_NAMES)
    if not re.fullmatch('([A-Za-z_][A-Za-z0-9_]*)?', self.key_env):
      # It may be the key itself.
      raise errors.UserError(
        'endpoint.key_env is not the name of an environment variable: put the '
        "key into a variable, and give its name, such as 'OPENAI_API_KEY'."
      )
    if self.url:
      _check_url(self.url)
    elif any(
      getattr(self, f.name) != f.default for f in dataclasses.fields(self)
    ):
      raise errors.UserError(
        'endpoint.url is empty, but other fields of endpoint are set: give the '
        'URL of the server, such as http://localhost:8000/v1.'
      )

  @property
  def key_name(self) -> str:
    """The variable whose key is sent; '' if none is."""
    there = urllib.parse.urlsplit(self.url)
    is_openai = (there.scheme, there.hostname) == ('https', _OPENAI_HOST)
    return self.key_env or ('OPENAI_API_KEY' if is_openai else '')

  @property
  def thinks_by_template(self) -> bool:
    """Whether a request can switch thinking on and off."""
    return self.server != OPENAI

  @property
  def settings(self) -> dict[str, Any]:
    """What is sent beside the temperature."""
    return dict(SETTINGS[self.server])

  def identify(self, model: str) -> str:
    """What stands for the hash of the weights that are served."""
    return f'{_SERVED}{model}@{self.revision}'


def is_served(revision: str | None) -> bool:
  """Whether it is what `Endpoint.identify` says, and no hash of weights."""
  return bool(revision) and revision.startswith(_SERVED)


class Question(NamedTuple):
  """One request.

  Attributes:
    what: it is about, for messages: "prompt 'p1'".
    body: what is posted; None only gets.
    tokens: that it may read and write, about.
    shorten: ', or ' what else mends an answer that takes too long.
  """

  what: str
  body: Mapping[str, Any] | None
  tokens: float = 0.0
  shorten: str = ''


class UnreadableError(ValueError):
  """An answer that is not as its API says; the question is asked again."""


def field(value: Any, name: str) -> Any:
  """A field of a JSON object; None of anything else."""
  return value.get(name) if isinstance(value, Mapping) else None


def choice(answer: Any) -> Any:
  """The first choice of a parsed chat completion; None if it has none.

  Raises UnreadableError for what is none, or failed behind the server.
  """
  choices = field(answer, 'choices')
  if not isinstance(choices, list):
    raise UnreadableError(f'no chat completion: {answer!r}')
  first = choices[0] if choices else None
  failure = field(first if choices else answer, 'error')
  if failure or field(first, 'finish_reason') in _FAILED:
    raise UnreadableError(f'a failure: {failure or first!r}')
  return first


def client_module() -> types.ModuleType:
  """`erp_jax.core.client`; UserError if the extra is not installed."""
  try:
    from erp_jax.core import client
  except ImportError as e:
    raise errors.UserError(
      f'openai, which asks servers, is not installed ({e}): pip install '
      "'erp_jax[serve-arms]'."
    ) from e
  return client


def _check_url(url: str) -> None:
  """UserError unless it is the plain address of a server."""
  if set('@?#') & set(url):
    # What is there may be a secret, and URLs are recorded.
    raise errors.UserError(
      'endpoint.url holds a user, a query or a fragment: leave it out, and put '
      'a key into the environment variable that endpoint.key_env names.'
    )
  try:
    parts = urllib.parse.urlsplit(url)
    is_server = bool(parts.hostname) and parts.port != 0
  except ValueError:
    is_server = False
  if not is_server or parts.scheme not in ('http', 'https'):
    raise errors.UserError(
      f'endpoint.url is {url!r}, but must be http://HOST:PORT/v1 or https://….'
    )
