import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import feature_map


def test_fourier_features_have_the_gaussian_kernel():
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(20, 6))
  made = feature_map.FeatureMap(
    width=6, embedding='raw', num_fourier=20_000, length_scale=2.5, seed=3
  )
  x_NE = made.apply(emb_NE)
  assert x_NE.shape == (20, made.num_features)
  square_NN = ((emb_NE[:, None] - emb_NE) ** 2).sum(axis=2)
  # Each entry is a mean of 10 000 cosines.
  np.testing.assert_allclose(
    x_NE @ x_NE.T, np.exp(-square_NN / (2 * 2.5**2)), atol=0.03
  )


def test_the_seed_decides():
  emb_NE = np.random.default_rng(0).normal(size=(3, 4))
  make = lambda seed: feature_map.FeatureMap(width=4, num_fourier=8, seed=seed)
  np.testing.assert_array_equal(make(1).apply(emb_NE), make(1).apply(emb_NE))
  assert not np.allclose(make(1).apply(emb_NE), make(2).apply(emb_NE))


def test_without_fourier_features_it_is_the_embedding():
  emb_NE = np.array([[3.0, 4.0]])
  unit, raw = (
    feature_map.FeatureMap(width=2, embedding=kind) for kind in ('unit', 'raw')
  )
  np.testing.assert_allclose(unit.apply(emb_NE), [[0.6, 0.8]])
  np.testing.assert_array_equal(raw.apply(emb_NE), emb_NE)
  with pytest.raises(
    errors.UserError, match='3 wide, the policy was fitted on'
  ):
    raw.apply(np.ones((1, 3)))


@pytest.mark.parametrize(
  'wrong', [{'embedding': 'x'}, {'num_fourier': 3}, {'length_scale': 0.0}]
)
def test_what_it_refuses(wrong):
  with pytest.raises(ValueError, match=next(iter(wrong))):
    feature_map.FeatureMap(width=2, **wrong)
