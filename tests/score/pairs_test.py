import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from erp_jax.core import errors
from erp_jax.models import disentangled_attention
from erp_jax.score import pairs

_LETTERS = [chr(ord('a') + i) for i in range(26)]
_PIECES = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', *_LETTERS]
_PIECES += [f'▁{letter}' for letter in _LETTERS] + list('▁[]SEPCL')


def _core():
  """A Unigram tokenizer of letters, with the control tokens of DeBERTa.

  As in SentencePiece models, those are pieces too, and the likeliest.
  """
  scores = [0.0] * 4 + [-3.0] * (len(_PIECES) - 4)
  core = tokenizers.Tokenizer(
    models.Unigram(list(zip(_PIECES, scores, strict=True)), unk_id=3)
  )
  core.add_special_tokens(_PIECES[:4])
  core.normalizer = normalizers.Strip()
  core.pre_tokenizer = pre_tokenizers.Metaspace()
  core.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]',
    pair='[CLS] $A [SEP] $B:1 [SEP]:1',
    special_tokens=[('[CLS]', 1), ('[SEP]', 2)],
  )
  return core


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random reward model as transformers saves it, with a tokenizer."""
  torch.manual_seed(0)
  config = transformers.DebertaV2Config(
    vocab_size=len(_PIECES),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    relative_attention=True,
    position_buckets=8,
    share_att_key=True,
    pos_att_type=['p2c', 'c2p'],
    norm_rel_ebd='layer_norm',
    position_biased_input=False,
    num_labels=1,
  )
  model = transformers.DebertaV2ForSequenceClassification(config)
  with torch.no_grad():
    for name, param in model.named_parameters():
      param.normal_(1.0 if name.endswith('LayerNorm.weight') else 0.0, 0.3)
  path = tmp_path_factory.mktemp('reward')
  model.save_pretrained(path)
  _core().save(str(path / 'tokenizer.json'))
  return path


@pytest.fixture(scope='module')
def reference(folder):
  """The reward of rows of ids, one by one, by torch."""
  model = transformers.AutoModelForSequenceClassification.from_pretrained(
    folder
  ).eval()

  def score(rows):
    with torch.no_grad():
      return [model(torch.tensor([ids])).logits.item() for ids in rows]

  return score


def _load(folder, **fields):
  fields = {'max_tokens': 60, 'batch_tokens': 400} | fields
  return pairs.load(str(folder), **fields)


def _texts(seed=0):
  """Prompts of 0 to 50 letters, with 0 to 5 responses like them."""
  rng = np.random.default_rng(seed)
  draw = lambda: ' '.join(rng.choice(_LETTERS, rng.integers(51)))
  prompts = [draw() for _ in range(8)]
  return prompts, [[draw() for _ in range(n)] for n in (3, 1, 0, 5, 2, 4, 1, 5)]


def _flat(prompts, texts):
  return [
    (prompt, text)
    for prompt, responses in zip(prompts, texts, strict=True)
    for text in responses
  ]


def test_agrees_with_torch_on_pairs_cut_longest_first(folder, reference):
  scorer = _load(folder)
  prompts, texts = _texts()
  got = scorer.score(prompts, texts)
  core = _core()
  whole = core.encode_batch(_flat(prompts, texts))
  core.enable_truncation(60, strategy='longest_first')
  cut = core.encode_batch(_flat(prompts, texts))
  assert [len(reward_K) for reward_K in got] == [3, 1, 0, 5, 2, 4, 1, 5]
  assert all(reward_K.dtype == np.float32 for reward_K in got)
  want = reference([encoding.ids for encoding in cut])
  np.testing.assert_allclose(np.concatenate(got), want, atol=2e-5)
  num_cut = sum(len(e.ids) > 60 for e in whole)
  assert 3 < scorer.num_cut == num_cut < 21


def test_a_joined_row_is_one_text_cut_at_its_end(folder, reference):
  scorer = _load(folder, pair='joined')
  prompts, texts = _texts(seed=1)
  got = scorer.score(prompts, texts)
  core = _core()
  core.enable_truncation(60)
  joined = [prompt + text for prompt, text in _flat(prompts, texts)]
  want = reference([e.ids for e in core.encode_batch(joined)])
  np.testing.assert_allclose(np.concatenate(got), want, atol=2e-5)
  num_letters = [len(text.replace(' ', '')) for text in joined]
  assert 3 < scorer.num_cut == sum(n > 58 for n in num_letters) < 21


def test_rows_keep_the_tokens_that_tokenizers_keep():
  rng = np.random.default_rng(0)
  core = _core()
  odd_ties = 0
  for _ in range(2000):
    num_head, num_body = (int(n) for n in rng.integers(0, 30, 2))
    limit = int(rng.integers(2, 45))
    core.enable_truncation(limit + 3, strategy='longest_first')
    ids = core.encode('a ' * num_head, 'b ' * num_body).ids
    want = ids.count(30), ids.count(31)
    assert pairs.longest_first(num_head, num_body, limit) == want
    odd_ties += num_head == num_body > limit // 2 and limit % 2
  assert odd_ties > 10


def test_rewards_are_the_same_in_any_batch(folder):
  prompts, texts = _texts()
  want = _load(folder).score(prompts, texts)
  # One row at a time; and the other way round.
  got = _load(folder, batch_tokens=1).score(prompts, texts)
  np.testing.assert_allclose(
    np.concatenate(got), np.concatenate(want), atol=1e-5
  )
  got = _load(folder).score(prompts[::-1], [x[::-1] for x in texts[::-1]])
  np.testing.assert_allclose(
    np.concatenate(got)[::-1], np.concatenate(want), atol=1e-5
  )


def test_strings_of_control_tokens_are_text(folder, reference):
  (got_K,) = _load(folder).score(['a [SEP] b'], [['[CLS][SEP]', '']])
  spell = lambda pieces: [_PIECES.index(piece) for piece in pieces]
  prompt = spell(['▁a', '▁', '[', 'S', 'E', 'P', ']', '▁b'])
  response = spell(['▁', '[', 'C', 'L', 'S', ']', '[', 'S', 'E', 'P', ']'])
  rows = [
    [1, *prompt, 2, *response, 2],
    [1, *prompt, 2, 2],  # An empty response keeps its [SEP].
  ]
  np.testing.assert_allclose(got_K, reference(rows), atol=2e-5)


def test_progress_counts_rows_and_tokens(folder):
  done = []
  prompts, texts = _texts()
  scorer = _load(folder)
  scorer.score(prompts, texts, lambda n, positions: done.append((n, positions)))
  core = _core()
  core.enable_truncation(60)
  num_tokens = sum(len(core.encode(a, b)) for a, b in _flat(prompts, texts))
  assert len(done) > 1
  assert np.sum(done, axis=0).tolist() == [21, num_tokens]


def test_nothing_to_score(folder):
  scorer = _load(folder)
  scorer.score(['a ' * 60], [['b']])
  assert scorer.num_cut == 1
  assert scorer.score([], []) == [] and scorer.num_cut == 0
  (reward_K,) = scorer.score(['a'], [[]])
  assert reward_K.shape == (0,)


def test_products_are_not_rounded_to_fewer_bits(folder, monkeypatch):
  """Those of XLA, as on accelerators, and of the tables made before."""
  monkeypatch.setattr(disentangled_attention, 'is_usable', lambda: False)
  jax.clear_caches()
  scorer = _load(folder)
  token_BT = jnp.ones((1, 32), int)
  args = (scorer.params, scorer._tables, scorer.cfg, token_BT, token_BT > 0)
  programs = (
    pairs._reward.lower(*args),
    pairs._tables.lower(scorer.params, scorer.cfg),
  )
  products = [
    line
    for program in programs
    for line in re.findall('dot_general.*', program.as_text())
  ]
  assert len(products) >= 12
  assert all('precision = [HIGHEST, HIGHEST]' in line for line in products)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'dtype': 'bfloat16'}, "dtype is 'bfloat16', but .* needs 'float32'"),
    ({'pair': 'raw'}, "pair 'raw' is unknown; allowed: pair, joined"),
    ({'max_tokens': 4}, 'max_tokens must be >= 5, got 4'),
    ({'batch_tokens': 0}, 'batch_tokens must be >= 1, got 0'),
    ({'model': 'package:smollm2-135m-instruct'}, 'a GGUF file; a DeBERTa'),
  ],
)
def test_bad_fields_are_refused_by_name(folder, fields, message):
  with pytest.raises(errors.UserError, match=message):
    pairs.load(**{'model': str(folder)} | fields)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda data: None, 'holds no tokenizer'),
    (
      lambda data: data | {'post_processor': None},
      'puts 0 tokens around a text',
    ),
  ],
)
def test_a_folder_with_another_tokenizer_is_refused(
  folder, tmp_path, change, message
):
  for name in ('config.json', 'model.safetensors'):
    (tmp_path / name).write_bytes((folder / name).read_bytes())
  data = change(json.loads((folder / 'tokenizer.json').read_text()))
  if data:
    (tmp_path / 'tokenizer.json').write_text(json.dumps(data))
  with pytest.raises(errors.UserError, match=message):
    pairs.load(str(tmp_path))
