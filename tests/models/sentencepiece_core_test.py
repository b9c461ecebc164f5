import dataclasses
import struct

import pytest

from erp_jax.models import sentencepiece_core
from erp_jax.models import sentencepiece_file as spm


@pytest.mark.parametrize('kind', ['bpe', 'bpe-plain', 'unigram'])
def test_cuts_as_defined(kind, request, odd_texts, cut_by_definition):
  model = request.getfixturevalue(f'{kind.removesuffix("-plain")}_model')
  model = dataclasses.replace(model, adds_space=kind != 'bpe-plain')
  core = sentencepiece_core.build(model)
  core.encode_special_tokens = True
  used = set()
  for text in odd_texts:
    if '[X]' in text:  # What is before it and after it are texts of their own.
      continue
    want = cut_by_definition(model, text)
    assert core.encode(text).ids == want, text
    used.update(want)
  assert len(used) > 25
  special = {
    i
    for i, kind in enumerate(model.kinds)
    if kind in (spm.CONTROL, spm.UNKNOWN)
  }
  assert not special - {model.kinds.index(spm.UNKNOWN)} & used


def test_user_defined_pieces_come_first(bpe_model):
  core = sentencepiece_core.build(bpe_model)
  i = bpe_model.pieces.index('[X]')
  assert core.encode('ab[X]').ids == [*core.encode('ab').ids, i]
  spaces = bpe_model.pieces.index('▁▁')
  for text in (' ', ' d', ' dab'):  # With the one before the text.
    assert core.encode(text).ids[0] == spaces


@pytest.mark.parametrize('adds_space', [False, True])
def test_decodes_what_it_encodes(bpe_model, odd_texts, adds_space):
  model = dataclasses.replace(bpe_model, adds_space=adds_space)
  core = sentencepiece_core.build(model)
  core.encode_special_tokens = True
  for text in odd_texts:
    if '[X]' not in text:
      assert core.decode(core.encode(text).ids) == text


def test_rules_of_normalisation_apply(unigram_model):
  # 'x' becomes 'b', as a compiled trie (s-yata/darts-clone): the unit of a
  # letter lies at the parent's offset XOR the letter and tells its own offset,
  # at which the leaf says where the replacement starts.
  units = [0] * 256
  units[0] = 1 << 10
  units[1 ^ ord('x')] = ord('x') | 1 << 8 | 1 << 10
  units[1 ^ ord('x') ^ 1] = 1 << 31
  charsmap = struct.pack('<I256I', 4 * 256, *units) + b'b\0'
  model = dataclasses.replace(unigram_model, charsmap=charsmap)
  core = sentencepiece_core.build(model)
  plain = sentencepiece_core.build(unigram_model)
  assert core.encode('bad').ids == plain.encode('bad').ids
  assert core.encode('xad').ids == plain.encode('bad').ids
  assert core.encode('xad').ids != plain.encode('xad').ids


def test_tokens_go_around_texts_and_pairs(bpe_model, unigram_model):
  core = sentencepiece_core.build(bpe_model)
  a, b = core.encode('ab').ids, core.encode('cd').ids
  sentencepiece_core.surround(core, ['<s>'], [])
  assert core.encode('ab').ids == [1, *a]
  assert core.encode('ab', 'cd').ids == [1, *a, 1, *b]
  core = sentencepiece_core.build(unigram_model)
  a, b = core.encode('ab').ids, core.encode('cd').ids
  sentencepiece_core.surround(core, ['[CLS]'], ['[SEP]'])
  assert core.encode('').ids == [1, 2]
  assert core.encode('ab', 'cd').ids == [1, *a, 2, *b, 2]
  assert core.encode('ab', 'cd').type_ids == (
    [0] * (len(a) + 2) + [1] * (len(b) + 1)
  )
