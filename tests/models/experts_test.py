"""The mixture of experts against a loop over tokens in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.models import experts, int8


@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('renormalize', [False, True])
def test_each_token_goes_through_its_experts(renormalize, quantized):
  rng = np.random.default_rng(0)
  B, D, F, X, num_chosen = 11, 16, 12, 5, 2
  layer = {'router_LDX': rng.normal(size=(D, X)).astype(np.float32)}
  exact = {}
  for name, shape in (
    ('gate_LXDF', (X, D, F)),
    ('up_LXDF', (X, D, F)),
    ('down_LXFD', (X, F, D)),
  ):
    value = rng.normal(size=shape).astype(np.float32)
    layer[name], exact[name] = jnp.asarray(value), value.astype(np.float64)
    if quantized:
      levels, scale = int8.quantize(layer[name], (1,))
      layer[name] = int8.Int8(levels, scale, jnp.dtype(jnp.float32))
      exact[name] = np.asarray(levels, np.float64) * scale[:, None]
  x_BD = rng.normal(size=(B, D)).astype(np.float32)
  got_BD = experts.mix(
    layer, jnp.asarray(x_BD), num_chosen, renormalize, jax.nn.silu
  )
  for x_D, got_D in zip(x_BD.astype(np.float64), got_BD, strict=True):
    weight_X = np.exp(x_D @ layer['router_LDX'])
    weight_X /= weight_X.sum()
    chosen = np.argsort(-weight_X)[:num_chosen]
    total = weight_X[chosen].sum() if renormalize else 1
    want_D = 0
    for i in chosen:
      gate_F, up_F = x_D @ exact['gate_LXDF'][i], x_D @ exact['up_LXDF'][i]
      h_F = gate_F / (1 + np.exp(-gate_F)) * up_F
      want_D = want_D + weight_X[i] / total * (h_F @ exact['down_LXFD'][i])
    np.testing.assert_allclose(got_D, want_D, rtol=1e-5, atol=1e-4)
