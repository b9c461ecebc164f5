"""Sampling from SmolLM2: other batch shapes, stops, and the same bits again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from erp_jax.data import prompts
from erp_jax.models import checkpoint, decoder, tokenizer
from erp_jax.sample import engine, inverse_cdf, noise, programs

_K = 4
_ENGINE = engine.EngineConfig(slots=32, chunk_steps=4, prompt_buckets=(64,))
# Largest difference of logits between batch shapes that is still rounding.
_LOGIT_ERROR = 2e-4


@pytest.fixture(scope='module')
def smollm2(smollm2_dir):
  cfg, params, ckpt = checkpoint.load_decoder(str(smollm2_dir), jnp.float32)
  tok = tokenizer.load_tokenizer(ckpt.path)
  task = programs.Task(
    model=cfg,
    num_ids=tok.vocab_size,
    stop_ids=tok.stop_ids,
    k=_K,
    temperature=1.0,
    max_new_tokens=16,
    seed=0,
  )
  return params, task, tok


@pytest.fixture(scope='module')
def asked(smollm2):
  loaded = prompts.load(prompts.PromptConfig(limit_per_category=4))
  ids = [smollm2[2].render_ids(p.prompt) for p in loaded]
  short = [n for n, x in enumerate(ids) if len(x) <= 64]
  words_NKJ = noise.response_words('arm', [loaded[n].id for n in short], _K)
  return [ids[n] for n in short], words_NKJ


@pytest.mark.slow
def test_other_batch_shapes_change_only_tokens_at_a_boundary(
  smollm2, asked, record_property
):
  """Equal uniforms; a changed token lies within rounding of a CDF boundary."""
  params, task, _ = smollm2
  ids, words_NKJ = asked
  one, _ = engine.generate(params, task, _ENGINE, ids, words_NKJ)
  again, _ = engine.generate(params, task, _ENGINE, ids, words_NKJ)
  assert one == again  # Bit-equal in the same shapes.
  cfg = dataclasses.replace(_ENGINE, slots=8, chunk_steps=3)
  other, _ = engine.generate(params, task, cfg, ids, words_NKJ)
  changed, total = 0, 0
  for n, per_prompt in enumerate(one):
    for k, response in enumerate(per_prompt):
      a, b = response.ids, other[n][k].ids
      same = next(
        (
          t
          for t, pair in enumerate(zip(a, b, strict=False))
          if pair[0] != pair[1]
        ),
        None,
      )
      total += len(a)
      if same is None:
        assert a == b
        continue
      changed += 1
      logits_V = _logits(params, task, [*ids[n], *a[:same]])
      key = noise.response_keys(task.seed, words_NKJ[n, k][None])[0]
      u_U = inverse_cdf.uniforms(jax.random.fold_in(key, same)[None])[0]
      assert _near_boundary(logits_V, np.float64(u_U), a[same], b[same])
  record_property('changed_tokens', f'{changed} of {total}')
  assert changed / total < 0.01


def _logits(params, task, ids):
  padded = np.zeros((1, 96), int)
  padded[0, : len(ids)] = ids
  hidden_PTD, _ = decoder.prefill(params, task.model, jnp.asarray(padded))
  return np.float64(
    decoder.logits(params, task.model, hidden_PTD[0, len(ids) - 1])
  )


def _near_boundary(logits_V, u_U, a, b):
  """True if u is within the error of the edge between the draws a and b.

  Moving every logit by at most e moves a cumulative share by at most 2e.
  """
  p_JI = special.softmax(logits_V).reshape(-1, 256)
  if a // 256 != b // 256:
    mass_I, u, drawn = p_JI.sum(axis=1), u_U[0], (a // 256, b // 256)
  else:
    mass_I, u, drawn = p_JI[a // 256], u_U[1], (a % 256, b % 256)
  order_I = np.argsort(np.arange(len(mass_I)) == mass_I.argmax(), kind='stable')
  upper_I = np.cumsum(mass_I[order_I]) / mass_I.sum()
  edges = []
  for index in drawn:
    at = int(np.flatnonzero(order_I == index)[0])
    edges += [upper_I[at], upper_I[at - 1] if at else 0.0]
  return min(abs(u - edge) for edge in edges) < 2 * _LOGIT_ERROR


@pytest.mark.slow
def test_teacher_forced_logits_agree_between_shapes(smollm2, asked):
  """A row of a batch of one against the same row in a batch of 16: 2e-4."""
  params, task, _ = smollm2
  ids, _ = asked
  token_PT = np.zeros((16, 64), int)
  for p in range(16):
    token_PT[p, : len(ids[p % len(ids)])] = ids[p % len(ids)]
  whole_PTD, _ = decoder.prefill(params, task.model, jnp.asarray(token_PT))
  worst = 0.0
  for p in range(3):
    alone = jnp.asarray(token_PT[p : p + 1])
    alone_PTD, _ = decoder.prefill(params, task.model, alone)
    last = len(ids[p % len(ids)]) - 1
    pair_PD = jnp.stack([whole_PTD[p, last], alone_PTD[0, last]])
    logits_PV = decoder.logits(params, task.model, pair_PD)
    worst = max(worst, float(jnp.abs(logits_PV[0] - logits_PV[1]).max()))
  assert worst < _LOGIT_ERROR


@pytest.mark.slow
def test_greedy_answers_and_stops(smollm2):
  params, task, tok = smollm2
  task = dataclasses.replace(task, temperature=0.0, k=1)
  question = tok.render_ids('What is the capital of France?')
  (answers,), _ = engine.generate(
    params, task, _ENGINE, [question], noise.response_words('a', ['p'], 1)
  )
  assert answers[0].stopped
  assert tok.decode(answers[0].ids) == 'The capital of France is Paris.'
