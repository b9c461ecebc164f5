"""What every test has: quiet libraries, one compilation cache, real assets."""

import os
import pathlib

import jax
import pytest

from erp_jax.core import runtime
from erp_jax.data import assets


def pytest_configure() -> None:
  """Sets the environment, which the programs that tests run inherit."""
  os.environ['HF_HUB_OFFLINE'] = '1'  # A test that needs a hub is a mistake.
  os.environ['MPLBACKEND'] = 'agg'
  os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # It warns after a fork.
  jax.config.update(
    'jax_platforms', os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  )
  runtime.start(runtime.RuntimeConfig())  # With the programs' cache.


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
