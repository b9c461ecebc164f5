"""Stored rewards become targets, whatever is missing."""

import numpy as np
import pyarrow as pa
from etils import epath

from erp_jax.core import store
from erp_jax.probe import rewards


def _write(run, arm, rows):
  table = pa.table(
    {
      'prompt_id': [row[0] for row in rows],
      'k': pa.array([row[1] for row in rows], pa.int32()),
      'reward': pa.array([row[2] for row in rows], pa.float32()),
    }
  )
  artifact = store.Artifact(run / rewards.folder('rm', arm), {}, 1)
  with artifact.writer({'versions': {}}) as writer:
    writer.write_shard(0, table)
    writer.finish()


def test_means_over_what_each_arm_has(tmp_path):
  run = epath.Path(tmp_path)
  nan = float('nan')
  _write(run, 'a', [('p', 0, 1.0), ('p', 1, 2.0), ('q', 0, 5.0), ('q', 1, nan)])
  _write(run, 'b', [('q', 0, nan), ('p', 0, 4.0)])  # K = 1, another order.
  target = rewards.read(run, 'rm', ('b', 'a'), ('q', 'p'))
  np.testing.assert_array_equal(target.mean_NM, [[nan, 5.0], [4.0, 1.5]])
  np.testing.assert_array_equal(target.num_NM, [[0, 1], [1, 2]])
  np.testing.assert_array_equal(target.num_not_finite_M, [1, 1])
