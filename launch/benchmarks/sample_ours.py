"""Our engine on the sampling workload, and that workload's prompts."""

import math

import jax
import jax.numpy as jnp

from erp_jax.data import assets, paretobandit
from erp_jax.models import checkpoint, decoder_weights, tokenizer
from erp_jax.models import params as params_lib
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
  # A token costs two operations a parameter, but for the embedding's lookup.
  weights = decoder_weights.declare(model)
  lookup = 0 if model.tied else model.vocab_size * model.width
  per_token = 2 * (params_lib.count(weights) - lookup)

  def run() -> contest.Work:
    responses, use = engine.generate(params, task, cfg, ids, words_NKJ)
    busy = use.tokens / use.slot_steps
    lengths = [len(r.ids) for per_prompt in responses for r in per_prompt]
    stopped = [r.stopped for per_prompt in responses for r in per_prompt]
    return contest.Work(
      use.tokens,
      flops=per_token * (use.tokens + sum(map(len, ids))),
      detail={
        'busy': busy,
        'mean_length': sum(lengths) / len(lengths),
        'stopped': sum(stopped) / len(stopped),
      },
    )

  jax.block_until_ready(params)
  return run
