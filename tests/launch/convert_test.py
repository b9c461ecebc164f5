"""The program launch.convert, from files that torch saved."""

import hashlib

import torch


def test_prints_the_sha256_of_each_file(tmp_path, launch):
  state = {'w': torch.arange(6.0)}
  torch.save(state, tmp_path / 'pytorch_model.bin')
  done = launch('convert', f'--from={tmp_path}', f'--to={tmp_path / "to"}')
  assert done.returncode == 0, done.stderr
  files = tmp_path / 'pytorch_model.bin', tmp_path / 'to/model.safetensors'
  assert done.stdout.splitlines() == [
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}' for path in files
  ]
