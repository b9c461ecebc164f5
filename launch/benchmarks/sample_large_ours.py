"""Our engine on random weights of a large network, and the lengths asked."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors
from erp_jax.data import assets, paretobandit
from erp_jax.models import checkpoint, decoder_weights, tokenizer
from erp_jax.models import params as params_lib
from erp_jax.sample import engine, noise, programs
from launch.benchmarks import contest, sample_ours

# Its rewards' record prices a token of prompt or response alike, at 1e-7 $.
_PRICED = 'meta-llama/llama-3.1-8b-instruct'
_DOLLARS_PER_TOKEN = 1e-7
_TOKENIZER = 'package:smollm2-135m-instruct'


def lengths(work) -> tuple[list[int], np.ndarray]:
  """Tokens of each prompt, and of each response [N, K].

  Prompts have the lengths of benchmark prompts, at even steps. Responses have
  those of Llama 3.1 8B to such prompts, by what they cost, drawn at random.
  """
  records = paretobandit.long_table(assets.fetch('paretobandit')).to_pylist()
  records = [r for r in records if r['model'] == _PRICED]
  tokens = tokenizer.load_tokenizer(checkpoint.open_checkpoint(_TOKENIZER).path)
  ids = tokens.encode_batch([r['prompt'] for r in records])
  prompt_J = np.array(list(map(len, ids)))
  total_J = np.array([r['cost_usd'] for r in records]) / _DOLLARS_PER_TOKEN
  least, most = work.min_prompt_tokens, work.max_prompt_tokens
  fits_J = (least <= prompt_J) & (prompt_J <= most)
  if not fits_J.any():
    raise errors.UserError(
      f'no benchmark prompt has {least} to {most} tokens: widen '
      'sample_large.min_prompt_tokens and max_prompt_tokens.'
    )
  response_J = (np.rint(total_J).astype(int) - prompt_J)[fits_J]
  asked_J = np.sort(prompt_J[fits_J])
  step = len(asked_J) / work.num_prompts
  at_N = [math.floor((i + 0.5) * step) for i in range(work.num_prompts)]
  prompt_N = asked_J[at_N].tolist()
  rng = np.random.default_rng(work.seed)
  response_NK = rng.choice(response_J, (work.num_prompts, work.k))
  return prompt_N, np.clip(response_NK, 1, work.max_new_tokens)


def prompts(
  prompt_N: Sequence[int], vocab_size: int, seed: int
) -> list[list[int]]:
  """Random ids."""
  rng = np.random.default_rng(seed)
  return [rng.integers(0, vocab_size, n).tolist() for n in prompt_N]


def prepare(argument):
  """Random weights on the device; the work is all K responses of all prompts.

  Nothing stops by itself: each response has its length given.
  """
  work, shape = argument
  params = params_lib.init(
    decoder_weights.declare(shape.config),
    jax.random.key(work.seed),
    jnp.bfloat16,
    shape.dtype == 'int8',
  )
  task = programs.Task(
    model=shape.config,
    num_ids=shape.config.vocab_size,
    stop_ids=(),
    k=work.k,
    temperature=1.0,
    max_new_tokens=work.max_new_tokens,
    seed=work.seed,
  )
  prompt_N, limit_NK = lengths(work)
  ids = prompts(prompt_N, shape.config.vocab_size, work.seed)
  cfg = engine.EngineConfig(slots=shape.slots)
  words_NKJ = noise.response_words('arm', list(map(str, prompt_N)), work.k)
  flops, num_bytes = sample_ours.needed(
    *(shape.config, shape.dtype, prompt_N, limit_NK, shape.slots)
  )
  jax.block_until_ready(params)

  def run() -> contest.Work:
    _, use = engine.generate(
      params, task, cfg, ids, words_NKJ, limit_NK=limit_NK
    )
    only_reads = work.max_new_tokens == 1
    return contest.Work(
      sum(prompt_N) if only_reads else use.tokens,
      flops,
      num_bytes,
      {} if only_reads else {'busy': use.busy},
    )

  return run
