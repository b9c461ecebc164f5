"""What every test has: quiet libraries, one compilation cache, real assets."""

import os
import pathlib

import jax
import numpy as np
import pytest
from etils import epath
from fsspec.implementations import memory

from erp_jax.core import runtime
from erp_jax.data import assets
from erp_jax.probe import records as records_lib
from tests.object_store import bucket, door, doorway
from tests.servers import llama, scripted

__all__ = ['bucket', 'door', 'doorway', 'llama', 'scripted']


def pytest_configure() -> None:
  """Sets the environment, which the programs that tests run inherit."""
  os.environ['HF_HUB_OFFLINE'] = '1'  # A test that needs a hub is a mistake.
  os.environ['MPLBACKEND'] = 'agg'
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # It warns after a fork.
  jax.config.update(
    'jax_platforms', os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  )
  runtime.start(runtime.RuntimeConfig())  # With the programs' cache.


class _Bucket(memory.MemoryFileSystem):
  """An object store in memory, under the name of a real one."""

  protocol = 'gcs'
  store = {}
  pseudo_dirs = ['']

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix('gs://'))

  def info(self, path, **kwargs):
    """With the time of the last change, as gcsfs calls it."""
    found = super().info(path, **kwargs)
    return found | {'mtime': found.get('created')}


@pytest.fixture(params=['folder', 'bucket'])
def root(request, tmp_path, monkeypatch):
  """Where a run may be: a folder, or a bucket of fsspec's memory."""
  if request.param == 'folder':
    yield epath.Path(tmp_path) / 'run'
    return
  monkeypatch.setattr(
    type(epath.Path('gs://bucket')._backend),
    '_get_filesystem',
    lambda *_: _Bucket(),
  )
  yield epath.Path('gs://bucket/run')
  _Bucket.store.clear()
  _Bucket.pseudo_dirs[:] = ['']


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """The folder of recorded outcomes that $ERP_SHARED_DATA names."""
  folder = os.environ.get('ERP_SHARED_DATA')
  if not folder:
    pytest.skip('ERP_SHARED_DATA is not set')
  path = pathlib.Path(folder)
  if not path.is_dir():
    pytest.fail(f'ERP_SHARED_DATA is {folder}, which is not a folder')
  return path


@pytest.fixture(scope='session')
def smollm2_dir() -> pathlib.Path:
  """The folder with SmolLM2-135M-Instruct as GGUF."""
  return assets.fetch('smollm2-135m-instruct')


@pytest.fixture(scope='session')
def minilm_dir() -> pathlib.Path:
  """The folder of all-MiniLM-L6-v2."""
  return assets.fetch('minilm-l6-v2')


@pytest.fixture(scope='session')
def paretobandit_dir() -> pathlib.Path:
  """The folder with val.jsonl and test_holdout.jsonl."""
  return assets.fetch('paretobandit')


@pytest.fixture(scope='session')
def make_records():
  """Makes `Records` of rewards about a known ER that is linear in embeddings.

  Arguments are what is drawn; `changes` replace fields. Categories alternate.
  Three arms are drawn, the first of which are kept where fewer are named.
  """

  def make(
    *,
    seed=0,
    num=120,
    k=4,
    noise=0.3,
    length=1.0,
    arms=('small', 'large', 'middle'),
    rewards=('first', 'second'),
    categories=('a', 'b', 'c'),
    **changes,
  ) -> records_lib.Records:
    rng = np.random.default_rng(seed)
    emb_NE = rng.normal(size=(num, 6))
    emb_NE *= length / np.linalg.norm(emb_NE, axis=1, keepdims=True)
    reward_NKM, er_NM = {}, {}
    for reward in rewards:
      theta_EM = rng.normal(size=(6, 3))
      er_NM[reward] = emb_NE @ theta_EM + np.array([0.0, 0.4, 0.2])
      drawn_NKM = er_NM[reward][:, None] + noise * rng.normal(size=(num, k, 3))
      reward_NKM[reward] = drawn_NKM[:, :, : len(arms)]
      er_NM[reward] = er_NM[reward][:, : len(arms)]
    fields = {
      'name': 'made',
      'title': 'Made up',
      'origin': records_lib.SIMULATED,
      'prompt_ids': tuple(f'p{n:03d}' for n in range(num)),
      'category_N': np.array(categories)[np.arange(num) % len(categories)],
      'arms': arms,
      'emb_NE': emb_NE,
      'reward_NKM': reward_NKM,
      'cost_NM': np.tile([1.0, 9.0, 4.0][: len(arms)], (num, 1)),
      'cost_source': 'given',
      'cost_unit': 'billions of parameters',
      'er_NM': er_NM,
      'counts': {'prompts': num},
    }
    return records_lib.Records(**fields | changes)

  return make
