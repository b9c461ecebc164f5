"""Features of pairs equal those of transformers, and of whole forwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from erp_jax.core import errors
from erp_jax.models import decoder, decoder_weights
from erp_jax.models import params as params_lib
from erp_jax.models import tokenizer as tokenizer_lib
from erp_jax.score import features
from erp_jax.score import reader as reader_lib

_PROMPTS = ('What is the capital of France?', 'Add 2 and 2. ' * 30, 'Hi')
_TEXTS = (
  ['Paris.', 'The capital of France is Berlin, as everybody knows.'],
  ['Four ' * 80, 'No.'],
  ['Hello!'],
)


def _ignore(num_done, positions):
  del num_done, positions


def test_encoder_features_equal_transformers(minilm_dir):
  cfg = features.FeatureConfig(model=str(minilm_dir), max_tokens=64)
  reader = features.load(cfg)
  found = reader.read(_PROMPTS, _TEXTS, _ignore)
  tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_dir)
  model = transformers.AutoModel.from_pretrained(minilm_dir).eval()
  num_cut = 0
  for prompt, texts, x_KE in zip(_PROMPTS, _TEXTS, found, strict=True):
    assert x_KE.shape == (len(texts), reader.width)
    for text, x_E in zip(texts, x_KE, strict=True):
      cut = {'truncation': 'longest_first', 'max_length': 64}
      inputs = tokenizer(prompt, text, return_tensors='pt', **cut)
      num_cut += len(tokenizer(prompt, text)['input_ids']) > 64
      inputs['token_type_ids'] *= 0
      with torch.no_grad():
        mean_E = model(**inputs).last_hidden_state[0].mean(0)
      np.testing.assert_allclose(x_E, mean_E.numpy(), atol=2e-5)
  assert reader.num_cut == num_cut == 2


@pytest.fixture(scope='module')
def random_decoder(smollm2_dir):
  """SmolLM2's tokenizer and template on a decoder that is loaded in no time."""
  tokenizer = tokenizer_lib.load_tokenizer(smollm2_dir)
  cfg = decoder.DecoderConfig(
    vocab_size=tokenizer.vocab_size,
    num_layers=2,
    width=32,
    mlp=48,
    heads=4,
    kv_heads=2,
    head_dim=8,
    rope_theta=1e4,
    norm_eps=1e-5,
    tied=True,
    max_position=600,
  )
  params = params_lib.init(
    decoder_weights.declare(cfg), jax.random.key(1), jnp.float32
  )
  params |= {'embed_VD': params['embed_VD'] * 20}
  return reader_lib.Reader(cfg, params, tokenizer, batch_tokens=512)


def test_decoder_features_are_the_last_states_of_whole_conversations(
  random_decoder,
):
  cfg = features.FeatureConfig(max_tokens=96)
  reader = features.DecoderReader(cfg, random_decoder)
  found = reader.read(_PROMPTS, _TEXTS, _ignore)
  assert reader.num_cut == 2
  whole = jax.jit(decoder.prefill, static_argnums=1)
  for prompt, texts, x_KE in zip(_PROMPTS, _TEXTS, found, strict=True):
    for text, x_E in zip(texts, x_KE, strict=True):
      ids = random_decoder.tokenizer.render_ids(
        [
          {'role': 'user', 'content': prompt},
          {'role': 'assistant', 'content': text},
        ],
        generation_prompt=False,
      )
      if len(ids) > 96:
        ids = ids[:1] + ids[-95:]
      token_PT = np.zeros((1, 128), int)
      token_PT[0, : len(ids)] = ids
      hidden_PTD = whole(random_decoder.params, random_decoder.cfg, token_PT)[0]
      np.testing.assert_allclose(x_E, hidden_PTD[0, len(ids) - 1], atol=2e-5)


@pytest.mark.parametrize(
  'setting, expected',
  [
    ({'dtype': 'int4'}, 'features.dtype must be'),
    ({'max_tokens': 7}, 'max_tokens >= 8'),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    features.FeatureConfig(**setting)


def test_more_tokens_than_positions_are_refused(minilm_dir):
  cfg = features.FeatureConfig(model=str(minilm_dir), max_tokens=513)
  with pytest.raises(errors.UserError, match='has 512 positions'):
    features.load(cfg)
