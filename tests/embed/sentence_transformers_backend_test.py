import builtins
import json
import sys

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers

from erp_jax.core import errors
from erp_jax.embed import embedder

_SENTENCE_TRANSFORMERS = 'sentence-transformers'


@pytest.mark.slow
@pytest.mark.parametrize('normalize', [True, False])
def test_both_backends_agree(normalize):
  texts = ['a ' * n for n in range(1, 40, 3)]
  texts += [f'Is {n} a prime? Explain, with {n} words.' for n in range(7)]
  results = [
    embedder.load(
      embedder.EmbedConfig(
        backend=backend, max_tokens=30, prompt='Say: ', normalize=normalize
      )
    ).embed(texts)
    for backend in ('jax', _SENTENCE_TRANSFORMERS)
  ]
  ours, theirs = results
  assert len(texts) == 20 and ours.emb_NE.dtype == theirs.emb_NE.dtype
  np.testing.assert_allclose(ours.emb_NE, theirs.emb_NE, atol=1e-5)
  assert ours.num_truncated == theirs.num_truncated == 4
  assert ours.mean_norm == pytest.approx(theirs.mean_norm, rel=1e-5)


@pytest.mark.slow
def test_runs_a_network_that_we_lack(tmp_path):
  """A RoBERTa, whose positions start at 2."""
  vocab = {token: i for i, token in enumerate(['<s>', '<pad>', 'a', 'b', '?'])}
  core = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token='?'))
  core.pre_tokenizer = pre_tokenizers.Whitespace()
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=core, pad_token='<pad>', model_max_length=20
  ).save_pretrained(tmp_path)
  config = transformers.RobertaConfig(
    vocab_size=5,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=10,
    max_position_embeddings=22,
    pad_token_id=1,
  )
  model = transformers.RobertaModel(config).eval()
  model.save_pretrained(tmp_path)
  cfg = embedder.EmbedConfig(encoder=str(tmp_path), max_tokens=20)
  with pytest.raises(errors.UserError, match='set embed.backend=sentence-tra'):
    embedder.load(cfg)

  def load(max_tokens):
    return embedder.load(
      embedder.EmbedConfig(
        encoder=str(tmp_path),
        backend=_SENTENCE_TRANSFORMERS,
        max_tokens=max_tokens,
        normalize=False,
      )
    )

  ours = load(20)
  done = []
  result = ours.embed(['a b a', 'b ' * 21], done.append)
  assert (sum(done), result.num_truncated, ours.width) == (2, 1, 12)
  for row, ids in enumerate([[2, 3, 2], [3] * 20]):
    with torch.no_grad():
      want_TD = model(torch.tensor([ids])).last_hidden_state[0]
    np.testing.assert_allclose(result.emb_NE[row], want_TD.mean(0), atol=1e-5)
  with pytest.raises(errors.UserError, match='max_tokens is 21, .* has 20 pos'):
    load(21)


@pytest.mark.slow
def test_a_folder_that_the_library_cannot_read(minilm_dir, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'none'}))
  weights = 'model.safetensors'
  (tmp_path / weights).write_bytes((minilm_dir / weights).read_bytes())
  cfg = embedder.EmbedConfig(
    encoder=str(tmp_path), backend=_SENTENCE_TRANSFORMERS
  )
  with pytest.raises(errors.UserError, match='cannot be read by sentence-tra'):
    embedder.load(cfg)


def test_without_the_library(monkeypatch):
  monkeypatch.delitem(sys.modules, 'sentence_transformers', raising=False)
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == 'sentence_transformers':
      raise ModuleNotFoundError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without)
  cfg = embedder.EmbedConfig(backend=_SENTENCE_TRANSFORMERS)
  with pytest.raises(errors.UserError, match="pip install 'erp_jax\\[st\\]'"):
    embedder.load(cfg)
