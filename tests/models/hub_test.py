"""Downloads from a hub on this machine, by the hub's own library."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading

import pytest


class _Hub(http.server.BaseHTTPRequestHandler):
  """A hub with one file, whose repository is gated or loses its network."""

  def do_GET(self):
    commit = '0' * 40
    if '/tree/' in self.path:
      file = {'type': 'file', 'path': 'config.json', 'size': 9, 'oid': 'a'}
      self._send(200, json.dumps([file]).encode())
    elif self.path.startswith('/api/'):
      self._send(
        200,
        json.dumps({'id': 'org/name', 'sha': commit, 'siblings': []}).encode(),
      )
    elif 'gated' in self.path:
      self._send(403, b'', {'X-Error-Code': 'GatedRepo'})
    else:
      self._send(200, b'{"a"', {'X-Repo-Commit': commit, 'ETag': '"a"'}, size=9)

  do_HEAD = do_GET

  def _send(self, status, body, headers=(), size=None):
    self.send_response(status)
    for name, value in dict(headers).items():
      self.send_header(name, value)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(body) if size is None else size))
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(body)

  def log_message(self, *args):
    pass


_OPEN = """
import huggingface_hub.file_download, sys
from erp_jax.core import errors
from erp_jax.models import checkpoint
huggingface_hub.file_download.time.sleep = lambda seconds: None
try:
  checkpoint.open_checkpoint(sys.argv[1])
except errors.UserError as error:
  print(error)
"""


@pytest.fixture
def hub():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Hub)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'org/gated',
      r"'org/gated' is gated: accept its licence at http://.*/org/gated, then "
      'set HF_TOKEN',
    ),
    ('org/cut', r"'org/cut' is not .* could not be downloaded .*run again"),
  ],
)
def test_failed_downloads_end_in_one_line(hub, tmp_path, name, message):
  # The hub's library reads its environment when it is imported.
  env = {
    **os.environ,
    'HF_ENDPOINT': hub,
    'HF_HOME': str(tmp_path),
    'HF_HUB_OFFLINE': '0',
  }
  ran = subprocess.run(
    [sys.executable, '-c', _OPEN, name],
    env=env,
    capture_output=True,
    text=True,
  )
  assert ran.returncode == 0, ran.stderr
  assert re.fullmatch(f'checkpoint {message}.*\n', ran.stdout), ran.stdout
