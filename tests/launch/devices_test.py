"""The stages on a mesh of CPU devices give what they give on one device."""

import numpy as np
import pytest

from erp_jax.core import store

_STAGES = {
  'sample': ['--arms=terse'],
  'score': ['--arms=terse', '--rewards=judge'],
  'embed': [],
}
_FLOAT32 = [
  '--config.sample.dtype=float32',
  '--config.rewards.judge.dtype=float32',
]


def _run(tiny, launch, workdir, flags, **env):
  for stage, own in _STAGES.items():
    args = [*tiny.flags(workdir), *_FLOAT32, *own, *flags]
    done = launch(stage, *args, **env)
    assert done.returncode == 0, done.stderr
    assert 'have nothing to do' not in done.stderr
  folders = 'responses/terse', 'rewards/judge/terse', 'embeddings/encoder'
  return [store.read_table(workdir / folder) for folder in folders]


@pytest.mark.slow
def test_a_mesh_of_data_and_model_changes_nothing(tiny, launch, tmp_path):
  want = _run(tiny, launch, tmp_path / 'one', [])
  got = _run(
    tiny,
    launch,
    tmp_path / 'mesh',
    ['--config.runtime.data=2', '--config.runtime.model=2'],
    XLA_FLAGS='--xla_force_host_platform_device_count=4',
  )
  assert got[0].equals(want[0])  # Each token that was drawn.
  for name, mine, other in (
    ('reward', got[1], want[1]),
    ('embedding', got[2], want[2]),
  ):
    mine, other = (np.array(t[name].to_pylist()) for t in (mine, other))
    assert np.nanstd(other) > 0.01  # NaN is an empty response.
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_what_does_not_divide_the_heads_is_one_line(tiny, launch, tmp_path):
  args = [*tiny.flags(tmp_path), '--config.runtime.model=3']
  devices = '--xla_force_host_platform_device_count=3'
  done = launch('sample', *args, XLA_FLAGS=devices)
  line = done.stderr.strip().splitlines()[-1]
  assert done.returncode and 'Traceback' not in done.stderr
  assert 'does not divide the 4 heads' in line
  assert 'set runtime.model to one of 1, 2, 4' in line
