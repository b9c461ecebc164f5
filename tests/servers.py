"""Servers on loopback: llama.cpp's own, and one that answers as a test says."""

import contextlib
import dataclasses
import http.server
import json
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

# In a process of its own, which can be killed.
_LLAMA = """
import sys, time, xllamacpp
path, port, slots, key = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = path
params.port = int(port)
params.n_parallel = int(slots)
params.n_ctx = 1024 * int(slots)
# More would wait for each other in loops, on cores that other tests use.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.model_alias = {'smollm2'}
params.api_keys = [key] if key else []
server = xllamacpp.Server(params)
sys.stdout.write(server.listening_address + '\\n')
sys.stdout.flush()
time.sleep(3600)
"""


def free_port() -> int:
  """A port that is free now."""
  with socket.socket() as sock:
    sock.bind(('127.0.0.1', 0))
    return sock.getsockname()[1]


class Llama:
  """llama.cpp's server of one GGUF file; `url` while it runs."""

  def __init__(self, file: pathlib.Path, slots: int, key: str):
    self.port = free_port()
    self._args = [str(file), str(self.port), str(slots), key]
    self.url = ''
    self.start()

  def start(self) -> None:
    """Starts it, at the same port as before, and waits until it serves."""
    self._process = subprocess.Popen(
      [sys.executable, '-c', _LLAMA, *self._args],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    for line in self._process.stdout:
      if line.startswith('http'):
        self.url = f'{line.strip()}/v1'
        return
    raise RuntimeError('llama.cpp did not start')

  def kill(self) -> None:
    """As kill -9 does."""
    self._process.kill()
    self._process.wait()
    self._process.stdout.close()


@pytest.fixture
def llama(smollm2_dir) -> Iterator[Callable[..., Llama]]:
  """Starts llama.cpp's servers of SmolLM2, which end with the test."""
  file = next(smollm2_dir.glob('*.gguf'))
  with contextlib.ExitStack() as stack:

    def start(slots: int = 4, key: str = '') -> Llama:
      server = Llama(file, slots, key)
      stack.callback(server.kill)
      return server

    yield start


@dataclasses.dataclass
class Request:
  """What a server was sent; `number` counts from 0."""

  number: int
  path: str
  headers: Mapping[str, str]  # By names in lower case.
  body: Any


class Reset(Exception):
  """Raised by an answer that cuts the connection."""


class Slowly(tuple):
  """Parts of an answer that come a tenth of a second apart."""


class Scripted:
  """A server of which a function answers: (status, value, headers).

  `models` are listed; a pair is the whole answer: (status, value).

  Attributes:
    requests: what came, without questions for its models.
    most_at_once: the largest number of requests in work at one time.
  """

  def __init__(self, answer: Callable[[Request], tuple], models: Any = None):
    self.requests: list[Request] = []
    self.most_at_once = self._at_once = 0
    self._answer, self._models = answer, models
    self._errors: list[BaseException | None] = []
    self._lock = threading.Lock()
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def do_GET(self):
        models = outer._models
        listed = {'object': 'list', 'data': models or []}
        pair = models if isinstance(models, tuple) else (200, listed)
        outer._send(self, *pair, {})

      def do_POST(self):
        outer._handle(self)

      def log_message(self, *_):
        pass

    class Server(http.server.ThreadingHTTPServer):
      daemon_threads = True

      def handle_error(self, *_):
        if not isinstance(e := sys.exception(), OSError):  # It hung up.
          outer._errors.append(e)

    self._server = Server(('127.0.0.1', 0), Handler)
    self._thread = threading.Thread(target=self._server.serve_forever)
    self._thread.start()
    self.url = f'http://127.0.0.1:{self._server.server_port}/v1'

  def close(self) -> None:
    """Ends it; raises what its function has raised."""
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()
    for error in self._errors:
      raise error

  def _handle(self, handler) -> None:
    size = int(handler.headers['Content-Length'])
    data = handler.rfile.read(size)
    if len(data) < size:
      return  # It hung up.
    with self._lock:
      self._at_once += 1
      self.most_at_once = max(self.most_at_once, self._at_once)
      request = Request(
        *(len(self.requests), handler.path),
        {name.lower(): text for name, text in handler.headers.items()},
        json.loads(data),
      )
      self.requests.append(request)
    try:
      status, value, headers = self._answer(request)
    except Reset:
      linger = struct.pack('ii', 1, 0)  # Closing it sends RST.
      handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
      handler.connection.close()
      handler.close_connection = True
      return
    finally:
      with self._lock:
        self._at_once -= 1
    with contextlib.suppress(OSError):  # It may have stopped to wait.
      self._send(handler, status, value, headers)

  def _send(self, handler, status, value, headers) -> None:
    parts = value if isinstance(value, Slowly) else [value]
    parts = [
      part if isinstance(part, bytes) else json.dumps(part).encode()
      for part in parts
    ]
    handler.send_response(status)
    for name, text in ({'Content-Type': 'application/json'} | headers).items():
      handler.send_header(name, text)
    handler.send_header('Content-Length', str(sum(map(len, parts))))
    handler.end_headers()
    for part in parts:
      time.sleep(0.1 if len(parts) > 1 else 0)
      handler.wfile.write(part)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
  """Starts servers that answer as they are told: Scripted(answer, models)."""
  with contextlib.ExitStack() as stack:

    def start(answer, models=None) -> Scripted:
      server = Scripted(answer, models)
      stack.callback(server.close)
      return server

    yield start


def completion(text: str = 'Hi.', **changes: Any) -> dict[str, Any]:
  """A chat completion; `changes` replace fields, None deletes one."""
  usage = {'prompt_tokens': 5, 'completion_tokens': 2, 'total_tokens': 7}
  message = {'role': 'assistant', 'content': text}
  choice = {'index': 0, 'finish_reason': 'stop', 'message': message}
  answer = {'model': 'm-1', 'choices': [choice], 'usage': usage} | changes
  return {name: value for name, value in answer.items() if value is not None}
