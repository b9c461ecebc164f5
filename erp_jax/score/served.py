"""Rewards from servers: a judge by chat completions, and vLLM's scores.

`/score` and `/classify` are vLLM's, beside /v1 (0.11.1 and later, which have
`use_activation`; without it a score comes through a sigmoid):

  POST /score {"model": M, "text_1": PROMPT, "text_2": [RESPONSE, …],
    "use_activation": false}
  -> {"data": [{"index": 0, "score": 1.5}, …], "usage": {"prompt_tokens": 9}}

reads pairs (DeBERTa, ModernBERT and other cross-encoders), and

  POST /classify {"model": M, "messages": [{"role": "user", …},
    {"role": "assistant", …}], "use_activation": false}
  -> {"data": [{"index": 0, "probs": [1.5], "num_classes": 1}], "usage": …}

conversations by the checkpoint's chat template (decoders with a reward head).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import endpoint as endpoint_lib
from erp_jax.core import errors
from erp_jax.score import likelihood

SCORE, CLASSIFY = APIS = 'score', 'classify'
_YES, _NO = 'Yes', 'No'
_LISTED = 20  # Tokens of an answer; OpenAI and vLLM list no more.


class _Read(NamedTuple):
  """Rewards that one answer gives, and positions read.

  Attributes:
    num_missing: of a judge's two words, those that the server did not list.
  """

  rewards: list[float]
  positions: int
  num_missing: int = 0


@dataclasses.dataclass
class ServedScorer:
  """A reward model behind a server.

  Attributes:
    client: a core.client.Client.
    path: what is asked.
    num_cut: nothing is cut here; a server may refuse what is too long.
  """

  client: Any
  path: str
  ask: Callable[[str, Sequence[str]], list[dict[str, Any]]]
  read: Callable[[Any], _Read]
  num_cut: int = 0

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> list[np.ndarray]:
    """Rewards of each prompt's responses, float32."""
    questions, owners = [], []
    for n, (prompt, responses) in enumerate(zip(prompts, texts, strict=True)):
      bodies = self.ask(prompt, responses)
      owners += [n] * len(bodies)
      tokens = len(f'{bodies[:1]}') / endpoint_lib.CHARS_PER_TOKEN
      what = f'the prompt {prompt[:40]!r}'
      questions += [endpoint_lib.Question(what, b, tokens) for b in bodies]
    read = self.client.ask(
      self.path,
      questions,
      self.read,
      lambda one: advance(len(one.rewards), positions=one.positions),
    )
    for name, num in (('bounded', 1), ('neither', 2)):
      self.client.counts[name] += sum(one.num_missing == num for one in read)
    rewards: list[list[float]] = [[] for _ in prompts]
    for n, one in zip(owners, read, strict=True):
      rewards[n] += one.rewards
    for n, responses in enumerate(texts):
      if len(rewards[n]) != len(responses):
        raise errors.UserError(
          f'{self.path} gave {len(rewards[n])} scores of {len(responses)} '
          'responses: is it the API of vLLM that its name says?'
        )
    return [np.array(row, np.float32) for row in rewards]

  def take_counts(self) -> dict[str, int]:
    """Since the last time: requests sent again, and what a judge did not list.

    It listed one of its two words, which makes a bound, or neither.
    """
    names = ('retries', 'bounded', 'neither')
    return {name: self.client.counts.pop(name, 0) for name in names}


def judge_settings(endpoint: endpoint_lib.Endpoint) -> dict[str, Any]:
  """What a judge is sent beside the question, by the kind of its server.

  It does not think first, where its server has a switch for that.
  """
  switch = {'chat_template_kwargs': {'enable_thinking': False}}
  return switch if endpoint.thinks_by_template else {}


def judge(
  client: Any, model: str, question: str, endpoint: endpoint_lib.Endpoint
) -> ServedScorer:
  """logit("Yes") − logit("No") of the first token, as the judge that runs here.

  The difference of two log-probabilities is that of their logits. Where only
  one of the words is among the tokens that the server lists, the other counts
  as likely as the last of them; without both there is no reward.
  """

  def ask(prompt, responses):
    return [
      {
        'model': model,
        'messages': [
          {
            'role': 'user',
            'content': likelihood.asked(prompt, text, question),
          }
        ],
        'temperature': 1.0,
        endpoint.limit_name: 1,
        'logprobs': True,
        'top_logprobs': _LISTED,
        **judge_settings(endpoint),
      }
      for text in responses
    ]

  return ServedScorer(client, '/chat/completions', ask, _yes_minus_no)


def scores(client: Any, model: str, api: str, max_tokens: int) -> ServedScorer:
  """Raw scores by vLLM's API for pairs or for conversations.

  With `max_tokens`, the server cuts what is longer.
  """
  common = {'model': model, 'use_activation': False}
  if max_tokens:
    common['truncate_prompt_tokens'] = max_tokens

  def pairs(prompt, responses):
    return [{**common, 'text_1': prompt, 'text_2': list(responses)}]

  def conversations(prompt, responses):
    said = lambda role, text: {'role': role, 'content': text}
    return [
      {**common, 'messages': [said('user', prompt), said('assistant', text)]}
      for text in responses
    ]

  ask = {SCORE: pairs, CLASSIFY: conversations}[api]
  read = {SCORE: _scores, CLASSIFY: _only_class}[api]
  return ServedScorer(client, client.url_of(f'/{api}'), ask, read)


def _yes_minus_no(answer: Any) -> _Read:
  """Of the tokens that an answer lists for its first; NaN without both.

  NaN too of what a content filter refuses.
  """
  choice = endpoint_lib.choice(answer)
  end = endpoint_lib.field(choice, 'finish_reason')
  if end == endpoint_lib.CONTENT_FILTER:
    return _Read([math.nan], _positions(answer))
  try:
    first = choice['logprobs']['content'][0]
    listed = {one['token']: one['logprob'] for one in first['top_logprobs']}
    bound = min(listed.values())
  except (KeyError, TypeError, IndexError, ValueError) as e:
    raise errors.UserError(
      'the server lists no tokens with their logprobs (top_logprobs), which '
      "kind 'served_judge' needs: take vLLM, SGLang, llama.cpp's server or a "
      'hosted API that lists them.'
    ) from e
  words = [listed.get(word) for word in (_YES, _NO)]
  num_missing = words.count(None)
  if num_missing == 2:
    return _Read([math.nan], _positions(answer), num_missing)
  yes, no = (bound if word is None else word for word in words)
  return _Read([yes - no], _positions(answer), num_missing)


def _scores(answer: Any) -> _Read:
  try:
    data = sorted(answer['data'], key=lambda one: one['index'])
    found = [_number(one['score']) for one in data]
  except (KeyError, TypeError, ValueError) as e:
    raise endpoint_lib.UnreadableError(f'no scores: {answer!r}') from e
  return _Read(found, _positions(answer))


def _only_class(answer: Any) -> _Read:
  try:
    values = [_number(value) for value in answer['data'][0]['probs']]
  except (KeyError, TypeError, IndexError, ValueError) as e:
    raise endpoint_lib.UnreadableError(f'no classes: {answer!r}') from e
  if len(values) != 1:
    raise errors.UserError(
      f'the server gives {len(values)} classes, but a reward model has one '
      'score: choose another rewards.NAME.model.'
    )
  return _Read(values, _positions(answer))


def _number(value: Any) -> float:
  """NaN of null, as JSON has it of what is not finite."""
  return math.nan if value is None else float(value)


def _positions(answer: Mapping[str, Any]) -> int:
  usage = answer.get('usage') or {}
  return int(usage.get('prompt_tokens') or 0)
