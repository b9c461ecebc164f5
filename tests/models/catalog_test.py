"""The catalogue against published counts and checkpoints' own configs."""

import dataclasses
import json
import logging
import subprocess
import sys

import pytest

from erp_jax.core import errors
from erp_jax.models import (
  catalog,
  checkpoint,
  encoder,
  encoder_config,
  memory,
  params,
)

# Instantiated on torch's meta device from the published configs.
_COUNTS = {
  'meta-llama/Llama-3.1-8B-Instruct': 8_030_261_248,
  'meta-llama/Llama-3.1-70B-Instruct': 70_553_706_496,
  'google/gemma-2-9b-it': 9_241_705_984,
  'google/gemma-2-27b-it': 27_227_128_320,
  'google/gemma-7b-it': 8_537_680_896,
  'Qwen/Qwen2.5-7B-Instruct': 7_615_616_512,
  'Qwen/Qwen3-235B-A22B': 235_093_634_560,
  'HuggingFaceTB/SmolLM2-135M-Instruct': 134_515_008,
  'OpenAssistant/reward-model-deberta-v3-large-v2': 435_062_785,
  'Ray2333/GRM-Gemma-2B-rewardmodel-ft': 2_506_174_464,
  'internlm/internlm2-7b-reward': 7_358_652_416,
  'Alibaba-NLP/gte-large-en-v1.5': 434_139_136,
  'sentence-transformers/all-MiniLM-L6-v2': 22_713_216,
}
_MINILM = 'sentence-transformers/all-MiniLM-L6-v2'
_LLAMA_8B = 'meta-llama/Llama-3.1-8B-Instruct'


@pytest.mark.parametrize('name', catalog.CATALOG)
def test_counts_are_exact(name):
  config = catalog.CATALOG[name].config
  count = catalog.num_parameters(config)
  if name == _MINILM:  # Its file holds a pooler, which is not loaded.
    count += params.count(encoder.unused_weights(config))
  assert count == _COUNTS[name]


def test_the_configs_of_real_checkpoints_agree(smollm2_dir, minilm_dir):
  ckpt = checkpoint.open_checkpoint(str(smollm2_dir))
  cfg, _ = checkpoint.decoder_tensors(ckpt)
  # GGUF keeps it as float32.
  assert cfg.norm_eps == pytest.approx(1e-5, rel=1e-6)
  cfg = dataclasses.replace(cfg, norm_eps=1e-5)
  assert cfg == catalog.CATALOG['HuggingFaceTB/SmolLM2-135M-Instruct'].config
  config = json.loads((minilm_dir / 'config.json').read_text())
  assert encoder_config.from_hf(config) == catalog.CATALOG[_MINILM].config


def test_a_contradiction_names_both_values():
  config = dataclasses.replace(
    catalog.CATALOG[_LLAMA_8B].config, rope_theta=10000.0
  )
  with pytest.raises(
    errors.UserError, match=r'rope_theta = 10000.0, the catalogue 500000.0 \('
  ):
    catalog.check(f'{_LLAMA_8B}@main', config)
  catalog.check('someone/else', config)


def test_what_is_from_memory_gives_way_to_the_checkpoint(caplog):
  name = 'Qwen/Qwen2.5-7B-Instruct'
  entry = catalog.CATALOG[name]
  assert entry.unverified == ['max_position']
  caplog.set_level(logging.INFO)
  catalog.check(name, dataclasses.replace(entry.config, max_position=131072))
  assert 'max_position = 131072; the catalogue has 32768' in caplog.text
  assert 'settles max_position' in caplog.text


@pytest.mark.parametrize(
  ('name', 'num_chips', 'cache_kib', 'gib'),
  [  # Key and value bytes and weights by hand.
    (_LLAMA_8B, 1, 128, 8_030_261_248 * 2 / 2**30),
    ('meta-llama/Llama-3.1-70B-Instruct', 8, 40, 16.43),
    ('google/gemma-2-27b-it', 4, 92, 12.68),
    # One key head: every chip has it.
    ('Ray2333/GRM-Gemma-2B-rewardmodel-ft', 8, 18, 0.6),
  ],
)
def test_memory_per_chip(name, num_chips, cache_kib, gib):
  fit = memory.fit(name, 'H100', num_chips, 'bfloat16')
  assert fit.cache_kib == cache_kib
  assert fit.weight_gib == pytest.approx(gib, abs=0.03)
  free = 80 * 0.9 * 2**30 - fit.weight_gib * 2**30
  assert fit.tokens == int(free // (cache_kib * 1024))


def test_the_fewest_chips_hold_weights_and_cache():
  name = 'meta-llama/Llama-3.1-70B-Instruct'
  assert memory.smallest(name, 'H200', 'bfloat16', 32768).num_chips == 2
  assert memory.smallest(name, 'H200', 'int8', 32768).num_chips == 1
  assert (
    not memory.smallest(
      'Qwen/Qwen2.5-7B-Instruct', 'v5e', 'float32', 10**9
    ).num_chips
    > 4
  )  # Its 28 heads do not divide by 8.


def test_the_program_prints_the_exact_counts():
  out = subprocess.run(
    [sys.executable, '-m', 'launch.memory', '--chips=H100', '--json'],
    capture_output=True,
    text=True,
    check=True,
  )
  rows = [json.loads(line) for line in out.stdout.splitlines()]
  assert {row['model'] for row in rows} == set(catalog.CATALOG)
  for row in rows:
    pooler = 147_840 if row['model'] == _MINILM else 0
    assert row['num_parameters'] + pooler == _COUNTS[row['model']]
