"""Real decoders from GGUF files against transformers, in float32.

The reference runs first, in a process of its own: two copies of the largest
model, 7 GB each, need not fit in memory together.
"""

import json
import logging
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.data import assets
from erp_jax.data import prompts as prompts_lib
from erp_jax.models import checkpoint, decoder, tokenizer
from erp_jax.sample import engine, noise, programs
from erp_jax.score import rewards

pytestmark = pytest.mark.weights

QUESTIONS = [
  'What is the capital of France?',
  'Write a Python function that reverses a list.',
  'Why is the sky blue?',
  'What is 17 * 23?',
  'Name three primary colours.',
  'Explain what a hash table is, in one sentence.',
  'Übersetze ins Englische: Guten Morgen, wie geht es dir?',
  'SELECT the names of all customers from Berlin: write the SQL.',
  'Sort these: pear, apple, fig.',
]
# Longer than Gemma 3's window of 512 tokens.
_LONG = 'The quick brown fox, 42 times over, jumps over the lazy dog. ' * 45
NUM_STEPS = 16
NUM_POSITIONS = 32

_log = logging.getLogger(__name__)


def _rows(name, tok):
  """10 prompts, as ids."""
  if name == 'gemma-3-270m':  # A base model, without a chat template.
    prompts = [*QUESTIONS, f'{_LONG}What does the fox jump over?']
    return [tok.encode(prompt, special=True) for prompt in prompts]
  prompts = [*QUESTIONS, 'What does the fox jump over?']
  return [tok.render_ids(prompt) for prompt in prompts]


@pytest.mark.parametrize(
  'name, error',
  [
    ('gemma-3-270m', 5e-4),  # 2.0e-4 was measured, of logits up to 37.
    ('tinyllama-1.1b-chat', 5e-4),  # 1.2e-4, of 28.
    ('qwen2.5-coder-1.5b-instruct', 5e-4),  # 8.8e-5, of 26.
  ],
)
def test_agrees_with_transformers(tmp_path, name, error):
  (path,) = assets.fetch(name).glob('*.gguf')
  tok = tokenizer.load_tokenizer(path)
  rows = _rows(name, tok)
  ids_file, out_file = tmp_path / 'ids.json', tmp_path / 'out.npz'
  ids_file.write_text(json.dumps(rows))
  program = pathlib.Path(__file__).with_name('reference.py')
  subprocess.run(
    [
      *(sys.executable, program, path, ids_file, out_file),
      *(str(NUM_STEPS), str(NUM_POSITIONS)),
    ],
    check=True,
  )
  cfg, params, _ = checkpoint.load_decoder(f'package:{name}', jnp.float32)
  forward = jax.jit(_last_logits, static_argnums=1)
  worst = 0.0
  with np.load(out_file) as want:
    largest = max(np.abs(want[f'logits{n}']).max() for n in range(len(rows)))
    for n, row in enumerate(rows):
      size = 64 * -(-len(row) // 64)
      token_PT = np.zeros((1, size), np.int32)
      token_PT[0, : len(row)] = row
      first = max(0, len(row) - NUM_POSITIONS)
      got_TV = forward(params, cfg, token_PT, first)[: len(row) - first]
      difference = np.abs(got_TV - want[f'logits{n}']).max()
      worst = max(worst, float(difference))
    greedy = [want[f'greedy{n}'].tolist() for n in range(len(rows))]
  _log.info('%s: logits up to %.0f differ by %.1e', name, largest, worst)
  assert worst < error
  task = programs.Task(
    model=cfg,
    num_ids=tok.vocab_size,
    stop_ids=(),
    k=1,
    temperature=0.0,
    max_new_tokens=NUM_STEPS,
    seed=0,
  )
  words_NKJ = noise.response_words('arm', [str(n) for n in range(len(rows))], 1)
  cfg = engine.EngineConfig(slots=10, prompt_buckets=(64, 1024))
  responses, _ = engine.generate(params, task, cfg, rows, words_NKJ)
  for row, response in zip(greedy, responses, strict=True):
    assert tok.decode(response[0].ids) == tok.decode(row)
    assert response[0].ids == row
  for row, chosen in zip(rows, greedy, strict=True):
    _log.info('%r -> %r', tok.decode(row[-20:]), tok.decode(chosen))


def _last_logits(params, cfg, token_PT, first):
  hidden_PTD, _ = decoder.prefill(params, cfg, token_PT)
  hidden_TD = jax.lax.dynamic_slice_in_dim(
    jnp.pad(hidden_PTD[0], ((0, NUM_POSITIONS), (0, 0))), first, NUM_POSITIONS
  )
  return decoder.logits(params, cfg, hidden_TD)


def test_judge_of_qwen_sorts_out_what_is_off_topic():
  prompt = prompts_lib.Prompt('france', QUESTIONS[0], 'geography')
  answers = [
    'The capital of France is Paris.',
    'The capital of France is Lyon.',
    'I like to eat apples in the morning.',
  ]
  judge = rewards.RewardConfig(
    kind='judge',
    model='package:qwen2.5-coder-1.5b-instruct',
    dtype='float32',
  )
  scored = rewards.scorer(judge)([prompt], [answers], lambda *_, **__: None)
  right, wrong, other = scored.rewards[0]
  _log.info('judge: right %.2f, wrong %.2f, other %.2f', right, wrong, other)
  # It hardly tells Paris (+3.5) from Lyon (+2.3), as it hardly tells 4 from 5.
  assert right > wrong + 0.5 > 1 and other < -0.5
