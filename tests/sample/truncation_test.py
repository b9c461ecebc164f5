"""Top-k and top-p against transformers' own, and against a float64 sort."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from scipy import special, stats

from erp_jax.sample import inverse_cdf, programs, truncation

_TASK = programs.Task(
  model=None,
  num_ids=300,
  stop_ids=(7,),
  k=1,
  temperature=1.0,
  max_new_tokens=1,
  seed=0,
)
_KEEP = jax.jit(truncation.keep_likeliest, static_argnums=(1, 2))


def _logits(rows, vocab_size, seed=0):
  """As sharp as a language model's: some heavy ids, a long tail."""
  rng = np.random.default_rng(seed)
  logits_BV = rng.normal(0, 2.5, (rows, vocab_size))
  logits_BV[:, : vocab_size // 20] += rng.uniform(
    0, 8, (rows, vocab_size // 20)
  )
  return rng.permuted(logits_BV, axis=1).astype(np.float32)


def _filtered(logits_BV, temperature, top_k, top_p):
  """What transformers leaves, in its own order; -inf elsewhere."""
  scores = torch.tensor(np.array(logits_BV))
  warpers = [transformers.TemperatureLogitsWarper(temperature)]
  if top_k:
    warpers.append(transformers.TopKLogitsWarper(top_k))
  if top_p < 1:
    warpers.append(transformers.TopPLogitsWarper(top_p))
  for warper in warpers:
    scores = warper(None, scores)
  return scores.numpy()


@pytest.mark.parametrize('vocab_size', [7, 256, 1000, 49152])
@pytest.mark.parametrize(
  ('top_k', 'top_p'),
  [
    *((0, 0.9), (20, 1.0), (20, 0.8), (50, 0.3)),
    *((1, 0.9), (0, 1e-6), (9999, 0.95)),
  ],
)
def test_keeps_what_transformers_keeps(vocab_size, top_k, top_p):
  logits_BV = _logits(16, vocab_size)
  want_BV = _filtered(logits_BV, 0.7, top_k, top_p)
  got_BV = jax.device_get(_KEEP(jnp.float32(logits_BV) / 0.7, top_k, top_p))
  np.testing.assert_array_equal(np.isfinite(got_BV), np.isfinite(want_BV))
  kept_BV = np.isfinite(got_BV)
  assert kept_BV.any(axis=1).all()
  np.testing.assert_allclose(got_BV[kept_BV], want_BV[kept_BV], rtol=1e-6)


def test_ids_that_may_never_be_drawn_stay_out():
  logits_BV = _logits(8, 600)
  logits_BV[:, 300:] = -np.inf
  for top_k, top_p in ((0, 0.99), (400, 1.0), (400, 0.999)):
    got_BV = jax.device_get(_KEEP(logits_BV, top_k, top_p))
    assert (got_BV[:, 300:] == -np.inf).all()
    want_BV = _filtered(logits_BV, 1.0, top_k, top_p)
    np.testing.assert_array_equal(got_BV, want_BV)


def test_ties_stay_together():
  """Three ids tie at the second place, and the fourth there lies below."""
  logits_BV = np.log(np.float32([[1, 4, 1, 8, 4, 4, 0.5]]))
  for top_k in (2, 3, 4):
    kept_V = np.isfinite(_KEEP(logits_BV, top_k, 1.0)[0])
    np.testing.assert_array_equal(np.flatnonzero(kept_V), [1, 3, 4, 5])
  # 8 of 22.5 lie above them, and 12 of 22.5 more above the rest.
  for top_p in (0.36, 0.6, 0.88):
    kept_V = np.isfinite(_KEEP(logits_BV, 0, top_p)[0])
    np.testing.assert_array_equal(np.flatnonzero(kept_V), [1, 3, 4, 5])
  assert np.isfinite(_KEEP(logits_BV, 0, 0.35)).sum() == 1
  assert np.isfinite(_KEEP(logits_BV, 0, 0.9)).sum() == 6


def test_a_mass_that_is_reached_exactly_is_enough():
  """Halves and quarters are exact: .5 needs one id, more than .5 a second."""
  logits_BV = np.float32([[0, -1, -2, -2]]) * np.float32(np.log(2))
  for top_p, count in ((0.5, 1), (0.51, 2), (0.75, 2), (0.76, 4)):
    assert np.isfinite(_KEEP(logits_BV, 0, top_p)).sum() == count, top_p


def test_the_threshold_is_that_of_a_float64_sort():
  logits_BV = _logits(64, 5007, seed=3)
  p_BV = special.softmax(logits_BV.astype(np.float64), axis=1)
  for top_p in (0.05, 0.5, 0.9, 0.999):
    sorted_BV = -np.sort(-p_BV, axis=1)
    before_BV = sorted_BV.cumsum(axis=1) - sorted_BV
    got_B = np.isfinite(_KEEP(logits_BV, 0, top_p)).sum(axis=1)
    assert ((before_BV < top_p - 1e-6).sum(axis=1) <= got_B).all()
    assert ((before_BV < top_p + 1e-6).sum(axis=1) >= got_B).all()


@pytest.mark.parametrize(
  ('temperature', 'top_k', 'top_p'), [(0.6, 0, 0.9), (0.7, 20, 0.8)]
)
def test_draws_follow_the_filtered_probabilities(temperature, top_k, top_p):
  """Chi-square of what the engine draws against transformers' softmax."""
  logits_V = _logits(1, 300, seed=5)[0] / 4
  task = dataclasses.replace(
    _TASK, temperature=temperature, top_k=top_k, top_p=top_p
  )
  draw = jax.jit(
    lambda key_B: programs._draw(
      task,
      jnp.broadcast_to(logits_V, (len(key_B), 300)),
      key_B,
      jnp.zeros(len(key_B)),
    )
  )
  keys_B = jax.random.split(jax.random.key(1), 40_000)
  parts = [jax.device_get(draw(part)) for part in jnp.split(keys_B, 20)]
  count_V = np.bincount(np.concatenate(parts), minlength=300)
  scores_BV = _filtered(logits_V[None], temperature, top_k, top_p)
  p_V = special.softmax(np.float64(scores_BV[0]))
  kept_V = p_V > 0
  assert 3 < kept_V.sum() < 200 and count_V[~kept_V].sum() == 0
  expected_V = p_V[kept_V] * 40_000
  assert (expected_V >= 5).all()
  assert stats.chisquare(count_V[kept_V], expected_V).pvalue > 1e-3


def test_without_either_nothing_is_compiled_in():
  """The plain program is the one without these options."""
  args = (
    jax.ShapeDtypeStruct((4, 300), jnp.float32),
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4)),
    jax.ShapeDtypeStruct((4,), jnp.int32),
  )

  def plain(logits_BV, key_B, step_B):
    key_B = jax.vmap(jax.random.fold_in)(key_B, step_B.astype(jnp.uint32))
    u_BU = inverse_cdf.uniforms(key_B)
    return inverse_cdf.sample(logits_BV / _TASK.temperature, u_BU)

  drawn = lambda task: str(
    jax.make_jaxpr(lambda *a: programs._draw(task, *a))(*args)
  )
  assert drawn(_TASK) == str(jax.make_jaxpr(plain)(*args))
  for other in ({'top_k': 5}, {'top_p': 0.9}):
    assert drawn(dataclasses.replace(_TASK, **other)) != drawn(_TASK)
