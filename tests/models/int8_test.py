"""int8 weights: products against float64, and what they cost a real model."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.models import checkpoint, decoder, int8, tokenizer
from erp_jax.models import params as params_lib

_PROMPTS = (
  'The capital of France is',
  'def fibonacci(n):\n  """The n-th Fibonacci number."""\n',
)


def _weight(rng, *shape, in_axes):
  value = rng.normal(size=shape).astype(np.float32)
  levels, scale = int8.quantize(jnp.asarray(value), in_axes)
  return int8.Int8(levels, scale, jnp.dtype(jnp.float32)), np.asarray(
    levels, np.float64
  ) * np.expand_dims(np.asarray(scale, np.float64), in_axes)


@pytest.mark.parametrize(
  ('subscripts', 'shape', 'in_axes', 'x_shape'),
  [
    ('BD,DHW->BHW', (16, 3, 4), (0,), (5, 16)),
    ('BHW,HWD->BD', (3, 4, 16), (0, 1), (5, 3, 4)),
  ],
)
def test_einsum_is_that_of_the_rounded_weights(
  subscripts, shape, in_axes, x_shape
):
  rng = np.random.default_rng(0)
  weight, rounded = _weight(rng, *shape, in_axes=in_axes)
  x = rng.normal(size=x_shape).astype(np.float32)
  got = int8.einsum(subscripts, jnp.asarray(x), weight)
  want = np.einsum(subscripts, x.astype(np.float64), rounded)
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_tables_give_rows_and_logits():
  rng = np.random.default_rng(0)
  table, rounded_VD = _weight(rng, 7, 16, in_axes=(1,))
  rows = int8.take(table, jnp.array([3, 0]))
  np.testing.assert_allclose(rows, rounded_VD[[3, 0]], rtol=0, atol=1e-6)
  x_BD = rng.normal(size=(2, 16)).astype(np.float32)
  got = int8.logits(jnp.asarray(x_BD), table)
  np.testing.assert_allclose(got, x_BD @ rounded_VD.T, rtol=0, atol=1e-5)


def test_random_weights_are_spread_as_those_they_round():
  shape = (3, 64, 4, 32)
  param = params_lib.Param(
    shape, ('layers', None, 'heads', None), 'layers.{layer}.w', in_axes=1
  )
  w = params_lib.init({'w': param}, jax.random.key(0), jnp.bfloat16, True)['w']
  assert w.shape == shape and w.dtype == jnp.bfloat16
  value = np.float64(w.value) * np.float64(w.scale)[:, None]
  assert value.std() == pytest.approx(0.02, rel=0.02)
  assert abs(value.mean()) < 5 * 0.02 / np.sqrt(value.size)
  assert np.abs(np.corrcoef(value.reshape(3, -1)) - np.eye(3)).max() < 0.05
  assert np.abs(w.value).max(axis=1).min() == 127


def test_channels_of_zeros_stay_zero_and_errors_are_half_a_step():
  value = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
  value[:, 2] = 0
  levels, scale = int8.quantize(jnp.asarray(value), (0,))
  assert scale[2] == 0 and not np.any(levels[:, 2])
  error = np.abs(np.asarray(levels) * np.asarray(scale) - value)
  assert (error <= np.asarray(scale) / 2 * (1 + 1e-5)).all()
  assert np.abs(levels).max() == 127


@pytest.mark.slow
def test_drift_of_smollm2(smollm2_dir):
  """Logits of int8 weights against float32, beside those of bfloat16."""
  logits = {}
  for dtype in ('float32', 'bfloat16', 'int8'):
    cfg, params, ckpt = checkpoint.load_decoder(
      str(smollm2_dir), jnp.dtype(dtype)
    )
    logits[dtype] = _logits(cfg, params, ckpt)
  drift = {
    dtype: np.sqrt(np.mean((logits[dtype] - logits['float32']) ** 2))
    for dtype in ('bfloat16', 'int8')
  }
  agree = {
    dtype: np.mean(logits[dtype].argmax(-1) == logits['float32'].argmax(-1))
    for dtype in drift
  }
  spread = logits['float32'].std()
  logging.getLogger(__name__).info(
    'logits spread by %.1f, move by %s, most likely token stays %s',
    *(spread, drift, agree),
  )
  assert 0.01 < drift['int8'] / spread < 0.15
  assert agree['int8'] > 0.8


def _logits(cfg, params, ckpt):
  """Of every position of the prompts, [positions, V] float32."""
  tokens = tokenizer.load_tokenizer(ckpt.path)
  out = []
  for text in _PROMPTS:
    hidden, _ = decoder.prefill(params, cfg, jnp.array([tokens.encode(text)]))
    out.append(np.asarray(decoder.logits(params, cfg, hidden)[0]))
  return np.concatenate(out)
