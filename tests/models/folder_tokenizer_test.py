import dataclasses
import json

import pytest
import tokenizers

from erp_jax.core import errors
from erp_jax.models import sentencepiece_core, tokenizer


def _token(content, special=True):
  return {'content': content, 'special': special, 'normalized': False}


_CONFIG = {
  'bos_token': '<s>',
  'eos_token': {'content': '</s>'},
  'chat_template': '{{ bos_token }}{% for m in messages %}<|start|>'
  '{{ m.content }}<|end|>{% endfor %}',
}


def _renamed(model):
  """A vocabulary with placeholders, and the config that names them."""
  size = len(model.pieces)
  model = dataclasses.replace(
    model,
    pieces=[*model.pieces, '[UNUSED_1]', '[UNUSED_2]'],
    scores=[*model.scores, -1e3, -1e3],
    kinds=[*model.kinds, 1, 4],
  )
  added = {
    **{i: _token(piece) for i, piece in enumerate(model.pieces[:3])},
    **{size: _token('<|start|>'), size + 1: _token('<|end|>')},
    size + 2: _token('<tool>', special=False),
  }
  return model, _CONFIG | {'added_tokens_decoder': added}


@pytest.mark.parametrize('kind', ['json', 'sentencepiece'])
def test_tokens_of_the_config_replace_placeholders(
  tmp_path, bpe_model, kind, write_sentencepiece
):
  model, config = _renamed(bpe_model)
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  if kind == 'json':  # As InternLM2's is published, without added tokens.
    program = json.loads(sentencepiece_core.build(model).to_str())
    program['added_tokens'] = []
    (tmp_path / 'tokenizer.json').write_text(json.dumps(program))
  else:
    write_sentencepiece(tmp_path / 'tokenizer.model', model)
  ours = tokenizer.load_tokenizer(tmp_path)
  start, end, tool = range(len(bpe_model.pieces), len(bpe_model.pieces) + 3)
  text = 'ab<|start|></s>'
  ids = ours.encode(text)
  assert not {1, 2, start, end} & set(ids)
  assert ours.render_ids(text) == [1, start, *ids, end]
  assert ours.decode([start, *ids, end]) == text
  assert ours.encode('<tool>') == [tool]
  assert ours.vocab_size == tool + 1
  assert ours.stop_ids == (2,)
  assert len(ours.encode('[UNUSED_1]')) > 5
  if kind == 'sentencepiece':
    assert ours.encode('ab', special=True) == [1, *ours.encode('ab')]


def test_bos_and_eos_as_the_config_says(
  tmp_path, bpe_model, write_sentencepiece
):
  write_sentencepiece(tmp_path / 'tokenizer.model', bpe_model)
  config = _CONFIG | {'add_bos_token': False, 'add_eos_token': True}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  ours = tokenizer.load_tokenizer(tmp_path)
  assert ours.encode('ab', special=True) == [*ours.encode('ab'), 2]


def test_a_unigram_model_with_files_of_transformers_4(
  tmp_path, unigram_model, write_sentencepiece, odd_texts, cut_by_definition
):
  write_sentencepiece(tmp_path / 'spm.model', unigram_model)
  size = len(unigram_model.pieces)
  named = {'cls_token': '[CLS]', 'sep_token': _token('[SEP]')}
  (tmp_path / 'special_tokens_map.json').write_text(
    json.dumps(named | {'mask_token': '[SCL]'})
  )
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'[SCL]': size}))
  ours = tokenizer.load_tokenizer(tmp_path)
  assert ours.vocab_size == size + 1
  assert ours.decode([size]) == ''
  for text in (*odd_texts, 'a[SCL]'):
    want = cut_by_definition(unigram_model, text)
    assert ours.encode(text) == want
    assert ours.encode(text, special=True) == [1, *want, 2]


def test_text_cannot_match_control_pieces_of_a_unigram_json(
  tmp_path, unigram_model, cut_by_definition
):
  core = sentencepiece_core.build(unigram_model)
  program = json.loads(core.to_str())
  for item in program['model']['vocab'][:4]:
    item[1] = 0.0  # As transformers writes them.
  (tmp_path / 'tokenizer.json').write_text(json.dumps(program))
  theirs = tokenizers.Tokenizer.from_str(json.dumps(program))
  theirs.encode_special_tokens = True
  assert 1 in theirs.encode('a[CLS]').ids
  ours = tokenizer.load_tokenizer(tmp_path)
  for text in ('a[CLS]', '[CLS]', 'abcd dcba'):
    assert ours.encode(text) == cut_by_definition(unigram_model, text)


@pytest.mark.parametrize('kind', ['json', 'sentencepiece'])
def test_files_of_different_checkpoints(
  tmp_path, bpe_model, kind, write_sentencepiece
):
  if kind == 'json':
    core = sentencepiece_core.build(bpe_model)
    core.save(str(tmp_path / 'tokenizer.json'))
  else:
    write_sentencepiece(tmp_path / 'tokenizer.model', bpe_model)
  config = {'added_tokens_decoder': {'4000': _token('<|im_start|>')}}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  size = len(bpe_model.pieces)
  with pytest.raises(
    errors.UserError, match=f'the id {size}, but its configs say 4000: the fil'
  ):
    tokenizer.load_tokenizer(tmp_path)
