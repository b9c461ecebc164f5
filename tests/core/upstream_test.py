"""What is made from an artefact is another when a server answered anew."""

import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import store, upstream


def _make(path, made_by, values):
  """A complete artefact of one shard."""
  made = store.Artifact(epath.Path(path), made_by, num_shards=1)
  with made.writer({'versions': {}}) as writer:
    for i in writer.missing():
      writer.write_shard(i, pa.table({'value': values}))
    writer.finish()
  return made


@pytest.mark.parametrize('maker', ['arm', 'reward'])
def test_what_servers_answered_is_named_by_its_content(maker, tmp_path):
  served = {maker: {'revision': 'served:m@fp8'}}
  made = _make(tmp_path, served, [1])
  first = upstream.digest(tmp_path)
  assert first != made.digest
  for shard in tmp_path.glob('part-*'):
    shard.unlink()
  _make(tmp_path, served, [1])
  assert upstream.digest(tmp_path) == first
  for shard in tmp_path.glob('part-*'):
    shard.unlink()
  _make(tmp_path, served, [2])
  assert upstream.digest(tmp_path) != first


@pytest.mark.parametrize(
  'made_by',
  [
    {'arm': {'revision': '0f3a'}},
    {'reward': {'revision': '0f3a'}},
    {'reward': {'kind': 'verify'}},
    {'embed': {}},
  ],
)
def test_all_else_is_named_by_its_identity(made_by, tmp_path):
  made = _make(tmp_path, made_by, [1])
  assert upstream.digest(tmp_path) == made.digest == store.digest(made_by)
