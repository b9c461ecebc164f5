"""Stored embeddings come back in the order asked for, or say what is wrong."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.data import embeddings


def _write(folder, emb_NE):
  values = pa.array(emb_NE.ravel(), pa.float32())
  table = pa.table(
    {
      'prompt_id': [f'p{n}' for n in range(len(emb_NE))],
      'embedding': pa.FixedSizeListArray.from_arrays(values, emb_NE.shape[1]),
    }
  )
  artifact = store.Artifact(epath.Path(folder), {}, 2)
  with artifact.writer({'versions': {}}) as writer:
    writer.write_shard(0, table.slice(0, 3))
    writer.write_shard(1, table.slice(3))
    writer.finish()


def test_rows_follow_the_ids(tmp_path):
  emb_NE = np.arange(20, dtype=np.float32).reshape(5, 4)
  _write(tmp_path / 'e', emb_NE)
  got_NE = embeddings.read(tmp_path / 'e', ['p4', 'p0', 'p3'])
  np.testing.assert_array_equal(got_NE, emb_NE[[4, 0, 3]])


def test_missing_and_damaged_rows_are_named(tmp_path):
  emb_NE = np.ones((5, 4), np.float32)
  emb_NE[3, 2] = np.nan
  _write(tmp_path / 'e', emb_NE)
  with pytest.raises(errors.UserError, match="such as 'p9'"):
    embeddings.read(tmp_path / 'e', ['p0', 'p9'])
  with pytest.raises(errors.UserError, match="'p3'.*not finite"):
    embeddings.read(tmp_path / 'e', ['p0', 'p3'])
  assert embeddings.read(tmp_path / 'e', ['p0', 'p4']).shape == (2, 4)
  _write(tmp_path / 'all', np.full((12, 2), np.inf, np.float32))
  ids = [f'p{i}' for i in range(12)]
  with pytest.raises(errors.UserError, match="'p0', 'p1', .*'p9' and 2 more"):
    embeddings.read(tmp_path / 'all', ids)
