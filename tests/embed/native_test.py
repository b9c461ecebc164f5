import json
import shutil

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

from erp_jax.embed import embedder

_TEXTS = (
  'What is 2 + 2?',
  'Name the capital of France, and say why it is where it is.',
  'Write a haiku about rain.',
  '',
  'Translate "good morning" into German, French and Spanish. ' * 4,
)


def _random(model):
  torch.manual_seed(0)
  with torch.no_grad():
    for name, param in model.named_parameters():
      param.normal_(1.0 if 'norm.weight' in name.lower() else 0.0, 0.2)
  return model.eval()


def _save_tokenizer(folder, kind):
  """One token a byte; 'bos' puts <s> before each text, 'eos' </s> after it."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocab = {t: i for i, t in enumerate(['<s>', '</s>', *alphabet])}
  core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.add_special_tokens(['<s>', '</s>'])
  core.post_processor = processors.TemplateProcessing(
    single={'bos': '<s> $A', 'eos': '$A </s>'}[kind],
    special_tokens=[('<s>', 0), ('</s>', 1)],
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=core, pad_token='</s>', eos_token='</s>'
  ).save_pretrained(folder)


_SHAPES = {
  'vocab_size': 258,
  'hidden_size': 24,
  'intermediate_size': 40,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
}


@pytest.fixture(scope='module', params=['bos', 'eos'])
def llama(request, tmp_path_factory):
  """A folder with a random Llama, and the model."""
  folder = tmp_path_factory.mktemp('llama')
  config = transformers.LlamaConfig(
    **_SHAPES, num_key_value_heads=2, max_position_embeddings=256
  )
  model = _random(transformers.LlamaForCausalLM(config))
  model.save_pretrained(folder)
  _save_tokenizer(folder, request.param)
  return folder, model


def _states(model, tokens, text, layer):
  """Hidden states of transformers, one text at a time."""
  ids = tokens(text)['input_ids']
  with torch.no_grad():
    states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
  return states[layer][0].double().numpy()


@pytest.mark.parametrize(
  ('pooling', 'layer'),
  [('mean', 0), ('last', 0), ('cls', 1), ('mean', 2), ('auto', 2)],
)
def test_a_decoder_embeds_by_its_hidden_states(llama, pooling, layer):
  folder, model = llama
  tokens = transformers.AutoTokenizer.from_pretrained(folder)
  ours = embedder.load(
    embedder.EmbedConfig(
      encoder=str(folder), pooling=pooling, layer=layer, normalize=False
    )
  )
  texts = [text for text in _TEXTS if tokens(text)['input_ids']]
  pool = {
    'mean': lambda x: x.mean(0),
    'cls': lambda x: x[0],
    'last': lambda x: x[-1],
    'auto': lambda x: x[-1],
  }[pooling]
  want_NE = np.stack(
    [pool(_states(model, tokens, text, layer or -1)) for text in texts]
  )
  result = ours.embed(texts)
  np.testing.assert_allclose(result.emb_NE, want_NE, atol=2e-5)
  want_norm = np.linalg.norm(want_NE, axis=1).mean()
  assert result.mean_norm == pytest.approx(want_norm, rel=1e-5)


@pytest.mark.parametrize('named', ['LlamaModel', 'LlamaForCausalLM'])
def test_a_decoder_saved_without_its_head(llama, named, tmp_path):
  """Qwen3-Embedding's config names a head that its tensors' names lack."""
  folder, model = llama
  saved = tmp_path / 'saved'
  shutil.copytree(folder, saved)
  model.model.save_pretrained(saved)
  config = json.loads((saved / 'config.json').read_text())
  config['architectures'] = [named]
  (saved / 'config.json').write_text(json.dumps(config))
  want, got = (
    embedder.load(embedder.EmbedConfig(encoder=str(path))).embed(['a b', 'c'])
    for path in (folder, saved)
  )
  np.testing.assert_array_equal(got.emb_NE, want.emb_NE)


def test_truncation_keeps_what_ends_every_text(llama):
  folder, model = llama
  tokens = transformers.AutoTokenizer.from_pretrained(folder)
  ours = embedder.load(
    embedder.EmbedConfig(encoder=str(folder), max_tokens=9, normalize=False)
  )
  result = ours.embed(['12345678', '123456789', '0123456789abc'])
  assert result.num_truncated == 2
  for row, text in enumerate(['12345678', '12345678', '01234567']):
    want_E = _states(model, tokens, text, -1)[-1]
    np.testing.assert_allclose(result.emb_NE[row], want_E, atol=2e-5)


@pytest.mark.weights
def test_smollm2_embeds_as_in_transformers(smollm2_dir):
  file = next(smollm2_dir.glob('*.gguf')).name
  model = transformers.AutoModelForCausalLM.from_pretrained(
    smollm2_dir, gguf_file=file, dtype=torch.float32
  ).eval()
  tokens = transformers.AutoTokenizer.from_pretrained(
    smollm2_dir, gguf_file=file
  )
  texts = [text or 'Hello!' for text in _TEXTS]
  for layer, mode in ((0, 'last'), (15, 'mean')):
    ours = embedder.load(
      embedder.EmbedConfig(
        encoder='package:smollm2-135m-instruct', pooling=mode, layer=layer
      )
    )
    states = [_states(model, tokens, text, layer or -1) for text in texts]
    rows = [x[-1] if mode == 'last' else x.mean(0) for x in states]
    want_N = np.linalg.norm(rows, axis=1)
    result = ours.embed(texts)
    want_NE = np.stack(rows) / want_N[:, None]
    np.testing.assert_allclose(result.emb_NE, want_NE, atol=2e-5)
    assert result.mean_norm == pytest.approx(want_N.mean(), rel=1e-5)


def _save_pipeline(folder, model, mode, **transformer):
  """What sentence-transformers saves of a network in folder/base.

  Returns its own object.
  """
  import sentence_transformers  # Ten seconds that only a slow test spends.
  from sentence_transformers.sentence_transformer import modules

  base = folder / 'base'
  model.save_pretrained(base)
  network = modules.Transformer(str(base), **transformer)
  pooling = modules.Pooling(network.get_embedding_dimension(), mode)
  pipeline = sentence_transformers.SentenceTransformer(
    modules=[network, pooling, modules.Normalize()], device='cpu'
  )
  pipeline.save(str(folder / 'saved'))
  return pipeline


def _bert(max_position):
  config = transformers.BertConfig(
    **{**_SHAPES, 'vocab_size': 30522}, max_position_embeddings=max_position
  )
  return _random(transformers.BertModel(config))


def _gte(max_position):
  config = transformers.GteConfig(
    **{**_SHAPES, 'vocab_size': 30528},
    pad_token_id=0,
    type_vocab_size=2,
    max_position_embeddings=max_position,
    rope_parameters={'rope_type': 'default', 'rope_theta': 10_000.0},
  )
  return _random(transformers.GteModel(config))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('network', 'mode', 'prompt'),
  [
    (_bert, 'cls', ''),  # bge
    (_bert, 'mean', 'query: '),  # e5
    (_gte, 'cls', ''),
  ],
)
def test_a_folder_of_sentence_transformers(
  tmp_path, minilm_dir, network, mode, prompt
):
  tokens = transformers.AutoTokenizer.from_pretrained(minilm_dir)
  tokens.save_pretrained(tmp_path / 'base')
  reference = _save_pipeline(
    tmp_path, network(64), mode, max_seq_length=40, do_lower_case=True
  )
  _check_pipeline(tmp_path, reference, mode, prompt, num_truncated=1)


@pytest.mark.slow
def test_a_decoder_of_sentence_transformers(tmp_path):
  _save_tokenizer(tmp_path / 'base', 'eos')
  config = transformers.Qwen3Config(
    **_SHAPES, num_key_value_heads=2, head_dim=8, max_position_embeddings=64
  )
  model = _random(transformers.Qwen3Model(config))
  reference = _save_pipeline(tmp_path, model, 'lasttoken', max_seq_length=40)
  _check_pipeline(tmp_path, reference, 'last', 'Query: ', num_truncated=2)


def _check_pipeline(folder, reference, mode, prompt, num_truncated):
  ours = embedder.load(
    embedder.EmbedConfig(
      encoder=str(folder / 'saved'), max_tokens=40, prompt=prompt
    )
  )
  assert ours.backend.pooling_mode == mode
  want_NE = reference.encode(list(_TEXTS), prompt=prompt)
  result = ours.embed(_TEXTS)
  np.testing.assert_allclose(result.emb_NE, want_NE, atol=2e-6)
  assert result.num_truncated == num_truncated
