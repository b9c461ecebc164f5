"""Asking a real server on loopback that fails in every way it can."""

import datetime
import email.utils
import gc
import re
import threading
import time

import pytest

from erp_jax.core import client as client_lib
from erp_jax.core import endpoint, errors
from tests import servers

_KEY = 'sk-hunter2-0123456789'
_FAULTS = {
  'too many': (429, {'error': {'message': 'slow down'}}, {}),
  'an error': (500, {'error': {'message': 'oops'}}, {}),
  'a bad gateway': (502, b'<html>Bad Gateway</html>', {}),
  'not ready': (503, {'error': {'message': 'Loading model'}}, {}),
  'half of an answer': (200, b'{"choices": [', {}),
  'bytes that are no text': (200, b'{"a": "\xff\xfe"}', {}),
  'HTML': (200, b'<html>Welcome</html>', {'Content-Type': 'text/html'}),
  'another thing': (200, {'error': 'upstream'}, {}),
  'a list': (200, [1], {}),
  'one that never ends': (
    200,
    servers.Slowly([b' ' * 10] * 10 + [{'value': 9}]),
    {},
  ),
}


def _client(server, key_env='OPENAI_API_KEY', **traffic):
  """A client that gives up soon, unless `traffic` says another time."""
  traffic = {'patience_secs': 20.0} | traffic
  return client_lib.Client(
    'arms.big',
    endpoint.Endpoint(
      url=getattr(server, 'url', server),
      key_env=key_env,
      traffic=endpoint.Traffic(**traffic),
    ),
  )


def _questions(num, tokens=0.0):
  return [
    endpoint.Question(f'prompt {n}', {'n': n}, tokens) for n in range(num)
  ]


def _read(answer):
  if not isinstance(answer, dict) or 'value' not in answer:
    raise endpoint.UnreadableError(f'no value: {answer!r}')
  return answer['value']


def _ask(client, questions, done=lambda _: None):
  return client.ask('/echo', questions, _read, done)


def _echo(request):
  return 200, {'value': request.body['n']}, {}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
  """Waits between tries are short, and the key is not the user's."""
  monkeypatch.setattr(client_lib, '_FIRST_WAIT_SECS', 0.01)
  monkeypatch.setenv('OPENAI_API_KEY', _KEY)


@pytest.mark.parametrize('fault', [*_FAULTS, 'a reset'])
def test_a_fault_that_passes_costs_nothing(fault, scripted):
  def answer(request):
    if request.number >= 2:
      return _echo(request)
    if fault == 'a reset':
      raise servers.Reset
    return _FAULTS[fault]

  server = scripted(answer)
  client = _client(
    server, timeout_secs=0.3 if fault == 'one that never ends' else 60.0
  )
  assert _ask(client, _questions(1)) == [0]
  assert [r.body for r in server.requests] == [{'n': 0}] * 3
  assert client.counts['retries'] == 2


@pytest.mark.parametrize('unit', ['seconds', 'a date'])
def test_the_wait_that_a_server_asks_for_is_kept_by_all(unit, scripted):
  asked_at, came_at = [], []
  now = lambda: datetime.datetime.now(datetime.UTC)

  def answer(request):
    came_at.append(time.time())
    if request.number:
      return _echo(request)
    asked_at.append(time.time())
    # A date has whole seconds.
    date = email.utils.format_datetime(now() + datetime.timedelta(seconds=2))
    wait = {'seconds': '1', 'a date': date}[unit]
    return 429, {}, {'Retry-After': wait}

  server = scripted(answer)
  got = _ask(_client(server, concurrency=1), _questions(3))
  assert got == [0, 1, 2]
  assert came_at[1] - asked_at[0] >= 0.9
  assert len(server.requests) == 4


def test_a_wait_beyond_our_patience_ends_it(scripted):
  server = scripted(lambda _: (429, {}, {'Retry-After': '3600'}))
  with pytest.raises(errors.UserError, match='asks to wait for 3600 s.*kept'):
    _ask(_client(server), _questions(4))


@pytest.mark.parametrize(
  'status, code, message',
  [
    (
      400,
      'context_length',
      'prompt 0 with 400 .*: shorten it or drop it in prompts',
    ),
    (401, '', r'put its key into \$OPENAI_API_KEY, which is set, but refused'),
    (403, '', r'put its key into \$OPENAI_API_KEY, which is set, but refused'),
    (404, 'model_not_found', 'check arms.big.model, and arms.big.endpoint.url'),
    (422, '', 'in prompts.path, or correct the config'),
    (429, 'insufficient_quota', 'add credit, and start the same command again'),
    (501, '', 'correct the config'),
  ],
)
def test_a_refusal_is_one_line_without_the_key(status, code, message, scripted):
  """The server of this test quotes the key, as some do."""

  def answer(request):
    said = f'no:\n{request.headers["authorization"]}'
    return status, {'error': {'message': said, 'code': code}}, {}

  server = scripted(answer)
  with pytest.raises(errors.UserError, match=message) as caught:
    _ask(_client(server, concurrency=1), _questions(3))
  line = f'{caught.value}'
  assert len(server.requests) == 1
  assert line.startswith(f'arms.big: {server.url} answers prompt 0 with')
  assert _KEY not in line and '\n' not in line
  assert 'no: Bearer $OPENAI_API_KEY' in line
  assert server.requests[0].headers['authorization'] == f'Bearer {_KEY}'


def test_a_missing_key_is_said(scripted, monkeypatch):
  monkeypatch.delenv('OPENAI_API_KEY')
  server = scripted(lambda _: (401, {}, {}))
  with pytest.raises(errors.UserError, match=r'\$MY_KEY, which is not set'):
    _ask(_client(server, key_env='MY_KEY'), _questions(1))


def test_a_key_goes_only_where_it_was_said_to_go(scripted):
  server = scripted(lambda _: (401, {}, {}))
  with pytest.raises(errors.UserError, match=r'set arms\.big\.endpoint\.key_e'):
    _ask(_client(server, key_env=''), _questions(1))
  assert _KEY not in f'{server.requests[0].headers}'


@pytest.mark.parametrize('key', ['sk-hunter2\nx', 'sk-hunter2-ß'])
def test_a_key_that_cannot_be_sent_is_refused_unquoted(
  key, scripted, monkeypatch
):
  monkeypatch.setenv('OPENAI_API_KEY', key)
  with pytest.raises(errors.UserError, match='holds more than a key') as e:
    _client(scripted(_echo))
  assert 'hunter2' not in f'{e.value}'


def test_warnings_about_faults_hold_no_key(scripted, caplog):
  def answer(request):
    if request.number:
      return _echo(request)
    return 500, {'error': {'message': request.headers['authorization']}}, {}

  _ask(_client(scripted(answer)), _questions(1))
  (warned,) = [m for m in caplog.messages if 'asking again' in m]
  assert '500, Bearer $OPENAI_API_KEY' in warned and _KEY not in warned


def test_a_server_that_is_not_there_ends_it_in_one_line(scripted):
  server = scripted(_echo)
  server.close()
  with pytest.raises(errors.UserError, match='has answered nothing for') as e:
    _ask(_client(server, patience_secs=0.2), _questions(8))
  assert 'finished shards are kept' in f'{e.value}'
  assert 'arms.big.endpoint.traffic.patience_secs is 0.2' in f'{e.value}'


def test_a_server_that_answers_others_is_not_given_up(scripted):
  """One question fails for longer than our patience, while others succeed."""

  def answer(request):
    failed = sum(r.body['n'] == 0 for r in server.requests)
    time.sleep(0.1)
    if request.body['n'] == 0 and failed < 8:
      return 500, {}, {}
    return _echo(request)

  server = scripted(answer)
  client = _client(server, concurrency=2, patience_secs=0.4)
  assert _ask(client, _questions(30)) == list(range(30))


_LATE = {
  'ours': (200, servers.Slowly([b' '] * 8), {}),
  'of a proxy': (504, {'error': {'message': 'upstream timed out'}}, {}),
}


def _late_one(scripted, fault, times=float('inf')):
  """A server that is too late with question 0 so many times, and no other."""

  def answer(request):
    if request.body['n'] == 0:
      late = sum(r.body['n'] == 0 for r in server.requests)
      return _LATE[fault] if late <= times else _echo(request)
    time.sleep(0.02)
    return _echo(request)

  server = scripted(answer)
  return server


@pytest.mark.parametrize(
  'fault, said',
  [
    ('ours', r'nothing whole within 0\.1 s'),
    ('of a proxy', '504, upstream timed out'),
  ],
)
def test_one_that_always_times_out_is_given_up_although_others_are_answered(
  fault, said, scripted
):
  server = _late_one(scripted, fault)
  client = _client(server, concurrency=2, timeout_secs=0.1, patience_secs=0.3)
  with pytest.raises(errors.UserError) as e:
    _ask(client, _questions(400))
  line = f'{e.value}'
  assert re.search(
    rf'arms\.big: {server.url} answers others, but prompt 0 timed out [5-9] '
    rf'times in \d+ s \({said}.*\): raise .*\.timeout_secs .* shards are kept',
    line,
  )
  assert '\n' not in line
  assert 5 <= sum(r.body['n'] == 0 for r in server.requests) <= 20
  assert len(server.requests) < 300  # Others were still to be asked.


@pytest.mark.parametrize(
  'fault, times, patience', [('ours', 4, 0.1), ('of a proxy', 8, 20.0)]
)
def test_one_that_times_out_now_and_then_is_asked_again(
  fault, times, patience, scripted
):
  """Not often enough, or not for long enough, to be given up."""
  server = _late_one(scripted, fault, times)
  client = _client(
    server, concurrency=2, timeout_secs=0.5, patience_secs=patience
  )
  assert _ask(client, _questions(60)) == list(range(60))
  assert client.counts['retries'] == times


def test_timeouts_of_all_are_the_servers(scripted):
  """They count for no question, if one is late again when it is back."""

  def answer(request):
    if request.number < 12:  # More than five of each.
      return _LATE['of a proxy']
    if request.body['n'] == 0 and not late:
      late.append(request)
      time.sleep(2.2)  # Since its first failure, more than our patience.
      return _LATE['of a proxy']
    time.sleep(0.03)
    return _echo(request)

  late = []
  client = _client(scripted(answer), concurrency=2, patience_secs=2.0)
  assert _ask(client, _questions(60)) == list(range(60))
  assert client.counts['retries'] == 13


@pytest.mark.parametrize('limit', [1, 3])
def test_so_many_are_asked_at_once(limit, scripted):
  """The server waits until as many have come, so fewer would never end."""
  together = threading.Barrier(limit)

  def answer(request):
    together.wait(timeout=20)
    return _echo(request)

  server = scripted(answer)
  done = []
  got = _ask(_client(server, concurrency=limit), _questions(12), done.append)
  assert got == list(range(12)) and sorted(done) == got
  assert server.most_at_once == limit


@pytest.mark.parametrize(
  'limits, tokens',
  [
    ({'requests_per_minute': 600.0}, 0.0),
    ({'tokens_per_minute': 6000.0}, 10.0),
  ],
)
def test_limits_per_minute_are_kept(limits, tokens, scripted):
  came_at = []

  def answer(request):
    came_at.append(time.monotonic())
    return _echo(request)

  _ask(_client(scripted(answer), **limits), _questions(8, tokens))
  # One each tenth of a second; a server may see two closer than they were sent.
  assert max(came_at) - min(came_at) >= 0.65


def test_tokens_that_were_not_used_are_given_back(scripted):
  """At a token a second, the second would wait for an hour otherwise."""

  def answer(request):
    _, value, headers = _echo(request)
    return 200, value | {'usage': {'total_tokens': 0}}, headers

  client = _client(scripted(answer), concurrency=1, tokens_per_minute=60.0)
  assert _ask(client, _questions(4, tokens=3600.0)) == [0, 1, 2, 3]


def test_tokens_given_back_do_not_shorten_a_wait_that_was_asked_for(scripted):
  """At a second a request, the second gives back what it did not use."""
  came_at, both = [], threading.Event()

  def answer(request):
    came_at.append(time.monotonic())
    if request.number == 0:
      both.wait(timeout=20)
      return 429, {}, {'Retry-After': '2'}
    if request.number == 1:
      both.set()
      time.sleep(0.2)
    usage = {'total_tokens': 0}
    return 200, {'value': request.body['n'], 'usage': usage}, {}

  client = _client(scripted(answer), concurrency=2, tokens_per_minute=600_000.0)
  assert _ask(client, _questions(3, tokens=10_000.0)) == [0, 1, 2]
  assert came_at[2] - came_at[1] >= 1.9


class _Stopped(KeyboardInterrupt):
  """As a signal raises it."""


def test_what_stops_the_work_gets_through(scripted, caplog):
  """At once, although the server holds the other answers back."""
  stopped = threading.Event()

  def answer(request):
    if request.number:
      stopped.wait(timeout=20)
    return _echo(request)

  def done(_):
    raise _Stopped

  server = scripted(answer)
  client = _client(server)
  with pytest.raises(_Stopped):
    _ask(client, _questions(40), done)
  stopped.set()
  gc.collect()  # What asyncio has to say of tasks, it says then.
  assert not caplog.records
  assert _ask(client, _questions(2)) == [0, 1]


def test_what_can_never_be_read_ends_it_although_others_are_answered(scripted):
  def answer(request):
    n = request.body['n']
    return 200, {} if n == 3 else {'value': n}, {}

  server = scripted(answer)
  with pytest.raises(
    errors.UserError, match='prompt 3 with what cannot .*no v'
  ):
    _ask(_client(server), _questions(8))
  assert sum(r.body['n'] == 3 for r in server.requests) == 5


def test_a_limit_of_time_is_named_where_it_ends_the_work(scripted):
  server = scripted(lambda _: (200, servers.Slowly([b' '] * 20), {}))
  with pytest.raises(errors.UserError, match='raise .*timeout_secs .*concurr'):
    _ask(_client(server, timeout_secs=0.1, patience_secs=0.3), _questions(1))


@pytest.mark.parametrize('code', ['content_filter', 'invalid_prompt'])
def test_a_prompt_that_a_filter_refuses_is_one_answer(code, scripted):
  def answer(request):
    if request.body['n'] == 1:
      return 400, {'error': {'message': 'no', 'code': code}}, {}
    return 200, request.body, {}

  got = _client(scripted(answer)).ask(
    '/echo', _questions(3), lambda x: x, lambda _: None
  )
  assert got == [{'n': 0}, endpoint.FILTERED, {'n': 2}]


@pytest.mark.parametrize(
  'answer',
  [
    *((status, {}) for status in (400, 403, 404, 405, 501, 200)),
    (200, b'<html>Welcome</html>'),
    (200, {'data': None}),
  ],
)
def test_a_server_need_not_list_its_models(answer, scripted):
  assert _client(scripted(_echo, answer)).models() == []


def test_a_wrong_key_is_said_when_models_are_listed(scripted):
  with pytest.raises(errors.UserError, match='the list of models with 401'):
    _client(scripted(_echo, (401, {}))).models()


def test_models_are_listed(scripted):
  listed = [{'id': 'm', 'owned_by': 'vllm'}]
  assert _client(scripted(_echo, listed)).models() == listed
  assert _client(scripted(_echo, (200, listed))).models() == listed
