"""The engine draws what one prompt alone, one token at a time, would draw."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from erp_jax.core import errors
from erp_jax.models import decode_attention, decoder, decoder_weights
from erp_jax.models import params as params_lib
from erp_jax.sample import engine, inverse_cdf, noise, programs

_MODEL = decoder.DecoderConfig(
  vocab_size=300,
  num_layers=2,
  width=32,
  mlp=48,
  heads=4,
  kv_heads=2,
  head_dim=8,
  rope_theta=1e4,
  norm_eps=1e-5,
  tied=False,
  max_position=512,
)
_TASK = programs.Task(
  model=_MODEL,
  num_ids=290,
  stop_ids=(7, 11, *range(200, 220)),
  k=3,
  temperature=1.0,
  max_new_tokens=12,
  seed=5,
)
_ENGINE = engine.EngineConfig(
  slots=12,
  group=2,
  chunk_steps=3,
  prefill_tokens=64,
  prompt_buckets=(8, 16, 32),
)


@pytest.fixture(scope='module')
def params():
  tree = params_lib.init(
    decoder_weights.declare(_MODEL), jax.random.key(1), jnp.float32
  )
  # Logits as sharp as a real model's, or all draws would look alike.
  return tree | {'head_VD': tree['head_VD'] * 60}


def _prompts(count, seed=0):
  rng = np.random.default_rng(seed)
  return [
    rng.integers(0, 290, rng.integers(3, 30)).tolist() for _ in range(count)
  ]


def _words(count, k):
  return noise.response_words('arm', [f'p{n}' for n in range(count)], k)


@functools.partial(jax.jit, static_argnums=1)
def _logits(params, model, ids):
  """Logits after each token of one sequence, nothing shared or cached."""
  hidden_PTD, _ = decoder.prefill(params, model, jnp.asarray(ids)[None])
  return decoder.logits(params, model, hidden_PTD)[0]


def _alone(params, task, prompt, words_J):
  """One response, by a full forward pass per token."""
  key = noise.response_keys(task.seed, words_J[None])[0]
  ids = []
  while len(ids) < task.max_new_tokens and (
    not ids or ids[-1] not in task.stop_ids
  ):
    padded = np.zeros(64, int)
    padded[: len(prompt) + len(ids)] = prompt + ids
    ids.append(int(_next(params, task, key, padded, len(prompt), len(ids))))
  return ids


@functools.partial(jax.jit, static_argnums=1)
def _next(params, task, key, padded, prompt_len, step):
  logits_V = _logits(params, task.model, padded)[prompt_len + step - 1]
  logits_V = logits_V.at[task.num_ids :].set(-jnp.inf) / task.temperature
  u_BU = inverse_cdf.uniforms(jax.random.fold_in(key, step)[None])
  return inverse_cdf.sample(logits_V[None], u_BU)[0]


@pytest.mark.parametrize(
  'window, refill, native',
  [(0, 0.5, True), (5, 0.9, True), (0, 0.0, False), (5, 0.7, False)],
)
def test_equals_sampling_each_response_alone(
  params, window, refill, native, monkeypatch
):
  """Groups, moves, refills and the ring change nothing: 11 prompts."""
  if not native:
    monkeypatch.setattr(decode_attention, 'is_usable', lambda: False)
    jax.clear_caches()
  windowed = (True, False) if window else ()
  model = dataclasses.replace(_MODEL, window=window, windowed=windowed)
  task = dataclasses.replace(_TASK, model=model)
  prompts = _prompts(11)
  words_NKJ = _words(11, 3)
  cfg = dataclasses.replace(_ENGINE, refill=refill)
  responses, use = engine.generate(params, task, cfg, prompts, words_NKJ)
  for n, k in itertools.product(range(11), range(3)):
    expected = _alone(params, task, prompts[n], words_NKJ[n, k])
    assert responses[n][k].ids == expected, (n, k)
    assert responses[n][k].stopped == (expected[-1] in _TASK.stop_ids)
  lengths = [len(r.ids) for per_prompt in responses for r in per_prompt]
  assert use.tokens == sum(lengths)
  assert len(set(lengths)) > 5 and max(lengths) == 12  # Both ends are reached.


def test_a_response_ends_at_its_own_limit(params):
  prompts, words_NKJ = _prompts(7), _words(7, 3)
  limit_NK = np.random.default_rng(2).integers(1, 13, (7, 3))
  args = (params, _TASK, _ENGINE, prompts, words_NKJ)
  whole, _ = engine.generate(*args)
  cut, use = engine.generate(*args, limit_NK=limit_NK)
  for n, k in itertools.product(range(7), range(3)):
    assert cut[n][k].ids == whole[n][k].ids[: limit_NK[n, k]], (n, k)
  assert use.tokens == sum(len(r.ids) for row in cut for r in row)
  assert use.first == 21
  assert use.tokens < sum(len(r.ids) for row in whole for r in row)
  for wrong in (0, 13):
    with pytest.raises(errors.UserError, match='from 1 to max_new_tokens = 12'):
      engine.generate(*args, limit_NK=np.full((7, 3), wrong))


def test_the_joint_distribution_of_two_tokens(params):
  """Chi-square of (token 0, token 1) against the enumerated softmax."""
  task = dataclasses.replace(
    _TASK,
    k=2000,
    max_new_tokens=2,
    stop_ids=(7,),
    num_ids=20,
    temperature=2.5,
  )
  cfg = dataclasses.replace(_ENGINE, slots=4000)
  prompts = _prompts(1)
  counts = np.zeros((20, 20))
  for arm in range(10):
    words_NKJ = noise.response_words(f'arm{arm}', ['p'], 2000)
    responses, _ = engine.generate(params, task, cfg, prompts, words_NKJ)
    for r in responses[0]:
      counts[r.ids[0], r.ids[-1]] += 1  # A stop is counted on the diagonal.
  token_PT = jnp.asarray([[*prompts[0], a] for a in range(20)])
  hidden_PTD, _ = decoder.prefill(params, _MODEL, token_PT)
  logits_PTV = decoder.logits(params, _MODEL, hidden_PTD[:, -2:])[..., :20]
  p_PTV = special.softmax(np.float64(logits_PTV) / 2.5, axis=-1)
  joint = p_PTV[0, 0][:, None] * p_PTV[:, 1]
  joint[7] = np.where(np.arange(20) == 7, p_PTV[0, 0, 7], 0)
  expected = joint.ravel() * counts.sum()
  big = expected >= 10
  observed = np.append(counts.ravel()[big], counts.ravel()[~big].sum())
  expected = np.append(expected[big], expected[~big].sum())
  assert big.sum() > 20
  assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_arms_and_ks_have_noise_of_their_own():
  a = noise.response_words('a', ['p', 'q'], 4).reshape(-1, 5)
  b = noise.response_words('b', ['p', 'q'], 4).reshape(-1, 5)
  keys = jax.random.key_data(noise.response_keys(0, np.concatenate([a, b])))
  assert len(np.unique(np.asarray(keys), axis=0)) == 16


def test_other_prompts_change_no_draw(params):
  prompts = _prompts(6)
  responses, _ = engine.generate(params, _TASK, _ENGINE, prompts, _words(6, 3))
  fewer, _ = engine.generate(
    params, _TASK, _ENGINE, prompts[2:5], _words(6, 3)[2:5]
  )
  assert fewer == responses[2:5]


def test_done_again_it_is_equal(params):
  args = (params, _TASK, _ENGINE, _prompts(9), _words(9, 3))
  assert engine.generate(*args) == engine.generate(*args)


def test_greedy_is_the_limit(params):
  prompts = _prompts(5)
  greedy, _ = engine.generate(
    params,
    dataclasses.replace(_TASK, temperature=0.0),
    _ENGINE,
    prompts,
    _words(5, 3),
  )
  cold, _ = engine.generate(
    params,
    dataclasses.replace(_TASK, temperature=1e-4),
    _ENGINE,
    prompts,
    _words(5, 3),
  )
  for prompt, per_prompt in zip(prompts, greedy, strict=True):
    assert per_prompt[0] == per_prompt[1] == per_prompt[2]
    ids = [*prompt, *per_prompt[0].ids]
    logits_TV = _logits(params, _MODEL, np.resize(ids, 64))[:, :290]
    best_T = jnp.argmax(logits_TV, axis=-1)[len(prompt) - 1 : len(ids) - 1]
    assert per_prompt[0].ids == best_T.tolist()
  assert cold == greedy


def test_temperature_divides_the_logits(params):
  task = dataclasses.replace(_TASK, temperature=2.5)
  prompts = _prompts(2)
  words_NKJ = _words(2, 3)
  responses, _ = engine.generate(params, task, _ENGINE, prompts, words_NKJ)
  for n, k in itertools.product(range(2), range(3)):
    alone = _alone(params, task, prompts[n], words_NKJ[n, k])
    assert responses[n][k].ids == alone


def test_one_token_responses_and_one_slot(params):
  task = dataclasses.replace(_TASK, max_new_tokens=1, k=5)
  cfg = dataclasses.replace(_ENGINE, slots=1)  # Fewer slots than K: one group.
  responses, use = engine.generate(params, task, cfg, _prompts(3), _words(3, 5))
  assert [len(r.ids) for per in responses for r in per] == [1] * 15
  assert use.tokens == 15


def test_ids_no_tokenizer_has_are_never_drawn(params):
  task = dataclasses.replace(_TASK, num_ids=3, stop_ids=(299,))
  responses, _ = engine.generate(
    params, task, _ENGINE, _prompts(4), _words(4, 3)
  )
  assert {i for per in responses for r in per for i in r.ids} <= {0, 1, 2}
  assert not any(r.stopped for per in responses for r in per)


@pytest.mark.parametrize('max_new_tokens', [1, 12])
def test_a_nan_is_an_error(params, max_new_tokens):
  task = dataclasses.replace(_TASK, max_new_tokens=max_new_tokens)
  norm_D = params['norm_D'].at[3].set(jnp.nan)
  with pytest.raises(errors.UserError, match='not finite'):
    engine.generate(
      params | {'norm_D': norm_D}, task, _ENGINE, _prompts(2), _words(2, 3)
    )
