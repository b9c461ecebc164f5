"""Responses of an arm that is served elsewhere, by chat completions.

One request for each response: then its tokens and its end are known, a failure
costs one response, and each has a seed of its own. Servers read the prompt that
the K of them share once, or charge less for it.
"""

import collections
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from erp_jax.core import endpoint as endpoint_lib
from erp_jax.core import errors
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.data import thinking
from erp_jax.sample import noise

_log = logging.getLogger(__name__)

FILTERED, EMPTY = endpoint_lib.CONTENT_FILTER, 'empty'
_ENDS = ('stop', 'length', FILTERED, EMPTY)
_ANSWERED_AS = 'answered_as '  # Begins the counts of replies by their source.
# What /v1/models calls the owner of what it lists, by our name of the server.
_OWNERS = {'vllm': 'vllm', 'sglang': 'sglang', 'llamacpp': 'llama.cpp'}
_SEEDS = 2**31  # What every server takes.
_THINKING = {'on': True, 'off': False}
# What is worth a warning, by its count.
_WARNINGS = {
  FILTERED: 'were stopped by a content filter',
  EMPTY: 'hold no choice',
  'other_end': 'ended neither by a stop nor at the limit',
  'missing_usage': 'do not say how many tokens they have: costs that go by '
  'tokens cannot be had',
}


class Reply(NamedTuple):
  """One response, as the server tells it.

  Attributes:
    num_tokens, prompt_tokens: None where it does not say.
    usd: what it cost, where the server says it.
    answered_as: the model, and its fingerprint if there is one.
  """

  text: str
  finish_reason: str
  num_tokens: int | None
  prompt_tokens: int | None
  usd: float
  answered_as: str


class ServedArm:
  """Draws one arm's responses."""

  def __init__(self, name: str, arm: arms_lib.Arm, prompts, cfg):
    """`cfg` is a SampleConfig. Raises UserError for another kind of server."""
    self._name, self._arm, self._prompts, self._cfg = name, arm, prompts, cfg
    self._client = endpoint_lib.client_module().Client(
      f'arms.{name}', arm.endpoint
    )
    self._served = self._client.models()
    self._check_server()

  def draw(
    self, part: slice, advance: Callable[..., None]
  ) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of the responses to some prompts, by prompt and k, and counts."""
    asked, k = self._prompts[part], self._cfg.k
    limit = self._cfg.max_new_tokens

    def done(reply: Reply) -> None:
      tokens = reply.num_tokens or 0
      advance(tokens, skipped=limit - tokens)

    replies = self._client.ask(
      '/chat/completions', self._questions(asked), self._read, done
    )
    rows = [
      {
        'prompt_id': prompt.id,
        'k': j,
        'arm': self._name,
        'text': reply.text,
        'num_tokens': reply.num_tokens,
        'prompt_tokens': reply.prompt_tokens,
        'finish_reason': reply.finish_reason,
      }
      for n, prompt in enumerate(asked)
      for j, reply in enumerate(replies[n * k : (n + 1) * k])
    ]
    return rows, self._count(replies)

  def end(self, counts: Mapping[str, float]) -> dict[str, Any]:
    """Says what was drawn; what the manifest records of the server."""
    cost = f', {counts["usd"]:.2f} USD by its own count'
    _log.info(
      'sample %s: %d tokens of %s, %d requests sent again%s',
      *(self._name, counts['tokens'], self._arm.endpoint.url),
      *(counts['retries'], cost if counts['usd'] else ''),
    )
    for name, words in _WARNINGS.items():
      if counts[name]:
        _log.warning(
          'sample %s: %d responses %s.', self._name, counts[name], words
        )
    return {
      'served': {
        'url': self._arm.endpoint.url,
        'models': [f'{entry.get("id")}' for entry in self._served],
        'answered_as': sorted(
          name.removeprefix(_ANSWERED_AS)
          for name in counts
          if name.startswith(_ANSWERED_AS)
        ),
      }
    }

  def _questions(self, prompts: Sequence[prompts_lib.Prompt]) -> list[Any]:
    arm, cfg = self._arm, self._cfg
    system = [{'role': 'system', 'content': arm.system_prompt}]
    common = {
      'model': arm.model,
      'temperature': cfg.temperature,
      arm.endpoint.limit_name: cfg.max_new_tokens,
      **arm.endpoint.settings,
    }
    if arm.thinking in _THINKING:
      switch = {'enable_thinking': _THINKING[arm.thinking]}
      common['chat_template_kwargs'] = switch
    seeds = _seeds(arm.noise_name(self._name), prompts, cfg.k, cfg.seed)
    questions = []
    for prompt, seeds_of in zip(prompts, seeds, strict=True):
      messages = [
        *(system if arm.system_prompt else []),
        {'role': 'user', 'content': prompt.prompt},
      ]
      read = (
        len(arm.system_prompt + prompt.prompt) / endpoint_lib.CHARS_PER_TOKEN
      )
      questions += [
        endpoint_lib.Question(
          f'prompt {prompt.id!r}',
          {**common, 'messages': messages, 'seed': seed},
          tokens=read + cfg.max_new_tokens,
          shorten=', or lower sample.max_new_tokens in another --workdir',
        )
        for seed in seeds_of
      ]
    return questions

  def _read(self, answer: Any) -> Reply:
    reply = read_reply(answer)
    if (reply.num_tokens or 0) > self._cfg.max_new_tokens:
      raise errors.UserError(
        f'arms.{self._name}: {self._arm.endpoint.url} wrote '
        f'{reply.num_tokens} tokens, more than sample.max_new_tokens '
        f'{self._cfg.max_new_tokens}: it does not go by '
        f'{self._arm.endpoint.limit_name}; set endpoint.limit_name to one of '
        f'{", ".join(endpoint_lib.LIMIT_NAMES)}, or raise the limit.'
      )
    return reply

  def _count(self, replies: Sequence[Reply]) -> dict[str, float]:
    ends = collections.Counter(reply.finish_reason for reply in replies)
    sources = collections.Counter(reply.answered_as for reply in replies)
    retries = self._client.counts.pop('retries', 0)
    return {
      **{f'{_ANSWERED_AS}{name}': n for name, n in sources.items() if name},
      'tokens': sum(reply.num_tokens or 0 for reply in replies),
      'prompt_tokens': sum(reply.prompt_tokens or 0 for reply in replies),
      'retries': retries,
      'usd': sum(reply.usd for reply in replies),
      FILTERED: ends[FILTERED],
      EMPTY: ends[EMPTY],
      'other_end': sum(n for end, n in ends.items() if end not in _ENDS),
      'missing_usage': sum(
        None in (reply.num_tokens, reply.prompt_tokens) for reply in replies
      ),
    }

  def _check_server(self) -> None:
    """UserError if the server says that it is another, or serves others."""
    arm, where = self._arm, f'arms.{self._name}'
    owners = {f'{entry.get("owned_by")}' for entry in self._served}
    found = {_OWNERS[owner] for owner in owners & set(_OWNERS)}
    if found and arm.endpoint.server not in found:
      raise errors.UserError(
        f'{where}.endpoint.server is {arm.endpoint.server!r}, but '
        f'{arm.endpoint.url} says that it is {", ".join(found)}, which would '
        'sample with settings of its own: set it to that.'
      )
    names = [f'{entry.get("id")}' for entry in self._served]
    # Lists of hosted APIs leave out what they have under other names.
    if found and arm.model not in names:
      raise errors.UserError(
        f'{where}.model is {arm.model!r}, but {arm.endpoint.url} serves '
        f'{", ".join(names)}: set it to one of these.'
      )


def read_reply(answer: Any) -> Reply:
  """A parsed chat completion; UnreadableError if it is none."""
  choice = endpoint_lib.choice(answer)
  usage = endpoint_lib.field(answer, 'usage')
  count = lambda n: n if isinstance(n, int) else None
  usd = endpoint_lib.field(usage, 'cost')  # OpenRouter's.
  named = [
    endpoint_lib.field(answer, name) for name in ('model', 'system_fingerprint')
  ]
  rest = {
    'num_tokens': count(endpoint_lib.field(usage, 'completion_tokens')),
    'prompt_tokens': count(endpoint_lib.field(usage, 'prompt_tokens')),
    'usd': usd if isinstance(usd, int | float) else 0.0,
    'answered_as': ' '.join(f'{name}' for name in named if name),
  }
  if choice is None:
    return Reply('', EMPTY, **rest)
  message = endpoint_lib.field(choice, 'message')
  end = f'{endpoint_lib.field(choice, "finish_reason") or "none"}'
  said = (
    endpoint_lib.field(message, 'content')
    or endpoint_lib.field(message, 'refusal')
    or ''
  )
  thought = (
    endpoint_lib.field(message, 'reasoning_content')
    or endpoint_lib.field(message, 'reasoning')
    or ''
  )
  if not isinstance(said, str) or not isinstance(thought, str):
    raise endpoint_lib.UnreadableError(f'no text in {message!r}')
  text = thinking.whole_text(thought, said, is_cut=end == 'length')
  return Reply(text, end, **rest)


def _seeds(
  arm: str, prompts: Sequence[prompts_lib.Prompt], k: int, seed: int
) -> list[list[int]]:
  """A seed for each of K responses of each prompt; no two of a prompt agree.

  Each is named by what it draws, as the noise of responses that are drawn here.
  A server may ignore it, and seldom repeats a response to the bit.
  """
  words_NKJ = noise.response_words(arm, [p.id for p in prompts], k)
  found = []
  for words_J in words_NKJ[:, 0, :4]:
    name = f'{seed} {words_J.tolist()}'.encode()
    first = int.from_bytes(hashlib.sha256(name).digest()[:4])
    found.append([(first + j) % _SEEDS for j in range(k)])
  return found
