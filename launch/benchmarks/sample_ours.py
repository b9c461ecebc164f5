"""Our engine on the sampling workload, and that workload's prompts."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.data import assets, paretobandit
from erp_jax.models import checkpoint, counting, decoder, tokenizer
from erp_jax.sample import engine, noise, programs
from launch.benchmarks import contest


def prompts(work, tokens: tokenizer.Tokenizer) -> list[tuple[str, list[int]]]:
  """Texts of the benchmark prompts and their ids, at even steps of length."""
  table = paretobandit.long_table(assets.fetch('paretobandit'))
  texts = sorted(set(table['prompt'].to_pylist()))
  rows = [(text, tokens.render_ids(text)) for text in texts]
  rows = [row for row in rows if len(row[1]) <= work.max_prompt_tokens]
  rows.sort(key=lambda row: (len(row[1]), row[0]))
  step = len(rows) / work.num_prompts
  return [rows[math.floor((i + 0.5) * step)] for i in range(work.num_prompts)]


def prepare(work):
  """Weights and prompts loaded; the work is all K responses of all prompts."""
  model, params, ckpt = checkpoint.load_decoder(
    work.model, jnp.dtype(work.dtype)
  )
  tokens = tokenizer.load_tokenizer(ckpt.path)
  ids = [row[1] for row in prompts(work, tokens)]
  task = programs.Task(
    model=model,
    num_ids=min(tokens.vocab_size, model.vocab_size),
    stop_ids=tuple(tokens.stop_ids),
    k=work.k,
    temperature=1.0,
    max_new_tokens=work.max_new_tokens,
    seed=work.seed,
  )
  cfg = engine.EngineConfig(slots=work.slots)
  words_NKJ = noise.response_words(
    'arm', list(map(str, range(len(ids)))), work.k
  )
  prompt_N = list(map(len, ids))

  def run() -> contest.Work:
    responses, use = engine.generate(params, task, cfg, ids, words_NKJ)
    length_NK = np.array([[len(r.ids) for r in row] for row in responses])
    stopped = [r.stopped for row in responses for r in row]
    return contest.Work(
      use.tokens,
      *needed(model, work.dtype, prompt_N, length_NK, work.slots),
      detail={
        'busy': use.busy,
        'mean_length': float(length_NK.mean()),
        'stopped': sum(stopped) / len(stopped),
      },
    )

  jax.block_until_ready(params)
  return run


def needed(
  model: decoder.DecoderConfig,
  dtype: str,
  prompt_N: Sequence[int],
  length_NK: np.ndarray,
  slots: int,
) -> tuple[float, float]:
  """FLOPs and bytes that the responses need, at least.

  Each prompt is read once. Steps have all slots busy; a step reads the weights
  once, a prompt's cache once for its K responses, and each response's own. The
  first tokens come with the prompts.
  """
  K = length_NK.shape[1]
  steps_NK = length_NK - 1
  prompt_N1 = np.array(prompt_N)[:, None]
  pairs = counting.causal_pairs(prompt_N1).sum()
  pairs += counting.causal_pairs(steps_NK, prompt_N1).sum()
  steps = steps_NK.sum()
  flops = (
    counting.flops_per_token(model) * (sum(prompt_N) + steps)
    + counting.flops_per_pair(model) * pairs
    + counting.head_flops(model) * (len(prompt_N) + steps)
  )
  cached = counting.causal_pairs(steps_NK, prompt_N1 / K).sum()
  num_bytes = (
    counting.weight_bytes(model, dtype, slots) * (1 + steps / slots)
    + counting.cache_bytes(model, dtype) * cached
  )
  return float(flops), float(num_bytes)
