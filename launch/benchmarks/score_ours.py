"""Our reward models on the scoring workload, and that workload's texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.data import assets, paretobandit
from erp_jax.models import (
  bits,
  catalog,
  checkpoint,
  deberta,
  decoder_weights,
  tokenizer,
)
from erp_jax.models import params as params_lib
from erp_jax.score import conversations, pairs
from erp_jax.score import reader as reader_lib
from launch.benchmarks import contest

SMOLLM2 = 'package:smollm2-135m-instruct'
# The shape of microsoft/deberta-v3-base; all else as its large sibling has it.
DEBERTA = dataclasses.replace(
  catalog.CATALOG['OpenAssistant/reward-model-deberta-v3-large-v2'].config,
  **{'num_layers': 12, 'width': 768, 'mlp': 3072, 'heads': 12},
)


def texts(
  work, reading, tokens: tokenizer.Tokenizer
) -> tuple[list[str], list[list[str]]]:
  """Prompts and the responses to each: pieces of real prompts, one by one."""
  table = paretobandit.long_table(assets.fetch('paretobandit'))
  rng = np.random.default_rng(work.seed)
  real = rng.permutation(sorted(set(table['prompt'].to_pylist()))).tolist()
  ids = [i for row in tokens.encode_batch(real) for i in row]
  start = 0

  def piece(mean):
    nonlocal start
    size = int(rng.integers(mean // 2, mean * 3 // 2, endpoint=True))
    start += size
    return tokens.decode(ids[start - size : start])

  prompts = [piece(work.prompt_tokens) for _ in range(reading.num_prompts)]
  responses = [
    [piece(work.response_tokens) for _ in range(reading.k)] for _ in prompts
  ]
  return prompts, responses


def decoder_scorer(work) -> conversations.ConversationScorer:
  """SmolLM2 with a random head in place of the vocabulary's."""
  model, params, ckpt = checkpoint.load_decoder(SMOLLM2, jnp.bfloat16)
  model = dataclasses.replace(model, num_labels=1)
  head = {'score_JD': decoder_weights.declare(model)['score_JD']}
  key = jax.random.key(work.seed)
  params |= params_lib.init(head, key, jnp.bfloat16)
  params['layers'] = bits.pack(params['layers'])
  tokens = tokenizer.load_tokenizer(ckpt.path)
  return conversations.ConversationScorer(
    reader_lib.Reader(model, params, tokens, work.decoder.batch_tokens),
    conversations.Convention('template', (), model.max_position),
    bos_id=-1,
  )


def deberta_scorer(work) -> pairs.PairScorer:
  """A random network, which reads the ids of MiniLM's tokenizer."""
  params = params_lib.init(
    deberta.weights(DEBERTA), jax.random.key(work.seed), jnp.float32
  )
  return pairs.PairScorer(
    DEBERTA,
    params,
    pairs.load_tokenizer(assets.fetch('minilm-l6-v2')),
    pair='pair',
    max_tokens=512,
    batch_tokens=work.deberta.batch_tokens,
  )


def detail(rows, rewards) -> dict[str, float]:
  """What all contenders should agree on."""
  return {
    'mean_tokens': float(np.mean(list(map(len, rows)))),
    'mean_reward': float(np.mean(rewards)),
    'std_reward': float(np.std(rewards)),
  }


def prepare_decoder(work):
  """The flops are those of reading what a prompt's responses share once."""
  scorer = decoder_scorer(work)
  prompts, responses = texts(work, work.decoder, scorer.reader.tokenizer)
  groups = scorer.groups(prompts, responses)
  rows = [[*prefix, *ids] for prefix, suffixes in groups for ids in suffixes]
  model = scorer.reader.cfg
  per_token = 2 * params_lib.count(decoder_weights.declare(model)['layers'])
  per_pair = 4 * model.num_layers * model.heads * model.head_dim
  # Of both together, as they are n (n + 1) / 2 pairs up to any token n.
  tokens_read = pairs_read = 0
  for prefix, suffixes in groups:
    num_shared = len(prefix)
    tokens_read += num_shared + sum(map(len, suffixes))
    pairs_read += num_shared * (num_shared + 1) / 2
    for ids in suffixes:
      pairs_read += len(ids) * (num_shared + (len(ids) + 1) / 2)
  flops = per_token * tokens_read + per_pair * pairs_read

  def run() -> contest.Work:
    rewards = np.concatenate(scorer.score(prompts, responses, _ignore))
    return contest.Work(len(rewards), flops, detail=detail(rows, rewards))

  return run


def prepare_deberta(work):
  """A pair of tokens costs three products of scores and one of values.

  The last layer needs keys and values of all tokens, and the rest of one.
  """
  scorer = deberta_scorer(work)
  prompts, responses = texts(work, work.deberta, scorer.tokenizer)
  rows, _ = pairs.encode(
    scorer.tokenizer, prompts, responses, scorer.max_tokens
  )
  layers = deberta.weights(DEBERTA)['layers']
  num_last = DEBERTA.num_layers
  per_layer = params_lib.count(layers) / num_last
  kept = params_lib.count([layers['key'], layers['value']]) / num_last
  flops = 0
  for size in map(len, rows):
    before = 2 * per_layer * size + 8 * DEBERTA.width * size**2
    last = 2 * (kept * size + per_layer - kept) + 8 * DEBERTA.width * size
    flops += (num_last - 1) * before + last

  def run() -> contest.Work:
    rewards = np.concatenate(scorer.score(prompts, responses))
    return contest.Work(len(rewards), flops, detail=detail(rows, rewards))

  return run


def _ignore(num_done, positions=0):
  del num_done, positions
