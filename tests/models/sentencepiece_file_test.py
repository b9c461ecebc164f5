import dataclasses

import pytest

from erp_jax.core import errors
from erp_jax.models import sentencepiece_file as spm


def _same(a: spm.Model, b: spm.Model) -> bool:
  scores = [pytest.approx(score, rel=1e-6) for score in a.scores]
  return scores == b.scores and dataclasses.replace(
    a, scores=b.scores
  ) == dataclasses.replace(b)


@pytest.mark.parametrize(
  'change',
  [
    {},
    {'adds_space': False},
    {'cleans_spaces': True, 'charsmap': bytes(range(256)) * 3},
  ],
)
@pytest.mark.parametrize('kind', ['bpe', 'unigram'])
def test_reads_what_protobuf_writes(
  kind, change, tmp_path, request, write_sentencepiece
):
  model = request.getfixturevalue(f'{kind}_model')
  model = dataclasses.replace(model, **change)
  path = tmp_path / 'tokenizer.model'
  write_sentencepiece(path, model)
  assert _same(model, spm.read(path))


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'\x0a',
    b'\x0a\xff\xff\xff\xff\x0fabc',  # A piece longer than the file.
    b'\x0b\x01',  # A wire type that is not in use.
    b'\x08\x05\x0a\x02\x0a\xff',
    b'IQ== 0\nIg== 1\n',  # What Llama 3 calls tokenizer.model.
  ],
)
def test_another_file_is_refused(tmp_path, content):
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match='/tokenizer.model .*fetch'):
    spm.read(path)


def test_a_cut_file_is_refused(tmp_path, write_sentencepiece, bpe_model):
  path = tmp_path / 'tokenizer.model'
  write_sentencepiece(path, bpe_model)
  path.write_bytes(path.read_bytes()[:-7])
  with pytest.raises(errors.UserError, match='is not a SentencePiece model'):
    spm.read(path)


def test_another_model_type_is_refused(tmp_path):
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(b'\x0a\x03\x0a\x01a\x12\x02\x18\x03')  # WORD is 3.
  with pytest.raises(errors.UserError, match='1 pieces of model type 3'):
    spm.read(path)
