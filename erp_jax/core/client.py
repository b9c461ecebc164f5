"""Questions to a server of OpenAI's API, many at once, each until answered.

The one module that knows the package `openai` (extra `serve-arms`). A key is
read from the environment, sent, and never shown: what a server says is cleared
of it before it comes into a message.
"""

import asyncio
import collections
import email.utils
import json
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openai

from erp_jax.core import endpoint as endpoint_lib
from erp_jax.core import errors

_log = logging.getLogger(__name__)

_FIRST_WAIT_SECS, _LONGEST_WAIT_SECS = 0.5, 60.0
_CONNECT_SECS = 10.0
_WARN_EVERY_SECS = 30.0
_LONGEST_QUOTE = 300
# Asked again: too early, a conflict, too many. And all that are the server's
# fault but 'not implemented'.
_AGAIN = (408, 409, 425, 429)
_TIMED_OUT = (408, 504, 524)  # 524 is Cloudflare's.
_NOT_IMPLEMENTED = 501
# Of the list of models: not there, not for this key, or of another kind.
_UNLISTED = (400, 403, 404, 405, _NOT_IMPLEMENTED)
_MOST_UNREADABLE = 5  # Answers to one question.
_MOST_TIMEOUTS = 5  # Of one question, while others are answered.
_REFUSED_CONTENT = (endpoint_lib.CONTENT_FILTER, 'invalid_prompt')  # Of a 400.
_NO_CREDIT = 'insufficient_quota'  # A 429 that no waiting mends.
_UNREADABLE = (
  endpoint_lib.UnreadableError,
  json.JSONDecodeError,
  UnicodeDecodeError,
)


class Client:
  """Asks one server.

  Attributes:
    counts: `retries`: requests that were sent again.
  """

  def __init__(self, field: str, endpoint: endpoint_lib.Endpoint):
    """`field` is the config's that holds the endpoint: 'arms.big'.

    Raises UserError for a key that cannot be sent.
    """
    self.counts: collections.Counter[str] = collections.Counter()
    self._field = field
    self._endpoint = endpoint
    self._url = endpoint.url.rstrip('/')
    self._key = _key(endpoint.key_name)
    self._pace = _Pace(endpoint.traffic)
    self._answered = self._warned = -float('inf')  # Seconds, monotonic.

  def ask(
    self,
    path: str,
    questions: Sequence[endpoint_lib.Question],
    read: Callable[[Any], Any],
    done: Callable[[Any], None],
  ) -> list[Any]:
    """What `read` makes of each question's answer, in order.

    Args:
      path: after the URL, as '/chat/completions'; or a whole URL.
      read: of parsed JSON. Raises UnreadableError for what is not as it
        should be, or UserError to end it all.
      done: called with each result as it comes, in this thread.
    Raises UserError if the server refuses for good, answers one question some
    times with what cannot be read, lets one time out again and again for
    `traffic.patience_secs` while it answers others, or has answered nothing
    for so long.
    """
    answers: list[Any] = [None] * len(questions)
    came: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
    # In a thread, since what a signal raises in this one would break the loop.
    loop = asyncio.new_event_loop()
    task = loop.create_task(self._ask_all(path, questions, read, came))
    thread = threading.Thread(target=_run, args=(loop, task, came))
    thread.start()
    try:
      while (one := came.get()) is not None:
        answers[one[0]] = one[1]
        done(one[1])
    finally:
      loop.call_soon_threadsafe(task.cancel)  # It may be done.
      thread.join()
      loop.close()
      error = None if task.cancelled() else task.exception()
    if error:
      raise error
    return answers

  def models(self) -> list[dict[str, Any]]:
    """What the server says that it serves; empty if it does not say."""

    def read(answer):
      listed = answer.get('data') if isinstance(answer, Mapping) else answer
      if not isinstance(listed, list):
        return []
      return [entry for entry in listed if isinstance(entry, Mapping)]

    question = endpoint_lib.Question('the list of models', None)
    try:
      return self.ask('/models', [question], read, lambda _: None)[0]
    except _RefusedError as e:
      if e.status and e.status not in _UNLISTED:
        raise
      return []

  def url_of(self, path: str) -> str:
    """That of an API which lies beside /v1, not below it."""
    return self._url.removesuffix('/v1') + path

  async def _ask_all(self, path, questions, read, came) -> None:
    """Puts (index, result) of each question into the queue `came`."""
    todo = iter(range(len(questions)))
    server = openai.AsyncOpenAI(
      api_key=self._key or 'none',  # The package insists on one.
      base_url=self._url,
      max_retries=0,
      timeout=openai.Timeout(None, connect=_CONNECT_SECS),
    )

    async def work() -> None:
      for i in todo:
        came.put((i, await self._answer(server, path, questions[i], read)))

    async with server:
      workers = [
        asyncio.create_task(work())
        for _ in range(min(self._endpoint.traffic.concurrency, len(questions)))
      ]
      try:
        await asyncio.gather(*workers)
      finally:
        for worker in workers:
          worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

  async def _answer(
    self, server, path, question: endpoint_lib.Question, read
  ) -> Any:
    """Asks until there is an answer that can be read."""
    wait, failed, unreadable = _FIRST_WAIT_SECS, float('inf'), 0
    late: list[float] = []  # When it timed out while others were answered.
    before = time.monotonic()
    while True:
      await self._pace.turn(question.tokens)
      asked, is_late = 0.0, False
      try:
        # Of all of it: a server may send a blank now and then.
        async with asyncio.timeout(self._endpoint.traffic.timeout_secs):
          answer = await _send(server, path, question.body)
        result = read(answer)
      except openai.APIStatusError as e:
        self._check_worth_retrying(e, question)
        problem = f'{e.status_code}, {self._said(e)}'
        asked = _asked_wait(e.response.headers)
        is_late = e.status_code in _TIMED_OUT
      except openai.APIConnectionError as e:
        problem = self._said(e.__cause__ or e)
      except TimeoutError:
        secs = self._endpoint.traffic.timeout_secs
        problem = f'nothing whole within {secs:g} s'
        is_late = True
      except _UNREADABLE as e:
        problem = f'what cannot be read: {self._said(e)}'
        unreadable += 1
        self._check_readable(unreadable, question, problem)
      else:
        self._answered = time.monotonic()
        self._pace.settle(question.tokens, _used(answer, question.tokens))
        return result
      now = time.monotonic()
      failed = min(failed, now)
      if is_late:
        # A server that answers nobody is not this question's fault.
        if self._answered > before:
          late.append(now)
        more = (
          f'raise {self._field}.endpoint.traffic.timeout_secs or the limit of '
          f'a proxy, lower concurrency there{question.shorten}'
        )
        self._check_in_time(late, question.what, problem, more)
        problem = f'{problem}: {more}'
      silent = now - max(failed, self._answered)
      self._check_patience(silent, asked, f'{question.what}: {problem}')
      before = now
      self.counts['retries'] += 1
      self._warn(now, problem)
      if asked:
        self._pace.hold(asked)
      else:  # Not all at the same moment.
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        wait = min((4 if unreadable else 2) * wait, _LONGEST_WAIT_SECS)

  def _check_worth_retrying(self, e, question: endpoint_lib.Question) -> None:
    """UserError for a status that asking again does not change."""
    status = e.status_code
    passes = status in _AGAIN or status >= 500 and status != _NOT_IMPLEMENTED
    if passes and _NO_CREDIT not in f'{e.body}':
      return
    is_set = 'is set, but refused' if self._key else 'is not set'
    name = self._endpoint.key_name
    key = (
      f'put its key into ${name}, which {is_set}'
      if name
      else f'set {self._field}.endpoint.key_env to the name of the environment '
      'variable that holds its key; none was sent'
    )
    there = f'{self._field}.model, and {self._field}.endpoint.url'
    fix = {
      401: key,
      403: key,
      404: f'check {there}, which mostly ends in /v1',
      429: 'add credit, and start the same command again',
    }.get(
      status, 'shorten it or drop it in prompts.path, or correct the config'
    )
    raise _RefusedError(
      f'{self._field}: {self._url} answers {question.what} with {status} '
      f'({self._said(e)}): {fix}.',
      status,
    ) from e

  def _check_readable(
    self, num: int, question: endpoint_lib.Question, problem: str
  ) -> None:
    """UserError after some unreadable answers; for what is only a look, one."""
    if num >= (_MOST_UNREADABLE if question.body is not None else 1):
      raise _RefusedError(
        f'{self._field}: {self._url} answers {question.what} with {problem}, '
        f'{num} times: check that {self._field}.endpoint.url is the API that '
        'the config says; if it is, start the same command again: finished '
        'shards are kept.'
      )

  def _check_in_time(
    self, late: Sequence[float], what: str, problem: str, fix: str
  ) -> None:
    """UserError once a question has timed out too often, for too long."""
    secs = late[-1] - late[0] if late else 0.0
    patience = self._endpoint.traffic.patience_secs
    if len(late) >= _MOST_TIMEOUTS and secs >= patience:
      raise errors.UserError(
        f'{self._field}: {self._url} answers others, but {what} timed out '
        f'{len(late)} times in {secs:.0f} s ({problem}): {fix}; then start '
        'the same command again: finished shards are kept.'
      )

  def _check_patience(self, silent: float, asked: float, problem: str) -> None:
    patience = self._endpoint.traffic.patience_secs
    if asked > patience:
      what = f'asks to wait for {asked:.0f} s'
    elif silent >= patience:
      what = f'has answered nothing for {silent:.0f} s'
    else:
      return
    raise errors.UserError(
      f'{self._field}: {self._url} {what} ({problem}), and '
      f'{self._field}.endpoint.traffic.patience_secs is {patience:g}: see that '
      'it runs, then start the same command again: finished shards are kept.'
    )

  def _warn(self, now: float, problem: str) -> None:
    """Says now and then that questions are asked again."""
    if now - self._warned >= _WARN_EVERY_SECS:
      self._warned = now
      _log.warning(
        '%s: %s answers with %s; asking again, for up to %g s.',
        *(self._field, self._url, problem),
        self._endpoint.traffic.patience_secs,
      )

  def _said(self, e: BaseException) -> str:
    """What an exception says, on one line of some length, without the key."""
    body = getattr(e, 'body', None)  # What the server sent.
    said = body.get('message') if isinstance(body, Mapping) else None
    words = ' '.join(f'{said or e}'.split()) or type(e).__name__
    if self._key:
      words = words.replace(self._key, f'${self._endpoint.key_name}')
    return words[:_LONGEST_QUOTE]


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task, came) -> None:
  """Runs a task to its end, then says so by a None in the queue `came`."""
  try:
    loop.run_until_complete(asyncio.wait([task]))
    loop.run_until_complete(loop.shutdown_default_executor())
  finally:
    came.put(None)


async def _send(
  server: openai.AsyncOpenAI, path: str, body: Mapping[str, Any] | None
) -> Any:
  if body is None:
    return await server.get(path, cast_to=object)
  try:
    return await server.post(path, cast_to=object, body=body)
  except openai.BadRequestError as e:
    if e.code not in _REFUSED_CONTENT:
      raise
    return endpoint_lib.FILTERED


def _key(name: str) -> str:
  """The key in an environment variable, '' without one."""
  key = os.environ.get(name, '').strip()
  if not (key.isascii() and key.isprintable()):
    # Who sends it would quote it.
    raise errors.UserError(
      f'${name} holds more than a key, which is one line of ASCII: set it anew.'
    )
  return key


class _RefusedError(errors.UserError):
  """A question has no answer, by this status; 0 if it cannot be read."""

  def __init__(self, message: str, status: int = 0):
    super().__init__(message)
    self.status = status


class _Pace:
  """When the next request may be sent."""

  def __init__(self, traffic: endpoint_lib.Traffic):
    per_minute = lambda limit: 60 / limit if limit else 0.0
    self._request_secs = per_minute(traffic.requests_per_minute)
    self._token_secs = per_minute(traffic.tokens_per_minute)
    self._next = self._held_until = 0.0

  async def turn(self, tokens: float) -> None:
    """Waits until a request of about so many tokens may be sent."""
    while (now := time.monotonic()) < (
      then := max(self._next, self._held_until)
    ):
      await asyncio.sleep(then - now)
    self._next = now + max(self._request_secs, tokens * self._token_secs)

  def settle(self, expected: float, used: float) -> None:
    """Gives back what an answer did not use of its tokens."""
    self._next -= (expected - used) * self._token_secs

  def hold(self, secs: float) -> None:
    """Sends nothing for so long."""
    self._held_until = max(self._held_until, time.monotonic() + secs)


def _used(answer: Any, expected: float) -> float:
  """Tokens read and written, where the answer says it."""
  usage = answer.get('usage') if isinstance(answer, Mapping) else None
  total = usage.get('total_tokens') if isinstance(usage, Mapping) else None
  return total if isinstance(total, int) else expected


def _asked_wait(headers: Mapping[str, str]) -> float:
  """Seconds that the headers ask to wait: a number, or a date; else 0."""
  value = headers.get('retry-after', '')
  try:
    return max(0.0, float(value))
  except ValueError:
    pass
  try:
    then = email.utils.parsedate_to_datetime(value)
  except ValueError:
    return 0.0
  return max(0.0, then.timestamp() - time.time())
