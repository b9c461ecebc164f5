import gguf
import pytest
import transformers
from tokenizers import pre_tokenizers

from erp_jax.core import errors
from erp_jax.models import sentencepiece_file as spm
from erp_jax.models import tokenizer


def _write(path, model, pieces, kinds, pre='', scores=(), merges=(), **flags):
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_tokenizer_model(model)
  if pre:
    writer.add_tokenizer_pre(pre)
  writer.add_token_list(pieces)
  writer.add_token_types(kinds)
  if scores:
    writer.add_token_scores(scores)
  if merges:
    writer.add_token_merges(merges)
  for name, value in flags.items():
    add = writer.add_uint32 if name.endswith('_id') else writer.add_bool
    add(f'tokenizer.ggml.{name}', value)
  writer.add_chat_template('{{ bos_token }}{{ messages[0].content }}')
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()


@pytest.mark.parametrize('adds_space', [False, True])
@pytest.mark.parametrize('adds_bos', [False, True])
def test_sentencepiece(
  tmp_path, bpe_model, odd_texts, cut_by_definition, adds_space, adds_bos
):
  flags = {'bos_token_id': 1, 'eos_token_id': 2}
  if not adds_space:  # Both are the default of files that do not say.
    flags['add_space_prefix'] = False
  if not adds_bos:
    flags['add_bos_token'] = False
  defined = bpe_model.kinds.index(spm.USER_DEFINED)
  scores = list(bpe_model.scores)
  pieces = list(bpe_model.pieces)
  for i, piece in enumerate(pieces[:-40]):
    if bpe_model.kinds[i] == spm.USER_DEFINED:
      # As converters write them: a low score, and spaces as such.
      scores[i], pieces[i] = -1000.0, piece.replace('▁', ' ')
  assert pieces[defined + 1] == '  '
  path = tmp_path / 'model.gguf'
  _write(path, 'llama', pieces, bpe_model.kinds, scores=scores, **flags)
  ours = tokenizer.load_tokenizer(path)
  assert ours.stop_ids == (2,)
  assert ours.vocab_size == len(pieces)
  for text in odd_texts:
    if '[X]' not in text:
      want = cut_by_definition(
        type(bpe_model)(
          pieces=bpe_model.pieces,
          scores=bpe_model.scores,
          kinds=bpe_model.kinds,
          adds_space=adds_space,
        ),
        text,
      )
      assert ours.encode(text) == want, text
      assert ours.encode(text, special=True) == [1] * adds_bos + want
      assert ours.render_ids(text) == [1, *want]
      assert ours.decode(want) == text


# Where each cut of the rule keeps a pair apart, and where it does not.
_MERGES = [
  *('1 2', "' s", 'Ġ a', 'a b', '! Ċ', 'Ċ Ċ', 'Ġ Ġ', 'Ġ !', 'Ġ 1', '! a'),
  *('a 1', 'b Ġ', 'Ċ a', "a '", 'Ã ©', 'č Ċ', 'ĉ a', 'Ċ Ġ'),
]
_TEXTS = [
  *('12 112', "a's a'S 's", ' ab  ab   ab', '!\n\n!\n', '! !  !a', 'a1 1a'),
  *('\n\n\n a', 'b b ', 'e\u0301 é', '\r\n\r\na', '\ta\t\ta', ' \n \n  ', ''),
]


def test_qwen2_cuts_as_the_original(tmp_path):
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  pieces = [*alphabet, *(m.replace(' ', '') for m in _MERGES)]
  special = ['<|endoftext|>', '<|im_end|>', '[PAD9]']
  kinds = [spm.NORMAL] * len(pieces) + [spm.CONTROL, spm.USER_DEFINED, 5]
  path = tmp_path / 'model.gguf'
  _write(path, 'gpt2', [*pieces, *special], kinds, 'qwen2', merges=_MERGES)
  ours = tokenizer.load_tokenizer(path)
  assert ours.vocab_size == len(pieces) + 2  # Not the unused last one.
  theirs = transformers.Qwen2Tokenizer(
    vocab={piece: i for i, piece in enumerate([*pieces, *special[:2]])},
    merges=[tuple(m.split(' ')) for m in _MERGES],
  )
  used = set()
  for text in _TEXTS:
    want = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text) == want, text
    used.update(want)
  joined = {pieces.index(m.replace(' ', '')) for m in _MERGES}
  assert len(joined & used) >= 8 and len(joined - used) >= 4
  # A user-defined token is found in text, a control token is not.
  assert ours.encode('<|im_end|>') == [len(pieces) + 1]
  assert len(ours.encode('<|endoftext|>')) > 5


def test_another_tokenizer_is_refused(tmp_path):
  path = tmp_path / 'other.gguf'
  _write(path, 'gpt2', ['a'], [1], 'dbrx')
  with pytest.raises(errors.UserError, match="pre 'dbrx'; supported are 'llam"):
    tokenizer.load_tokenizer(path)
