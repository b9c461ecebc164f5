"""Ids of the real tokenizers: MODELS.md's, and of other readings."""

import json
import random
import shutil
import time

import pytest
import tokenizers
import transformers

from erp_jax.data import assets
from erp_jax.models import tokenizer

pytestmark = pytest.mark.weights

QUESTION = 'What is 2+2?'
ANSWERED = [
  {'role': 'user', 'content': QUESTION},
  {'role': 'assistant', 'content': 'It is 4.'},
]
GREETED = [
  {'role': 'user', 'content': 'Hello! What is your name?'},
  {'role': 'assistant', 'content': 'My name is InternLM2!'},
]
# MODELS.md 2.1, made with transformers from the same file; and so on below.
LLAMA3 = (
  '128000 128006 9125 128007 271 38766 1303 33025 2696 25 6790 220 2366 18 198 '
  '15724 2696 25 220 1627 10263 220 2366 19 271 128009 128006 882 128007 271 '
  '3923 374 220 17 10 17 30 128009 128006 78191 128007 271'
)
GEMMA2 = (  # 2.2.
  '2 106 1645 108 1841 603 235248 235284 235340 235284 235336 107 108 106 2516 '
  '108'
)
GRM = (  # 3.2, without the first of its two <bos>.
  f'{GEMMA2} 1718 603 235248 235310 235265 107 108'
)
QWEN2_5 = (  # 2.4.
  '151644 8948 198 2610 525 1207 16948 11 3465 553 54364 14817 13 1446 525 264 '
  '10950 17847 13 151645 198 151644 872 198 3838 374 220 17 10 17 30 151645 '
  '198 151644 77091 198'
)
QWEN3 = (  # 2.5, without thinking.
  '151644 872 198 3838 374 220 17 10 17 30 151645 198 151644 77091 198 151667 '
  '271 151668 271'
)
INTERNLM2 = (  # 3.3, without the reward token 92527.
  '1 92543 1008 364 9843 346 3716 505 829 963 345 92542 364 92543 525 11353 '
  '364 5211 963 505 4576 11146 314 346 92542 364'
)
# From llama-tokenizer-js, whose cases were made with the original: a space
# goes before the text, whatever it starts with.
LLAMA2 = {
  'grabbed': '1 2646 1327 287',
  ' grabbed': '1 29871 2646 1327 287',
  ' ' * 11 + 'grabbed': '1 9651 2646 1327 287',
  '\n': '1 29871 13',
  ' \n': '1 259 13',
  '\ttabs\t\t\t\tout here': '1 29871 12 21175 12 12 12 12 449 1244',
  'ax\n####\nboo': '1 4853 13 4136 13 833 29877',
  '镇': '1 29871 30411',
  '🦙Ꙋ': '1 29871 243 162 169 156 237 156 141',
}


def _ids(text):
  return [int(i) for i in text.split()]


@pytest.mark.parametrize(
  'name, ids, arguments',
  [
    ('llama3_2', LLAMA3, {'prompt': QUESTION}),
    ('gemma2', GEMMA2, {'prompt': QUESTION}),
    ('gemma2', GRM, {'prompt': ANSWERED, 'generation_prompt': False}),
    ('qwen2_5', QWEN2_5, {'prompt': QUESTION}),
    ('qwen3', QWEN3, {'prompt': QUESTION, 'thinking': 'off'}),
    (
      'qwen3',
      QWEN3.removesuffix(' 151667 271 151668 271'),
      {'prompt': QUESTION},
    ),
    ('internlm2', INTERNLM2, {'prompt': GREETED, 'generation_prompt': False}),
  ],
)
def test_golden_ids(load_tokenizer, name, ids, arguments):
  assert load_tokenizer(name).render_ids(**arguments) == _ids(ids)


@pytest.mark.parametrize(
  'name, stop_ids, vocab_size',
  [
    ('llama3_2', {128001, 128008, 128009}, 128256),
    ('gemma2', {1, 107}, 256000),
    ('gemma3', {106}, 262145),
    ('qwen2_5', {151643, 151645}, 151665),
    ('qwen3', {151643, 151645}, 151669),
    ('internlm2', {2, 92542}, 92544),
  ],
)
def test_control_tokens(load_tokenizer, name, stop_ids, vocab_size):
  loaded = load_tokenizer(name)
  assert set(loaded.stop_ids) == stop_ids
  assert loaded.vocab_size == vocab_size
  # No text is a control token: not even InternLM2's, once placeholders.
  rendered = loaded.chat(QUESTION)
  assert not stop_ids & set(loaded.encode(rendered))
  if name == 'internlm2':
    text = '<|im_start|>[UNUSED_TOKEN_130][UNUSED_TOKEN_145]</s>'
    assert not {2, 92527, 92542, 92543} & set(loaded.encode(text))


@pytest.fixture(scope='module')
def texts(tokenizer_dir):
  """Odd and long ones; a template is code with all kinds of marks."""
  rng = random.Random(0)
  letters = [*'abc XYZ deé\n\t  .,12日本🎉<>/_▁-"\'', '\r\n', 'ﬁ', 'e\u0301']
  config = json.loads(
    (tokenizer_dir('qwen3') / 'tokenizer_config.json').read_text()
  )
  return [
    *(
      '',
      ' ',
      '  ',
      '\n',
      ' x',
      'x ',
      '٣٤ x² ½',
      '한국어 עברית',
      '\u200b\ufeff',
    ),
    *(
      '👩\u200d👩\u200d👧 🇫🇷',
      'a\x00b\x1f',
      "it's THEY'LL",
      '1,000.5',
      '<b>x</b>',
    ),
    *(f'a{" " * n}b{chr(10) * n}c{chr(9) * n}' for n in range(1, 70, 3)),
    *(''.join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(1500)),
    config['chat_template'],
  ]


def _assert_same(ours, theirs, texts):
  theirs.no_truncation()
  theirs.no_padding()
  theirs.encode_special_tokens = True
  for text in texts:
    for special in (False, True):
      want = theirs.encode(text, add_special_tokens=special).ids
      assert ours.encode(text, special=special) == want, text
    assert ours.decode(want) == theirs.decode(want)


@pytest.mark.parametrize(
  'asset, name',
  [('qwen2.5-coder-1.5b-instruct', 'qwen2_5'), ('gemma-3-270m', 'gemma3')],
)
def test_gguf_has_the_ids_of_tokenizer_json(asset, name, tokenizer_dir, texts):
  folder = assets.fetch(asset)
  start = time.monotonic()
  ours = tokenizer.load_tokenizer(folder)
  assert time.monotonic() - start < 30  # 6 s for 262144 tokens, alone.
  path = tokenizer_dir(name) / 'tokenizer.json'
  _assert_same(ours, tokenizers.Tokenizer.from_file(str(path)), texts)


def test_gguf_of_llama2(texts):
  folder = assets.fetch('tinyllama-1.1b-chat')
  ours = tokenizer.load_tokenizer(folder)
  for text, ids in LLAMA2.items():
    assert ours.encode(text, special=True) == _ids(ids)
    assert ours.decode(_ids(ids)) == text
  (path,) = folder.glob('*.gguf')
  theirs = transformers.AutoTokenizer.from_pretrained(
    folder, gguf_file=path.name
  ).backend_tokenizer
  # Its reading puts no space before a text that starts with one.
  texts = [text for text in texts if not text.startswith((' ', '▁'))]
  assert len(texts) > 1000
  _assert_same(ours, theirs, texts)
  # Each text between control tokens starts with a space, as in training.
  want = _ids('529 29989 1792 29989 29958 13 18567 2 29871 13')
  assert ours.render_ids('Hi')[:10] == want


def test_deberta_without_tokenizer_json(tmp_path, texts):
  folder = assets.fetch('deberta-v3-tokenizer')
  for name in ('spm.model', 'tokenizer_config.json'):
    shutil.copy(folder / name, tmp_path)
  ours = tokenizer.load_tokenizer(tmp_path)
  theirs = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  _assert_same(ours, theirs, texts)
  assert ours.vocab_size == 128001
