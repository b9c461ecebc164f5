"""The two-level inverse CDF draws from exactly the softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from erp_jax.sample import inverse_cdf

_SAMPLE = jax.jit(inverse_cdf.sample)


def _real_shape_logits(vocab_size, seed=0):
  """Logits as of a language model: a few heavy ids, a long tail."""
  rng = np.random.default_rng(seed)
  logits_V = rng.normal(0, 2.5, vocab_size)
  logits_V[rng.choice(vocab_size, 20, replace=False)] += rng.uniform(5, 14, 20)
  return logits_V.astype(np.float32)


def _draw(logits_V, num_draws, seed):
  """`num_draws` ids through the real uniforms."""
  draw = jax.jit(
    lambda key_B: inverse_cdf.sample(
      jnp.broadcast_to(logits_V, (key_B.shape[0], len(logits_V))),
      inverse_cdf.uniforms(key_B),
    )
  )
  keys_B = jax.random.split(jax.random.key(seed), num_draws)
  return np.concatenate(
    [jax.device_get(draw(part)) for part in jnp.split(keys_B, 80)]
  )


def _chi_square(ids_B, p_V):
  """p-value of the observed counts; ids expected < 10 times are pooled."""
  counts_V = np.bincount(ids_B, minlength=len(p_V))
  expected_V = p_V / p_V.sum() * len(ids_B)
  big_V = expected_V >= 10
  observed = np.append(counts_V[big_V], counts_V[~big_V].sum())
  expected = np.append(expected_V[big_V], expected_V[~big_V].sum())
  used = expected > 0
  assert observed[~used].sum() == 0
  return stats.chisquare(observed[used], expected[used]).pvalue


@pytest.mark.parametrize('vocab_size', [49152, 5007])
def test_chi_square_on_a_real_vocabulary(vocab_size):
  logits_V = _real_shape_logits(vocab_size)
  ids_B = _draw(logits_V, 40_000, seed=1)
  p_V = special.softmax(logits_V.astype(np.float64))
  assert _chi_square(ids_B, p_V) > 1e-3


@pytest.mark.parametrize('heavy', [0, 24_600, 49_151])
def test_tail_below_1e_7_has_its_mass(heavy):
  """The measure of u that maps to the tail, and its split, are right.

  One id holds all but 8e-8; the other 49151 share that, twice as much each in
  the upper half of the vocabulary. No number of draws would show it, so the
  map is integrated over the first uniform on a grid that is fine near zero.
  """
  vocab_size = 49152
  tail_V = np.where(np.arange(vocab_size) < vocab_size // 2, 1.0, 2.0)
  tail_V[heavy] = 0
  tail_V *= 8e-8 / tail_V.sum()
  logits_V = np.log(np.where(tail_V > 0, tail_V, 1)).astype(np.float32)
  u_B = (np.arange(5_000, dtype=np.float32) + 1) * np.float32(2e-11)
  rng = np.random.default_rng(0)
  inside_B = (1 - rng.random(len(u_B))).astype(np.float32)
  ids_B = np.concatenate(
    [
      jax.device_get(
        _SAMPLE(
          jnp.broadcast_to(logits_V, (500, vocab_size)),
          jnp.stack([u_B[i : i + 500], inside_B[i : i + 500]], 1),
        )
      )
      for i in range(0, len(u_B), 500)
    ]
  )
  # The heavy id's own block is drawn as one; the second level splits it.
  block = slice(heavy // 256 * 256, heavy // 256 * 256 + 256)
  tail_V[block] = 0
  in_tail_B = tail_V[ids_B] > 0
  np.testing.assert_allclose(in_tail_B.sum() * 2e-11, tail_V.sum(), rtol=1e-3)
  assert _chi_square(
    ids_B[in_tail_B] // 1024, tail_V.reshape(-1, 1024).sum(1)
  ) > (1e-3)


def test_light_ids_beside_a_heavy_one_in_a_block():
  """The second level resolves a tail inside the block of the heavy id."""
  logits_V = np.full(256, -18.0, np.float32)
  logits_V[100] = 0
  p_V = special.softmax(logits_V.astype(np.float64))
  u_B = (np.arange(5000) + 1).astype(np.float32) * np.float32(1e-9)
  u_BU = np.stack([np.full_like(u_B, 0.5), u_B], 1)
  ids_B = jax.device_get(_SAMPLE(jnp.broadcast_to(logits_V, (5000, 256)), u_BU))
  light_B = ids_B[ids_B != 100]
  np.testing.assert_allclose(len(light_B) * 1e-9, 1 - p_V[100], rtol=1e-2)
  counts_V = np.bincount(light_B, minlength=256)
  assert set(np.delete(counts_V, 100)) <= {14, 15, 16, 17}


@pytest.mark.parametrize('level', ['block', 'id'])
def test_a_tail_beside_two_heavy_entries(level):
  """Ten entries of 1e-9 each beside two of one half: each has its share."""
  step = 256 if level == 'block' else 1
  logits_V = np.full(256 * 12, -np.inf, np.float32)
  mass = np.array([0.5, *[1e-9] * 5, 0.5, *[1e-9] * 5])
  logits_V[np.arange(12) * step] = np.log(mass)
  fine_B = (np.arange(2000) + 1).astype(np.float32) * np.float32(1e-11)
  half_B = np.full_like(fine_B, 0.5)
  pair = (fine_B, half_B) if level == 'block' else (half_B, fine_B)
  logits_BV = jnp.broadcast_to(logits_V, (2000, len(logits_V)))
  ids_B = jax.device_get(_SAMPLE(logits_BV, np.stack(pair, 1)))
  counts_J = np.bincount(ids_B // step, minlength=12)
  light_J = counts_J[mass < 0.1]
  assert (np.abs(light_J - 100) <= 1).all(), counts_J


@pytest.mark.parametrize('u1', [2.0**-48, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0])
@pytest.mark.parametrize('u2', [2.0**-48, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0])
@pytest.mark.parametrize('vocab_size', [5, 256, 257, 1000])
def test_extremes_never_leave_the_support(u1, u2, vocab_size):
  rng = np.random.default_rng(vocab_size)
  logits_BV = rng.normal(0, 8, (64, vocab_size)).astype(np.float32)
  logits_BV[rng.random(logits_BV.shape) < 0.6] = -np.inf
  logits_BV[:, [0, -1]] = -np.inf
  logits_BV[:, vocab_size // 2] = -30.0  # Something is always possible.
  u_BU = jnp.broadcast_to(jnp.float32([u1, u2]), (64, 2))
  ids_B = jax.device_get(_SAMPLE(logits_BV, u_BU))
  assert (ids_B >= 0).all() and (ids_B < vocab_size).all()
  assert np.isfinite(logits_BV[np.arange(64), ids_B]).all()


def test_a_single_possible_id_is_always_drawn():
  logits_BV = np.full((3, 600), -np.inf, np.float32)
  ids_B = [0, 300, 599]
  logits_BV[range(3), ids_B] = [-100.0, 0.0, 100.0]
  for u in (2.0**-48, 0.3, 1.0):
    got_B = _SAMPLE(logits_BV, jnp.full((3, 2), u, jnp.float32))
    np.testing.assert_array_equal(got_B, ids_B)


def test_equals_the_float64_inverse_cdf():
  """Blocks and ids in order of mass: the ids equal those of float64."""
  logits_V = _real_shape_logits(2048, seed=3)
  p_V = special.softmax(logits_V.astype(np.float64))
  rng = np.random.default_rng(4)
  u_BU = (1 - rng.random((4000, 2))).astype(np.float32)

  def invert(mass_I, u):
    order_I = np.argsort(mass_I, kind='stable')
    sum_I = np.cumsum(mass_I[order_I])
    return order_I[np.searchsorted(sum_I, u * sum_I[-1])]

  def draw(u1, u2):
    block = invert(p_V.reshape(-1, 256).sum(1), u1)
    return block * 256 + invert(p_V[block * 256 : (block + 1) * 256], u2)

  expected_B = np.array([draw(*u_U) for u_U in u_BU.astype(np.float64)])
  got_B = jax.device_get(
    _SAMPLE(jnp.broadcast_to(logits_V, (4000, 2048)), u_BU)
  )
  assert (expected_B != got_B).mean() < 5e-4  # Float32 rounding at boundaries.


def test_uniforms_are_uniform_and_never_zero():
  u_BU = jax.device_get(
    inverse_cdf.uniforms(jax.random.split(jax.random.key(0), 50_000))
  )
  assert u_BU.min() > 0 and u_BU.max() <= 1
  assert stats.kstest(u_BU.ravel(), 'uniform').pvalue > 1e-3
  assert abs(np.corrcoef(u_BU.T)[0, 1]) < 0.02
  # Low bits are alive: values below 2^-14 are not multiples of 2^-24.
  small = u_BU[u_BU < 2.0**-10].astype(np.float64) * 2**24
  assert (small != np.round(small)).mean() > 0.9
