"""A hub on this machine, with one data set in it."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

_COMMIT = '1' * 40


class _Hub(http.server.BaseHTTPRequestHandler):
  """The data set org/blend: the files of the server's folder."""

  def do_GET(self):
    name = self.path.partition('/resolve/')[2].partition('/')[2]
    files = {
      path.relative_to(self.server.folder).as_posix(): path.read_bytes()
      for path in self.server.folder.rglob('*')
      if path.is_file()
    }
    if not self.path.removeprefix('/api').startswith('/datasets/org/blend'):
      self._send(404, b'{}')
    elif '/tree/' in self.path:
      listed = [
        {'type': 'file', 'path': name, 'size': len(data), 'oid': name}
        for name, data in files.items()
      ]
      self._send(200, json.dumps(listed).encode())
    elif self.path.startswith('/api/'):
      siblings = [{'rfilename': name} for name in files]
      about = {'id': 'org/blend', 'sha': _COMMIT, 'siblings': siblings}
      self._send(200, json.dumps(about).encode())
    else:
      if self.command == 'GET':
        self.server.sent.append(name)
      etag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
      headers = {'X-Repo-Commit': _COMMIT, 'ETag': etag}
      self._send(200, files[name], headers)

  do_HEAD = do_GET

  def _send(self, status, body, headers=()):
    self.send_response(status)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(body)

  def log_message(self, *args):
    pass


@pytest.fixture
def data_hub(tmp_path):
  """Runs a program that can reach a hub, in a process of its own.

  `run.folder` holds the files of its data set org/blend, and `run.sent` the
  names of those that were sent.
  """
  with contextlib.ExitStack() as stack:
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Hub)
    stack.callback(server.server_close)
    server.folder = tmp_path / 'hub'
    server.sent = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)

    def run(*args, **changes):
      # The hub's library reads its environment when it is imported.
      env = {
        'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
        'HF_HOME': str(tmp_path / 'cache'),
        'HF_HUB_OFFLINE': '0',
        'NO_PROXY': '127.0.0.1',
        'no_proxy': '127.0.0.1',
      }
      return subprocess.run(
        [sys.executable, *args],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | env | changes,
        capture_output=True,
        text=True,
      )

    run.folder, run.sent = server.folder, server.sent
    yield run
