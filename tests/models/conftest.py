"""Small SentencePiece vocabularies, and what SentencePiece would make of them.

The cuts here are the definitions, without any of the speed: repeatedly join
the best pair, or try every path.
"""

import functools
import random

import pytest

from erp_jax.models import sentencepiece_file as spm

_SEED = 3


@pytest.fixture(scope='session')
def bpe_model() -> spm.Model:
  """Merges over a few letters, with control, byte and user-defined pieces."""
  rng = random.Random(_SEED)
  pieces = [('<unk>', spm.UNKNOWN), ('<s>', spm.CONTROL), ('</s>', spm.CONTROL)]
  pieces += [(f'<0x{i:02X}>', spm.BYTE) for i in range(256)]
  pieces += [('[X]', spm.USER_DEFINED), ('▁▁', spm.USER_DEFINED)]
  letters = [*'▁abcdé</s>', '\n']
  known = list(letters)
  while len(known) < 90:
    piece = rng.choice(known) + rng.choice(known)
    if piece not in known and len(set(piece)) > 1 and len(piece) < 7:
      known.append(piece)
  # As in the real ones: joined pieces first, letters last.
  known = [*known[len(letters) :], *letters]
  pieces += [(piece, spm.NORMAL) for piece in known]
  return spm.Model(
    pieces=[piece for piece, _ in pieces],
    scores=[-float(i) for i in range(len(pieces))],
    kinds=[kind for _, kind in pieces],
  )


@pytest.fixture(scope='session')
def unigram_model() -> spm.Model:
  """Log-probabilities of pieces; text is cleaned."""
  rng = random.Random(_SEED)
  pieces = ['[PAD]', '[CLS]', '[SEP]', '[UNK]']
  pieces += [*'▁abcd[CLS]'.replace('[CLS]', '[]CLS')]
  while len(pieces) < 60:
    piece = ''.join(rng.choice('abcd') for _ in range(rng.randint(2, 5)))
    piece = rng.choice(['', '▁']) + piece
    if piece not in pieces:
      pieces.append(piece)
  special = [spm.CONTROL] * 3 + [spm.UNKNOWN]
  return spm.Model(
    pieces=pieces,
    scores=[0.0] * 4 + [-rng.uniform(2, 9) for _ in pieces[4:]],
    kinds=special + [spm.NORMAL] * (len(pieces) - 4),
    is_unigram=True,
    cleans_spaces=True,
  )


@pytest.fixture(scope='session')
def odd_texts() -> list[str]:
  rng = random.Random(_SEED)
  letters = [*'abcdabcdé  \n</s>', '<s>', '</s>', '[X]', '[CLS]', '日', '🎉\t']
  return ['', ' ', '   ', ' a', '\n', 'a  b '] + [
    ''.join(rng.choice(letters) for _ in range(rng.randint(1, 30)))
    for _ in range(300)
  ]


def _cut_by_merges(model: spm.Model, text: str) -> list[int]:
  if not text:
    return []
  if model.adds_space:
    text = ' ' + text
  text = text.replace(' ', '▁')
  defined = [
    piece
    for piece, kind in zip(model.pieces, model.kinds, strict=True)
    if kind == spm.USER_DEFINED
  ]
  id_of = {
    piece: i
    for i, piece in enumerate(model.pieces)
    if model.kinds[i] == spm.NORMAL
  }
  symbols, frozen = [], set()  # Symbols; places of those not to be joined.
  while text:
    found = next((p for p in defined if text.startswith(p)), '')
    if found:
      frozen.add(len(symbols))
    symbols.append(found or text[0])
    text = text[len(symbols[-1]) :]
  while True:
    pairs = [
      (model.scores[id_of[a + b]], -i)
      for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))
      if a + b in id_of and not {i, i + 1} & frozen
    ]
    if not pairs:
      break
    at = -max(pairs)[1]
    symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    frozen = {i - (i > at) for i in frozen}
  ids = []
  for i, symbol in enumerate(symbols):
    if i in frozen:
      ids.append(model.pieces.index(symbol))
    elif symbol in id_of:
      ids.append(id_of[symbol])
    else:
      ids += [model.pieces.index(f'<0x{b:02X}>') for b in symbol.encode()]
  return ids


def _cut_by_likelihood(model: spm.Model, text: str) -> list[int]:
  text = ' '.join(word for word in text.split(' ') if word)
  text = text.strip()
  if not text:
    return []
  text = '▁' + text.replace(' ', '▁')
  score_of = {
    piece: score
    for piece, score, kind in zip(
      model.pieces, model.scores, model.kinds, strict=True
    )
    if kind == spm.NORMAL
  }

  @functools.cache
  def best(at: int) -> tuple[float, tuple[str, ...]]:
    if at == len(text):
      return 0.0, ()
    ways = []
    for end in range(at + 1, len(text) + 1):
      piece = text[at:end]
      # A character without a piece of its own is unknown.
      score = score_of.get(piece, -1e5 if end == at + 1 else None)
      if score is not None:
        rest, path = best(end)
        ways.append((score + rest, (piece, *path)))
    return max(ways)

  ids = []
  for piece in best(0)[1]:
    i = model.pieces.index(piece) if piece in score_of else 3
    if not (i == 3 and ids[-1:] == [3]):  # Unknown ones in a row are one.
      ids.append(i)
  return ids


@pytest.fixture(scope='session')
def cut_by_definition():
  """(model, text) -> ids."""
  return lambda model, text: (
    _cut_by_likelihood if model.is_unigram else _cut_by_merges
  )(model, text)


@pytest.fixture
def write_sentencepiece():
  """(path, model): writes the file with transformers' generated protobuf."""

  def write(path, model):
    from transformers.utils import sentencepiece_model_pb2_new as pb2

    proto = pb2.ModelProto()
    for piece, score, kind in zip(
      model.pieces, model.scores, model.kinds, strict=True
    ):
      item = proto.pieces.add(piece=piece, score=score)
      if kind != spm.NORMAL:  # The default is not written.
        item.type = kind
    proto.trainer_spec.vocab_size = 300
    if not model.is_unigram:
      proto.trainer_spec.model_type = 2
    proto.normalizer_spec.name = 'x' * 200
    proto.normalizer_spec.precompiled_charsmap = model.charsmap
    if not model.adds_space:
      proto.normalizer_spec.add_dummy_prefix = False
    if not model.cleans_spaces:
      proto.normalizer_spec.remove_extra_whitespaces = False
    path.write_bytes(proto.SerializeToString())

  return write
