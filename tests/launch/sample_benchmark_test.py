"""The cases of sampling at a tiny size, ours and transformers."""

import dataclasses
import json

import numpy as np
import pytest

from erp_jax.core import errors
from launch import benchmark_config
from launch.benchmarks import (
  sample,
  sample_large,
  sample_large_ours,
  sample_large_peers,
  sample_ours,
  sample_peers,
)

_SAMPLE = sample.SampleWork(
  num_prompts=2,
  max_prompt_tokens=60,
  k=3,
  max_new_tokens=4,
  slots=6,
  peer_prompts=2,
)
_LARGE = sample_large.LargeWork().without_accelerator()


def test_ours_and_transformers_sample_what_is_asked():
  ours = sample_ours.prepare(_SAMPLE)()
  theirs = sample_peers.transformers_sample(_SAMPLE)()
  for done in (ours, theirs):
    assert 6 <= done.count <= 24
    assert 0 < done.detail['busy'] <= 1
  assert 1 <= ours.detail['mean_length'] <= 4


@pytest.mark.parametrize('name', sample_large.SHAPES)
def test_large_shapes_run_where_they_are_tiny(name):
  shape = sample_large.SHAPES[name].shrunk()
  prompt_N, limit_NK = sample_large_ours.lengths(_LARGE)
  ours = sample_large_ours.prepare((_LARGE, shape))()
  assert ours.count == limit_NK.sum()
  if shape.dtype != 'int8':
    theirs = sample_large_peers.prepare((_LARGE, shape))()
    assert theirs.count == ours.count
    assert 0 < theirs.detail['busy'] <= 1
  reading = dataclasses.replace(_LARGE, max_new_tokens=1)
  read = sample_large_ours.prepare((reading, shape))()
  assert read.count == sum(prompt_N)
  assert read.flops < ours.flops and read.bytes < ours.bytes


def test_lengths_are_those_of_real_prompts_and_answers():
  work = sample_large.LargeWork()
  prompt_N, limit_NK = sample_large_ours.lengths(work)
  assert prompt_N == sorted(prompt_N)
  assert 64 <= prompt_N[0] < prompt_N[-1] <= 512
  assert limit_NK.shape == (64, 32)
  # Llama's answers have 215 on average; at 512 the longest are cut.
  assert 150 < limit_NK.mean() < 220
  assert limit_NK.min() >= 1 and limit_NK.max() == 512


def test_what_is_needed_is_counted_token_by_token():
  """Of one layer of known sizes, every product and byte by itself."""
  model = dataclasses.replace(
    sample_large.SHAPES['llama_8b'].shrunk().config, num_layers=1
  )
  prompts, length_NK = [5, 3], np.array([[4, 1], [2, 6]])
  flops, num_bytes = sample_ours.needed(
    model, 'bfloat16', prompts, length_NK, 8
  )
  # Queries, keys, values, output; gate, up, down.
  matrices = 64 * (64 + 32 + 32) + 64 * 64 + 3 * 64 * 128
  head = 512 * 64
  expected = steps = cached = 0
  for prompt, length_K in zip(prompts, length_NK, strict=True):
    for at in range(prompt):
      expected += 2 * matrices + 4 * 64 * (at + 1)
    expected += 2 * head
    for length in length_K:
      for step in range(1, length):  # Its own key is among what it sees.
        expected += 2 * matrices + 4 * 64 * (prompt + step) + 2 * head
        cached += (prompt / 2 + step) * 2 * 32 * 2
        steps += 1
  assert flops == expected
  weights = 2 * (matrices + head)
  assert num_bytes == pytest.approx(weights * (1 + steps / 8) + cached)


def test_sizes_and_names_are_checked():
  with pytest.raises(errors.UserError, match='sample_large.shapes'):
    sample_large.LargeWork(shapes=('llama_1b',))
  with pytest.raises(errors.UserError, match='sample_large.k must be >= 1'):
    sample_large.LargeWork(k=0)
  with pytest.raises(errors.UserError, match='sample.slots must be >= 1'):
    sample.SampleWork(slots=0)
  full = benchmark_config.Benchmark(case='sample_large', device='gpu')
  assert [c.case for c in full.contests()] == [
    'prefill llama_8b',
    'sample llama_8b',
    'prefill gemma_9b',
    'sample gemma_9b',
    'prefill llama_70b_int8',
    'sample llama_70b_int8',
  ]


@pytest.mark.slow
def test_without_an_accelerator_it_says_so(launch):
  done = launch(
    'benchmark',
    '--config=configs/benchmark.py:sample_large',
    "--config.sample_large.shapes=('gemma_9b',)",
    '--config.rounds=1',
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert 'device: none' in lines
  prefill, sampled = (json.loads(x) for x in lines if x.startswith('{'))
  for made in (prefill, sampled):
    assert made['device'] == 'none' and made['case'].endswith('(tiny)')
    assert made['ours'] > 0
    assert made['limit'] is None and made['share_of_limit'] is None
  assert sampled['peer_name'] == 'transformers bfloat16, static cache'
  assert sampled['ratio'] > 0
