"""Downloads from a hub on this machine, by the hub's own library."""

import http.server
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import safetensors


class _Hub(http.server.BaseHTTPRequestHandler):
  """A hub: its repositories are gated, lose their network, or are old."""

  def do_GET(self):
    commit = '0' * 40
    if '/tree/' in self.path and 'old' in self.path:
      files = [
        {'type': 'file', 'path': name, 'size': len(data), 'oid': name}
        for name, data in _OLD.items()
      ]
      self._send(200, json.dumps(files).encode())
    elif 'old/resolve' in self.path:
      name = self.path.split('/')[-1]
      data = _OLD[name]
      self._send(200, data, {'X-Repo-Commit': commit, 'ETag': f'"{name}"'})
    elif '/tree/' in self.path:
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


# Of org/old.
_OLD = {'config.json': b'{}'}

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


def _run(hub, folder, *args):
  # The hub's library reads its environment when it is imported.
  env = {
    **os.environ,
    'HF_ENDPOINT': hub,
    'HF_HOME': str(folder),
    'HF_HUB_OFFLINE': '0',
  }
  return subprocess.run(
    [sys.executable, *args],
    cwd=pathlib.Path(__file__).parents[2],
    env=env,
    capture_output=True,
    text=True,
  )


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
  ran = _run(hub, tmp_path, '-c', _OPEN, name)
  assert ran.returncode == 0, ran.stderr
  assert re.fullmatch(f'checkpoint {message}.*\n', ran.stdout), ran.stdout


def test_old_checkpoints_name_the_command_that_converts_them(
  hub, tmp_path, monkeypatch
):
  torch = pytest.importorskip('torch', reason='`make test-latest` has no torch')
  weights = io.BytesIO()
  torch.save({'w': torch.arange(3.0)}, weights)
  monkeypatch.setitem(_OLD, 'pytorch_model.bin', weights.getvalue())
  ran = _run(hub, tmp_path, '-c', _OPEN, 'org/old@main')
  command = '-m launch.convert --from=org/old@main --to=old-safetensors'
  assert f'run python {command} and' in ran.stdout, ran.stderr
  ran = _run(hub, tmp_path, *command.split()[:-1], f'--to={tmp_path / "new"}')
  assert ran.returncode == 0, ran.stderr
  with safetensors.safe_open(tmp_path / 'new/model.safetensors', 'np') as file:
    np.testing.assert_array_equal(file.get_tensor('w'), np.arange(3.0))
