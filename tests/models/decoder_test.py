"""The decoder against the torch network of each family, everything random."""

import copy
import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers

from erp_jax.core import errors
from erp_jax.models import bits, checkpoint, decoder, decoder_config, layers
from erp_jax.models import cache as cache_lib

torch.set_num_threads(1)  # Its spinning threads cost more than they give.

TOLERANCE = 2e-5  # float32, logits of a few units.
VOCAB = 97

# As stages call it: one program per shape.
extend = jax.jit(decoder.extend, static_argnums=1, donate_argnums=5)
prefill = jax.jit(decoder.prefill, static_argnums=1)

LLAMA3_ROPE = {
  'rope_type': 'llama3',
  'rope_theta': 10000.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}
PLAIN_ROPE = {'rope_type': 'default', 'rope_theta': 5000.0}
# Windows of 6 end inside prompts, prefixes and rings; the caps bend scores.
CASES = {
  'grouped': ('Llama', {}),
  'tied': ('Llama', {'tie_word_embeddings': True}),
  'biases': ('Llama', {'attention_bias': True}),
  'llama3': ('Llama', {'rope_parameters': LLAMA3_ROPE}),
  'linear': (
    'Llama',
    {'rope_parameters': {**PLAIN_ROPE, 'rope_type': 'linear', 'factor': 4.0}},
  ),
  'one_kv_head': (
    'Gemma',
    {'num_attention_heads': 3, 'num_key_value_heads': 1},
  ),
  'gemma': ('Gemma', {'hidden_act': 'gelu'}),
  'gemma2': (
    'Gemma2',
    {
      'sliding_window': 6,
      'query_pre_attn_scalar': 9,
      'attn_logit_softcapping': 2.0,
      'final_logit_softcapping': 3.0,
    },
  ),
  'gemma3': (
    'Gemma3',
    {
      'sliding_window': 6,
      'query_pre_attn_scalar': 9,
      'num_hidden_layers': 4,
      'layer_types': [
        *('sliding_attention', 'sliding_attention'),
        *('full_attention', 'sliding_attention'),
      ],
      'rope_parameters': {
        'sliding_attention': PLAIN_ROPE,
        'full_attention': {
          **PLAIN_ROPE,
          'rope_type': 'linear',
          'factor': 8.0,
        },
      },
    },
  ),
  'qwen2': ('Qwen2', {}),
  'qwen2_window': (
    'Qwen2',
    {
      'use_sliding_window': True,
      'sliding_window': 6,
      'max_window_layers': 1,
    },
  ),
  'qwen3': ('Qwen3', {}),
  'qwen3_moe': (
    'Qwen3Moe',
    {
      'num_experts': 8,
      'num_experts_per_tok': 3,
      'moe_intermediate_size': 24,
      'norm_topk_prob': True,
    },
  ),
  'qwen3_moe_raw': (
    'Qwen3Moe',
    {
      'num_experts': 5,
      'num_experts_per_tok': 2,
      'moe_intermediate_size': 24,
      'norm_topk_prob': False,
    },
  ),
}
# What `extend` does not share with the full forward: masks, positions, caches.
RING_CASES = (
  *('grouped', 'llama3', 'gemma', 'gemma2', 'gemma3'),
  *('qwen2', 'qwen3', 'qwen3_moe'),
)


def _torch_model(case):
  """A small torch model, every parameter random."""
  family, changes = CASES[case]
  name = 'Gemma3Text' if family == 'Gemma3' else family
  fields = {
    'vocab_size': VOCAB,
    'hidden_size': 48,
    'intermediate_size': 80,
    'num_hidden_layers': 3,
    'num_attention_heads': 6,
    'num_key_value_heads': 2,
    'head_dim': 16,
    'rms_norm_eps': 1e-5,
    'rope_parameters': PLAIN_ROPE,
    'pad_token_id': 0,
    'attn_implementation': 'eager',
    **changes,
  }
  config = getattr(transformers, f'{name}Config')(**copy.deepcopy(fields))
  model = getattr(transformers, f'{family}ForCausalLM')(config)
  torch.manual_seed(0)
  model = model.eval().requires_grad_(False)
  for name, value in model.named_parameters():
    plus_one = family.startswith('Gemma')
    mean = 1.0 if 'norm' in name and not plus_one else 0.0
    value.normal_(mean, 0.15)
  return model


@functools.cache
def _build(case):
  """A torch model, and ours loaded from the folder that it saves."""
  model = _torch_model(case)
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    cfg, weights, _ = checkpoint.load_decoder(folder, jnp.float32)
  return model, cfg, weights


def _torch_logits(model, tokens):
  return model(torch.tensor(tokens)).logits.numpy()


def _tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, VOCAB, shape)


def _prefix(cfg, weights, prompts, size):
  """The prompts, right-padded with junk and prefilled as a shared prefix."""
  len_P = np.array([len(prompt) for prompt in prompts])
  token_PT = _tokens(len(prompts), len_P.max(), seed=9)
  for row, prompt in zip(token_PT, prompts, strict=True):
    row[: len(prompt)] = prompt
  _, suffix = prefill(weights, cfg, jnp.asarray(token_PT))
  return cache_lib.as_prefix(suffix, jnp.asarray(len_P), size)


@pytest.mark.parametrize('case', CASES)
def test_full_forward_matches_torch_on_padded_prompts(case):
  model, cfg, weights = _build(case)
  token_PT = _tokens(3, 70)
  len_P = (70, 41, 1)
  hidden_PTD, _ = prefill(weights, cfg, jnp.asarray(token_PT))
  logits_PTV = decoder.logits(weights, cfg, hidden_PTD)
  for got_TV, token_T, size in zip(logits_PTV, token_PT, len_P, strict=True):
    want_TV = _torch_logits(model, token_T[None, :size])[0]
    assert np.abs(want_TV).max() > 1
    np.testing.assert_allclose(got_TV[:size], want_TV, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize('case', RING_CASES)
def test_decoding_in_a_ring_matches_separate_forwards(case):
  """P x K sequences, refilled at different steps, in one ring of slots."""
  model, cfg, weights = _build(case)
  P, K, size, num_steps = 2, 3, 5, 14
  prompts = [_tokens(7, seed=1), _tokens(3, seed=2)]
  prefix = _prefix(cfg, weights, prompts, size=16)
  suffix = decoder.empty_cache(cfg, P, K, size, jnp.float32)
  token_PKN = _tokens(P, K, num_steps, seed=3)
  offset_PK = np.array([[0, 2, 4], [3, 3, 1]])
  at_S = np.arange(size)
  states = []
  for i in range(num_steps):
    age_PK = (i + offset_PK) % size  # Tokens since its sequence began.
    slot = i % size
    seen_PKTS = ((slot - at_S) % size <= age_PK[..., None])[:, :, None]
    position_PKT = (prefix.len_P[:, None] + age_PK)[..., None]
    hidden_PKTD, suffix = extend(
      weights,
      cfg,
      token_PKN[:, :, i : i + 1],
      position_PKT,
      prefix,
      suffix,
      slot,
      seen_PKTS,
    )
    states.append(hidden_PKTD[:, :, 0])
  logits_NPKV = np.asarray(decoder.logits(weights, cfg, jnp.stack(states)))
  for p, k in np.ndindex(P, K):
    # The first whole sequence begins at `first`, the next ones follow it.
    first = -offset_PK[p, k] % size
    for start in range(first, num_steps, size):
      own = slice(start, min(start + size, num_steps))
      both = np.concatenate([prompts[p], token_PKN[p, k, own]])
      want_TV = _torch_logits(model, both[None])[0, len(prompts[p]) :]
      np.testing.assert_allclose(
        logits_NPKV[own, p, k], want_TV, rtol=0, atol=TOLERANCE
      )


def _causal(P, K, T, size, start):
  """Token t at slot start + t sees the slots up to its own."""
  seen_TS = np.arange(size) <= start + np.arange(T)[:, None]
  return jnp.broadcast_to(seen_TS, (P, K, T, size))


@pytest.mark.parametrize(
  ('case', 'chunks'),
  [
    ('grouped', (7,)),
    ('grouped', (4, 3)),
    ('gemma2', (4, 3)),
    ('gemma3', (7,)),
  ],
)
def test_scoring_suffixes_matches_separate_forwards(case, chunks):
  model, cfg, weights = _build(case)
  P, K, T, size = 2, 3, 7, 7
  prompts = [_tokens(9, seed=1), _tokens(2, seed=2)]
  prefix = _prefix(cfg, weights, prompts, size=12)
  suffix = decoder.empty_cache(cfg, P, K, size, jnp.float32)
  token_PKT = _tokens(P, K, T, seed=4)
  position_PKT = np.broadcast_to(
    prefix.len_P[:, None, None] + np.arange(T), token_PKT.shape
  )
  states = []
  for stop, num in zip(np.cumsum(chunks), chunks, strict=True):
    start = int(stop) - num
    hidden_PKTD, suffix = extend(
      weights,
      cfg,
      token_PKT[..., start:stop],
      jnp.asarray(position_PKT[..., start:stop]),
      prefix,
      suffix,
      start,
      _causal(P, K, num, size, start),
    )
    states.append(hidden_PKTD)
  hidden_PKTD = jnp.concatenate(states, axis=2)
  logits_PKTV = decoder.logits(weights, cfg, hidden_PKTD)
  for p, k in np.ndindex(P, K):
    both = np.concatenate([prompts[p], token_PKT[p, k]])
    want_TV = _torch_logits(model, both[None])[0, len(prompts[p]) :]
    np.testing.assert_allclose(
      logits_PKTV[p, k], want_TV, rtol=0, atol=TOLERANCE
    )


def test_empty_prefix_is_no_prefix():
  _, cfg, weights = _build('grouped')
  token_PT = jnp.asarray(_tokens(2, 6))
  hidden_PTD, cache = prefill(weights, cfg, token_PT)
  prefix = cache_lib.as_prefix(cache, jnp.array([0, 0]), 8)
  hidden_PKTD, _ = extend(
    weights,
    cfg,
    token_PT[:, None],
    jnp.broadcast_to(jnp.arange(6), (2, 1, 6)),
    prefix,
    decoder.empty_cache(cfg, 2, 1, 9, jnp.float32),
    0,
    _causal(2, 1, 6, 9, 0),
  )
  np.testing.assert_allclose(hidden_PKTD[:, 0], hidden_PTD, rtol=0, atol=1e-5)


def test_a_row_that_sees_nothing_is_finite_and_disturbs_no_other():
  _, cfg, weights = _build('grouped')
  token_PKT = jnp.asarray(_tokens(1, 2, 4))
  position_PKT = jnp.broadcast_to(jnp.arange(4), (1, 2, 4))
  seen_PKTS = np.array(_causal(1, 2, 4, 4, 0))
  suffix = decoder.empty_cache(cfg, 1, 2, 4, jnp.float32)
  rest = (weights, cfg, token_PKT, position_PKT, None, suffix, 0)
  want, _ = decoder.extend(*rest, jnp.asarray(seen_PKTS))
  seen_PKTS[0, 1] = False
  got, cache = decoder.extend(*rest, jnp.asarray(seen_PKTS))
  np.testing.assert_allclose(got[0, 0], want[0, 0], rtol=0, atol=1e-6)
  assert np.isfinite(got).all()
  assert all(np.isfinite(x).all() for x in cache)


def test_bfloat16_weights_give_bfloat16_states_and_float32_logits():
  _, cfg, weights = _build('llama3')
  token_PT = jnp.asarray(_tokens(2, 40))
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights)
  hidden_PTD, cache = prefill(narrow, cfg, token_PT)
  logits_PTV = decoder.logits(narrow, cfg, hidden_PTD)
  assert hidden_PTD.dtype == jnp.bfloat16
  assert bits.unpack(cache).key_LPKGWS.dtype == jnp.bfloat16
  assert logits_PTV.dtype == jnp.float32
  wide = decoder.logits(weights, cfg, prefill(weights, cfg, token_PT)[0])
  error = np.abs(logits_PTV - wide).max() / np.abs(wide).max()
  assert 1e-4 < error < 0.05
  packed = narrow | {'layers': bits.pack(narrow['layers'])}
  again_PTD, _ = prefill(packed, cfg, token_PT)
  np.testing.assert_array_equal(again_PTD, hidden_PTD)


def test_the_embedding_scale_is_rounded_before_it_multiplies():
  _, cfg, weights = _build('gemma')
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights)
  # Blocks that add nothing leave the embedding as it came.
  narrow['layers'] = jax.tree.map(jnp.zeros_like, narrow['layers'])
  token_PT = _tokens(1, 9)
  hidden_PTD, _ = decoder.prefill(narrow, cfg, jnp.asarray(token_PT), 1)
  # sqrt(48) = 6.928 is 6.9375 in bfloat16.
  table = np.asarray(narrow['embed_VD'])
  want_PTD = table[token_PT] * ml_dtypes.bfloat16(6.9375)
  np.testing.assert_array_equal(hidden_PTD, want_PTD)
  assert (want_PTD != (table[token_PT] * np.float32(48**0.5))).any()


def test_llama3_scaling_keeps_blends_and_slows_as_meta_does():
  # Llama 3.1: of 64 pairs 29 stay, 6 are blended, 29 are divided by 8.
  args = {'head_dim': 128, 'theta': 5e5, 'low': 1, 'high': 4, 'original': 8192}
  plain = layers.rope_frequencies(factor=1, **args)
  scaled = layers.rope_frequencies(factor=8, **args)
  ratio = plain / scaled
  assert np.isclose(ratio, 1).sum() == 29
  assert np.isclose(ratio, 8).sum() == 29


def _hf(**changes):
  config = {
    'architectures': ['LlamaForCausalLM'],
    'hidden_act': 'silu',
    'hidden_size': 64,
    'intermediate_size': 96,
    'max_position_embeddings': 128,
    'num_attention_heads': 4,
    'num_hidden_layers': 2,
    'num_key_value_heads': 2,
    'rms_norm_eps': 1e-5,
    'rope_theta': 500000.0,
    'rope_scaling': None,
    'tie_word_embeddings': True,
    'vocab_size': 99,
  }
  return {**config, **changes}


def test_both_spellings_of_the_rope_config_agree():
  scaling = {key: LLAMA3_ROPE[key] for key in LLAMA3_ROPE if 'theta' not in key}
  old = _hf(rope_theta=10000.0, rope_scaling=scaling)
  new = _hf(rope_parameters=LLAMA3_ROPE)
  del new['rope_theta'], new['rope_scaling']
  cfg = decoder_config.from_hf(old)
  assert cfg == decoder_config.from_hf(new)
  assert (cfg.rope_theta, cfg.rope_factor, cfg.rope_original) == (1e4, 8, 32)
  assert (cfg.head_dim, cfg.tied) == (16, True)
  plain = decoder_config.from_hf(_hf())
  assert (plain.rope_theta, plain.rope_factor) == (500000.0, 1.0)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'architectures': ['OPTForCausalLM']}, 'OPTForCausalLM.*LlamaForCausalLM'),
    ({'architectures': ['Qwen2ForRewardModel']}, 'Qwen2ForRewardModel'),
    (
      {'rope_scaling': {'type': 'yarn', 'factor': 2}},
      "rope_type='yarn'.*llama3",
    ),
    ({'rope_scaling': {'rope_type': 'llama3'}}, "no field 'factor'"),
    ({'mlp_bias': True}, 'mlp_bias=True'),
    ({'hidden_act': 'gelu'}, "hidden_act='gelu'.*silu"),
  ],
)
def test_config_refuses_what_is_not_supported(changes, message):
  with pytest.raises(errors.UserError, match=message):
    decoder_config.from_hf(_hf(**changes))


def test_config_is_hashable():
  cfg = decoder_config.from_hf(_hf())
  assert hash(cfg) == hash(dataclasses.replace(cfg))
