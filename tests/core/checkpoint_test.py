"""Probe weights come back bit for bit, and damage is named."""

import resource

import numpy as np
import pytest

from erp_jax.core import checkpoint, errors

_ARRAYS = {
  'theta_E': np.random.default_rng(0).normal(size=7),
  'bias': np.asarray(1 / 3),
  'num_prompts': np.asarray(12),
  'half_E': np.arange(3, dtype=np.float32),
}


@pytest.mark.parametrize('code', [28, 122])
def test_a_full_disk_is_one_line(code, tmp_path, monkeypatch):
  """Its words are those that a file system in memory gave."""
  words = (
    f'RESOURCE_EXHAUSTED: Failed writing: "{tmp_path}/w": Failed to write 113 '
    f"bytes to file 9: No space left on device [os_error_code='{code}']"
  )

  def fail(*_, **__):
    raise ValueError(words)

  monkeypatch.setattr(checkpoint.ocp, 'save', fail)
  with pytest.raises(errors.UserError, match='cannot write .* free some space'):
    checkpoint.save(tmp_path / 'w', _ARRAYS)
  words = 'no such option'
  with pytest.raises(ValueError, match=words):
    checkpoint.save(tmp_path / 'w', _ARRAYS)


def test_what_does_not_fit_is_not_begun(tmp_path, monkeypatch, request):
  """Orbax would print a traceback for each array that does not fit."""
  monkeypatch.setattr(checkpoint.ocp, 'save', pytest.fail)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  request.addfinalizer(
    lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  )
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**20 + 2**16, hard))
  with pytest.raises(errors.UserError, match='over the limit for one file'):
    checkpoint.save(tmp_path / 'w', {'theta_E': np.zeros(2**17)})
  assert not [*tmp_path.iterdir()]


def test_round_trip_and_digest(tmp_path):
  checkpoint.save(tmp_path / 'w', _ARRAYS)
  loaded = checkpoint.load(tmp_path / 'w')
  assert loaded.keys() == _ARRAYS.keys()
  for name, array in _ARRAYS.items():
    assert loaded[name].dtype == array.dtype
    np.testing.assert_array_equal(loaded[name], array)
  digest = checkpoint.content_digest(_ARRAYS)
  checkpoint.check_digest(tmp_path / 'w', loaded, digest)
  for change in (
    {'bias': np.asarray(0.3)},
    {'half_E': _ARRAYS['half_E'].astype(np.float64)},
    {'theta_E': _ARRAYS['theta_E'][None]},
  ):
    assert checkpoint.content_digest(_ARRAYS | change) != digest
    with pytest.raises(errors.UserError, match='not those its manifest names'):
      checkpoint.check_digest(tmp_path / 'w', _ARRAYS | change, digest)


def test_what_a_kill_left_is_removed(tmp_path):
  left = tmp_path / 'w.orbax-checkpoint-tmp'
  left.mkdir()
  (left / 'half').write_text('x')
  checkpoint.save(tmp_path / 'w', _ARRAYS)
  checkpoint.save(tmp_path / 'w', _ARRAYS)  # Again, over a whole one.
  assert [path.name for path in tmp_path.iterdir()] == ['w']


def test_missing_weights_are_named(tmp_path):
  with pytest.raises(errors.UserError, match='none is missing'):
    checkpoint.load(tmp_path / 'none')


def test_damaged_weights_are_named(tmp_path):
  checkpoint.save(tmp_path / 'w', _ARRAYS)
  for file in (tmp_path / 'w').rglob('*'):
    if file.is_file():
      file.write_bytes(b'x')
  with pytest.raises(errors.UserError, match='cannot be read'):
    checkpoint.load(tmp_path / 'w')
