"""The CPU kernel and XLA give what a softmax by hand gives, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.models import disentangled_attention

_B, _H, _R = 4, 3, 11


def _inputs(length, head_dim, seed=0):
  """Rows that see all, a part with a hole, their right end, and nothing."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  q, k, v = (draw(_B, length, _H, head_dim) for _ in range(3))
  tables = draw(_H, head_dim, _R), draw(_H, head_dim, _R)
  distance = np.arange(length - 1, -length, -1)
  row = np.clip(distance + 5, 0, _R - 1)
  valid_BT = np.ones((_B, length), bool)
  valid_BT[1, (length + 1) // 2 :] = False
  valid_BT[1, length // 4] = length < 4
  valid_BT[2, : length // 3] = False
  valid_BT[3] = False
  return q, k, v, *tables, row, valid_BT


def _softmax(q, k, v, key_HWR, query_HWR, row, valid_BT):
  """Pair by pair."""
  q, k, v, key_HWR, query_HWR = map(np.float64, (q, k, v, key_HWR, query_HWR))
  B, T, H, W = q.shape
  at_TS = row[T - 1 - np.subtract.outer(np.arange(T), np.arange(T))]
  out = np.zeros_like(q)
  for b, h in itertools.product(range(B), range(H)):
    if not valid_BT[b].any():
      continue
    score_TS = q[b, :, h] @ k[b, :, h].T
    for t, s in itertools.product(range(T), range(T)):
      score_TS[t, s] += q[b, t, h] @ key_HWR[h, :, at_TS[t, s]]
      score_TS[t, s] += k[b, s, h] @ query_HWR[h, :, at_TS[t, s]]
    score_TS = score_TS[:, valid_BT[b]] / np.sqrt(3 * W)
    weight_TS = np.exp(score_TS - score_TS.max(axis=1)[:, None])
    weight_TS /= weight_TS.sum(axis=1)[:, None]
    out[b, :, h] = weight_TS @ v[b, valid_BT[b], h]
  return out


@pytest.fixture(params=['kernel', 'xla'])
def attend(request, monkeypatch):
  if request.param == 'xla':
    monkeypatch.setattr(disentangled_attention, 'is_usable', lambda: False)
  elif not disentangled_attention.is_usable():
    pytest.skip('no AVX-512 or no C++ compiler')

  def call(*args):
    *arrays, row, valid_BT = args
    run = lambda *x: disentangled_attention.attend(*x, row, valid_BT)
    return np.asarray(jax.jit(run)(*arrays))

  return call


@pytest.mark.parametrize(
  ('length', 'head_dim'), [(1, 8), (3, 16), (16, 64), (37, 20), (70, 64)]
)
def test_equals_softmax(attend, length, head_dim):
  args = _inputs(length, head_dim)
  got, want = attend(*args), _softmax(*args)
  assert got.dtype == np.float32 and np.isfinite(got).all()
  valid_BT = args[-1]
  np.testing.assert_allclose(got[valid_BT], want[valid_BT], rtol=0, atol=3e-6)


@pytest.mark.parametrize('length', [1, 16, 37])
def test_one_token_is_that_of_all(length):
  q, k, v, key_HWR, query_HWR, row, valid_BT = _inputs(length, 16)
  want = _softmax(q, k, v, key_HWR, query_HWR, row, valid_BT)
  first_B = valid_BT.argmax(axis=1)
  got_BHW = disentangled_attention.attend_one(
    *(jnp.asarray(q[np.arange(_B), first_B]), k, v, key_HWR, query_HWR),
    *(row[length - 1 - first_B[:, None] + np.arange(length)], valid_BT),
  )
  want_BHW = want[np.arange(_B), first_B]
  assert np.isfinite(got_BHW).all()
  np.testing.assert_allclose(got_BHW[:3], want_BHW[:3], rtol=0, atol=3e-6)
