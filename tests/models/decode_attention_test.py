"""The CPU kernel gives what a softmax over all keys gives, in float64."""

import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.models import attention, bits, decode_attention, layers, native

_L, _P, _K, _G, _R, _W, _A, _S = 3, 5, 3, 2, 3, 8, 19, 24
_READ_P, _READ_S = 4, 21  # The caches are larger.


def _inputs(dtype):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 2, dtype)
  seen = lambda *shape: jnp.asarray(rng.random(shape) < 0.6)
  q = draw(_READ_P, _K, 1, _G, _R, _W)
  new = draw(_READ_P, _K, _G, _W, 1), draw(_READ_P, _K, _G, 1, _W)
  shared = draw(_L, _P, _G, _W, _A), draw(_L, _P, _G, _A, _W)
  own = draw(_L, _P, _K, _G, _W, _S), draw(_L, _P, _K, _G, _S, _W)
  sees = attention.Seen(
    seen(_READ_P, _K, 1, 1),
    seen(_READ_P, _K, 1, _READ_S),
    seen(_READ_P, _K, 1, _A),
  )
  # One sequence sees nothing, one sees itself alone.
  nothing = jnp.zeros((), bool)
  sees = attention.Seen(
    sees.new_PKTS.at[0, :2].set(jnp.array([[[False]], [[True]]])),
    sees.old_PKTS.at[0, :2].set(nothing),
    sees.prefix_PKTS.at[0, :2].set(nothing),
  )
  return q, new, shared, own, sees


def _softmax(q, new, shared, own, layer, sees, scores):
  """By hand, one head after the other."""
  q, new, shared, own = jax.tree.map(np.float64, (q, new, shared, own))
  out = np.zeros((_READ_P, _K, 1, _G, _R, _W))
  for p, k, g in itertools.product(range(_READ_P), range(_K), range(_G)):
    key_WS = np.concatenate(
      [
        new[0][p, k, g],
        own[0][layer, p, k, g][:, :_READ_S],
        shared[0][layer, p, g],
      ],
      axis=1,
    )
    value_SW = np.concatenate(
      [
        new[1][p, k, g],
        own[1][layer, p, k, g][:_READ_S],
        shared[1][layer, p, g],
      ]
    )
    seen_S = np.concatenate(
      [
        sees.new_PKTS[p, k, 0],
        sees.old_PKTS[p, k, 0],
        sees.prefix_PKTS[p, k, 0],
      ]
    )
    score_RS = q[p, k, 0, g] @ key_WS * scores.scale
    if scores.softcap:
      score_RS = scores.softcap * np.tanh(score_RS / scores.softcap)
    if seen_S.any():
      weight_RS = np.exp(
        score_RS[:, seen_S] - score_RS[:, seen_S].max(1)[:, None]
      )
      weight_RS /= weight_RS.sum(axis=1, keepdims=True)
      out[p, k, 0, g] = weight_RS @ value_SW[seen_S]
  return out


@pytest.mark.parametrize('softcap', [0.0, 3.0])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_equals_softmax(dtype, softcap):
  if not decode_attention.is_usable():
    pytest.skip('no C++ compiler on this machine')
  q, new, shared, own, sees = _inputs(dtype)
  scores = layers.Scores(0.4, softcap)
  kept = bits.pack((shared, own))
  assert decode_attention.fits(q, kept[1][0])
  for layer in range(_L):
    got = jax.jit(attention.attend, static_argnums=6)(
      q, new, *kept, layer, sees, scores
    )
    want = _softmax(q, new, shared, own, layer, sees, scores)
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)
    assert (np.asarray(got)[0, 0] == 0).all()


def test_xla_attends_alike_where_there_is_no_compiler(monkeypatch):
  q, new, shared, own, sees = _inputs('float32')
  scores = layers.Scores(0.4, 0.0)
  monkeypatch.setattr(decode_attention, 'fits', lambda *_: False)
  got = attention.attend(q, new, shared, own, 1, sees, scores)
  want = _softmax(q, new, shared, own, 1, sees, scores)
  np.testing.assert_allclose(got, want, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
  'env, said',
  [
    ({'PATH': '', 'CXX': ''}, 'no C++ compiler'),
    (
      {'CXX': shutil.which('false')},
      'decode_attention.cc does not become a kernel',
    ),
  ],
)
def test_without_a_compiler_that_works_it_says_so(
  monkeypatch, caplog, tmp_path, env, said
):
  for name, value in (env | {'ERP_CACHE': str(tmp_path)}).items():
    monkeypatch.setenv(name, value)
  native._register.cache_clear()
  try:
    assert not decode_attention.is_usable()
  finally:
    native._register.cache_clear()
  assert said in caplog.text
