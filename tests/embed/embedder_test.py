import json
import pathlib

import numpy as np
import pytest

from erp_jax import data
from erp_jax.core import errors
from erp_jax.embed import embedder


@pytest.fixture(scope='module')
def minilm():
  return embedder.load(embedder.EmbedConfig())


@pytest.fixture(scope='module')
def texts():
  """200 prompts of 3 to over 256 tokens: the quickstart's, and joined ones."""
  path = pathlib.Path(data.__path__[0]) / 'quickstart.jsonl'
  lines = path.read_text().splitlines()
  prompts = [json.loads(line)['prompt'] for line in lines][:160]
  joined = [' '.join(prompts[i : i + 1 + i // 2]) for i in range(40)]
  return prompts + joined


@pytest.fixture(scope='module')
def result(minilm, texts):
  return minilm.embed(texts)


@pytest.fixture(scope='module')
def want_NE(minilm_dir, texts):
  import sentence_transformers  # Ten seconds that only a slow test spends.

  model = sentence_transformers.SentenceTransformer(str(minilm_dir))
  assert model.max_seq_length == 256
  return model.encode(texts, batch_size=16)


def test_golden_cosines(minilm):
  sentences = [
    'A man is eating food.',
    'A man eats something.',
    'The stock market fell sharply today.',
  ]
  emb_NE = minilm.embed(sentences).emb_NE
  assert emb_NE[0] @ emb_NE[1] == pytest.approx(0.8749, abs=1e-4)


@pytest.mark.slow
def test_agrees_with_sentence_transformers(result, want_NE):
  assert 1 < result.num_truncated < 20
  assert result.emb_NE.dtype == np.float32
  np.testing.assert_allclose(result.emb_NE, want_NE, atol=1e-5)


def test_a_prompt_alone_agrees_with_the_batch(minilm, texts, result):
  for i in (0, 159, 185, 199):
    alone_NE = minilm.embed(texts[i : i + 1]).emb_NE
    np.testing.assert_allclose(alone_NE[0], result.emb_NE[i], atol=1e-6)


def test_truncation_is_counted_and_keeps_the_first_tokens(minilm):
  # "a" is one token, and so are [CLS] and [SEP].
  texts = ['a ' * n for n in (253, 254, 255, 400)]
  result = minilm.embed(texts)
  assert result.num_truncated == 2
  for i in (2, 3):
    np.testing.assert_allclose(result.emb_NE[i], result.emb_NE[1], atol=1e-6)
  assert abs(result.emb_NE[0] - result.emb_NE[1]).max() > 1e-4


def test_a_shorter_limit_gives_the_vector_of_the_shorter_text(minilm):
  short = embedder.load(embedder.EmbedConfig(max_tokens=10, batch_tokens=64))
  result = short.embed(['a ' * 20, 'b'])
  assert result.num_truncated == 1
  want_NE = minilm.embed(['a ' * 8, 'b']).emb_NE
  np.testing.assert_allclose(result.emb_NE, want_NE, atol=1e-6)


def test_without_normalisation_the_direction_is_the_same(minilm, texts):
  raw = embedder.load(embedder.EmbedConfig(normalize=False))
  result = raw.embed(texts[:20])
  unit = minilm.embed(texts[:20])
  norm_N = np.linalg.norm(result.emb_NE, axis=1)
  assert result.mean_norm == unit.mean_norm == pytest.approx(norm_N.mean())
  assert norm_N.min() > 2
  np.testing.assert_allclose(
    result.emb_NE / norm_N[:, None], unit.emb_NE, atol=1e-6
  )
  assert minilm.backend.pooling_mode == 'mean'


def test_progress_counts_every_text(minilm, texts):
  done = []
  minilm.embed(texts[:60], advance=done.append)
  assert sum(done) == 60 and len(done) > 1


def test_no_texts(minilm):
  result = minilm.embed([])
  assert result.emb_NE.shape == (0, minilm.width) == (0, 384)


def test_a_prompt_is_put_before_each_text_and_counted(minilm, texts):
  fields = {'prompt': 'query: ', 'max_tokens': 64}
  queries = embedder.load(embedder.EmbedConfig(**fields))
  # 'query', ':' and each 'a' are one token, [CLS] and [SEP] two more.
  texts = [*texts[:5], 'a ' * 60, 'a ' * 61]
  result = queries.embed(texts)
  assert result.num_truncated == 1
  want_NE = minilm.embed([f'query: {text}' for text in texts[:-1]]).emb_NE
  np.testing.assert_allclose(result.emb_NE[:-1], want_NE, atol=1e-6)
  np.testing.assert_allclose(result.emb_NE[-1], want_NE[-1], atol=1e-6)


def test_bfloat16_is_near_float32(minilm, texts):
  half = embedder.load(embedder.EmbedConfig(dtype='bfloat16'))
  got_NE, want_NE = (e.embed(texts[:50]).emb_NE for e in (half, minilm))
  assert got_NE.dtype == np.float32
  cosine_N = np.einsum('NE,NE->N', got_NE, want_NE)
  assert cosine_N.min() > 0.999
  assert abs(got_NE - want_NE).max() > 1e-4


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'max_tokens': 2}, 'embed.max_tokens must be >= 3, got 2'),
    ({'max_tokens': 513}, 'is 513, but package:minilm-l6-v2 has 512 positions'),
    ({'batch_tokens': 0}, 'embed.batch_tokens must be >= 1, got 0'),
    ({'layer': -1}, 'embed.layer must be >= 0, got -1'),
    ({'layer': 6}, 'is 6, but package:minilm-l6-v2 has 6 layers'),
    ({'backend': 'torch'}, 'must be one of jax, sentence-transformers, got'),
    ({'pooling': 'max'}, "must be one of auto, mean, cls, last, got 'max'"),
    ({'dtype': 'float16'}, "must be one of float32, bfloat16, got 'float16'"),
    (
      {'backend': 'sentence-transformers', 'pooling': 'cls'},
      "runs the model's own pipeline: leave them at 'auto' and 0",
    ),
    ({'backend': 'sentence-transformers', 'layer': 1}, 'embed.layer is 1, but'),
  ],
)
def test_bad_config(fields, message):
  with pytest.raises(errors.UserError, match=message):
    embedder.load(embedder.EmbedConfig(**fields))
