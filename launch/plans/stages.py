"""What a run will take: hours, chips and bytes of each stage, by counting.

A stage's limit is how long its matmuls take at the chips' rate, or its reads
and writes of memory at theirs, phase by phase whichever is more; its time is
the limit over the share of it that was measured for such a stage. Loading,
compilation, what the host does beside it, and traffic between the chips that
hold one model are in that share or nowhere.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from erp_jax.core import errors
from erp_jax.embed import embedder
from erp_jax.embed import stage as embed_stage
from erp_jax.models import catalog, counting, decoder, memory, networks
from erp_jax.score import rewards as rewards_lib
from launch import pipeline_config
from launch.plans import inputs as inputs_lib
from launch.plans import machine as machine_lib

_ELSEWHERE = 'served elsewhere, not counted'


class Phase(NamedTuple):
  """Work that is bound by one thing: FLOPs and bytes that it needs."""

  flops: float
  bytes: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One stage of one arm, reward model or encoder.

  Attributes:
    chips: that one copy of the network is spread over; 0 where none is.
    copies: that work at once.
    tokens: read and written, each once.
    limit_secs, secs: on all copies; 0 where the network does not fit.
    bytes: of the artefact.
  """

  stage: str
  name: str
  network: str = ''
  chips: int = 0
  copies: int = 1
  tokens: float = 0.0
  flops: float = 0.0
  limit_secs: float = 0.0
  share: float = 1.0
  secs: float = 0.0
  bytes: float = 0.0
  fits: bool = True
  note: str = ''


def rows(
  cfg: pipeline_config.Pipeline,
  machine: machine_lib.Machine,
  inputs: inputs_lib.Inputs,
) -> list[Row]:
  """One per stage and arm, reward model or encoder."""
  return [
    *_sample(cfg, machine, inputs),
    *_score(cfg, machine, inputs),
    _embed(cfg.embed, machine, inputs),
    *_fit(cfg, machine, inputs),
  ]


def _sample(cfg, machine, inputs) -> Iterator[Row]:
  sample, engine = cfg.sample, cfg.sample.engine
  num = inputs.num_prompts * sample.k
  written = min(inputs.response_tokens, sample.max_new_tokens)
  for name, arm in cfg.arms.items():
    if arm.is_served:
      size = inputs_lib.response_bytes(num, written)
      yield Row(stage='sample', name=name, bytes=size, note=_ELSEWHERE)
      continue
    config = networks.find(arm.model)
    prompt = inputs.prompt_tokens(arm.model, arm)
    # The engine has room for each slot's longest response, and a copy of the
    # prompt for each group.
    room = sample.max_new_tokens + prompt / min(engine.group, sample.k)
    most = slots = min(engine.slots, num)
    chips = _chips(machine, arm.model, sample.dtype, slots * room)
    while not chips and slots > sample.k:
      slots //= 2
      chips = _chips(machine, arm.model, sample.dtype, slots * room)
    yield _row(
      machine,
      ('sample', name, arm.model, sample.dtype),
      chips,
      [
        _prefill(config, sample, inputs.num_prompts, prompt),
        _decode(config, sample, num, slots, prompt, written),
      ],
      tokens=inputs.num_prompts * prompt + num * written,
      bytes=inputs_lib.response_bytes(num, written),
      note=f'with sample.engine.slots={slots}' if slots < most else '',
    )


def _prefill(config, sample, num_prompts: int, prompt: float) -> Phase:
  """All prompts read, with the logits of each first token."""
  flops = (
    prompt * counting.flops_per_token(config)
    + counting.causal_pairs(prompt) * counting.flops_per_pair(config)
    + counting.head_flops(config)
  )
  at_once = sample.engine.prefill_tokens
  weights = counting.weight_bytes(config, sample.dtype, at_once)
  return Phase(num_prompts * flops, num_prompts * prompt / at_once * weights)


def _decode(config, sample, num, slots, prompt, written) -> Phase:
  """Steps that write a token in each slot.

  A prompt's keys are read once for its K, and of a response's the half that it
  has on average.
  """
  steps = max(written - 1, 0) * num / slots
  flops = (
    counting.flops_per_token(config)
    + counting.head_flops(config)
    + counting.flops_per_pair(config) * (prompt + written / 2)
  )
  cached = slots * (prompt / sample.k + written / 2)
  read = (
    counting.weight_bytes(config, sample.dtype, slots)
    + counting.cache_bytes(config, sample.dtype) * cached
  )
  return Phase(steps * slots * flops, steps * read)


def _score(cfg, machine, inputs) -> Iterator[Row]:
  for name, reward in cfg.rewards.items():
    k = min(cfg.sample.k, reward.max_responses or cfg.sample.k)
    num = inputs.num_prompts * k * len(cfg.arms)
    size = len(cfg.arms) * inputs_lib.reward_bytes(num / len(cfg.arms))
    if reward.kind == 'verify' or reward.kind in rewards_lib.SERVED:
      on_host = reward.kind == 'verify'
      note = 'checked on the host, not counted' if on_host else _ELSEWHERE
      yield Row(stage='score', name=name, bytes=size, note=note)
      continue
    model, dtype, max_tokens, batch_tokens = inputs_lib.reads(reward)
    config = networks.find(model)
    prompt = min(inputs.prompt_tokens(model), max_tokens)
    response = min(inputs.response_tokens, cfg.sample.max_new_tokens)
    response = min(response, max_tokens - prompt)
    if isinstance(config, decoder.DecoderConfig):
      rows = len(cfg.arms) * inputs.num_prompts, prompt, k, response
      tokens, flops = _read_shared(config, reward.kind, *rows)
    else:
      length = prompt + response
      tokens = num * length
      flops = num * _all_see_all(config, length)
    batches = tokens / batch_tokens
    weights = counting.weight_bytes(config, dtype, batch_tokens)
    yield _row(
      machine,
      ('score', name, model, dtype),
      _chips(machine, model, dtype, batch_tokens),
      [Phase(flops, batches * weights)],
      tokens=tokens,
      bytes=size,
    )


def _read_shared(config, kind, num_prompts, prompt, k, response):
  """(tokens, FLOPs) of responses that are read after one copy of a prompt."""
  passes, heads = 1, 1.0
  if kind == 'relevance':  # Each token's likelihood, and without the prompt.
    passes, heads = 2, response
  elif kind == 'judge':
    response += inputs_lib.QUESTION_TOKENS
  per_token = counting.flops_per_token(config)
  per_pair = counting.flops_per_pair(config)
  flops = prompt * per_token + counting.causal_pairs(prompt) * per_pair
  for before in (prompt, 0)[:passes]:
    flops += k * (
      response * per_token
      + counting.causal_pairs(response, before) * per_pair
      + heads * counting.head_flops(config)
    )
  tokens = prompt + passes * k * response
  return num_prompts * tokens, num_prompts * flops


def _embed(embed: embedder.EmbedConfig, machine, inputs) -> Row:
  config = networks.find(embed.encoder)
  if embed.layer:
    config = dataclasses.replace(config, num_layers=embed.layer)
  length = inputs.encoder_tokens(embed)
  if isinstance(config, decoder.DecoderConfig):
    flops = length * counting.flops_per_token(config)
    flops += counting.causal_pairs(length) * counting.flops_per_pair(config)
  else:
    flops = _all_see_all(config, length)
  num = inputs.num_prompts
  weights = counting.weight_bytes(config, embed.dtype, embed.batch_tokens)
  batches = num * length / embed.batch_tokens
  name = embed_stage.folder(embed).split('/')[-1]
  return _row(
    machine,
    ('embed', name, embed.encoder, embed.dtype),
    _chips(machine, embed.encoder, embed.dtype, embed.batch_tokens),
    [Phase(num * flops, batches * weights)],
    tokens=num * length,
    bytes=inputs_lib.embedding_bytes(num, config.width),
  )


def _fit(cfg, machine, inputs) -> Iterator[Row]:
  """On the host, whatever the chips, each probe read, solved and saved."""
  width = networks.find(cfg.embed.encoder).width
  num = inputs.num_prompts * cfg.fit.train_frac
  small = min(num, width)
  product = 2 * num * width * small
  if cfg.fit.ridge.selection == 'fixed':
    flops = product + 2 / 3 * small**3
  else:  # LAPACK's eigenvectors take nine cubes, and the basis as the Gram.
    flops = 2 * product + 9 * small**3
  share = machine.share('fit', inputs_lib.HOST_DTYPE)
  limit = flops / machine.rate(inputs_lib.HOST_DTYPE)
  for name in cfg.rewards:
    yield Row(
      stage='fit',
      name=name,
      flops=flops,
      limit_secs=limit,
      share=share,
      secs=limit / share + len(cfg.arms) * inputs_lib.PROBE_SECS,
      bytes=len(cfg.arms) * inputs_lib.probe_bytes(width),
      note='on this host',
    )


def _all_see_all(config: catalog.Config, length: float) -> float:
  """FLOPs of one text in which every token sees all others."""
  return length * counting.flops_per_token(
    config
  ) + length**2 * counting.flops_per_pair(config)


def _chips(machine, model: str, dtype: str, cache_tokens: float) -> int:
  """The fewest that hold a copy of the network and its cache; 0: all do not."""
  if machine.kind == machine_lib.CPU:
    return 1
  num = 1
  while num <= machine.num_chips:
    try:
      fit = memory.fit(model, machine.kind, num, dtype)
    except errors.UserError:  # They do not divide its heads.
      return 0
    if fit.fits and (not fit.cache_kib or fit.tokens >= cache_tokens):
      return num
    num *= 2
  return 0


def _row(machine, names, chips, phases, *, tokens, bytes, note='') -> Row:
  """A stage on as many copies of the network as the machine holds."""
  stage, name, model, dtype = names
  row = Row(
    stage=stage,
    name=name,
    network=model,
    chips=chips,
    tokens=tokens,
    flops=sum(phase.flops for phase in phases),
    share=machine.share(stage, dtype),
    bytes=bytes,
    note=note,
  )
  if not chips:
    note = f'does not fit {machine.num_chips} × {machine.kind} as {dtype}'
    if narrow := _chips(machine, model, 'int8', 0):
      note += f'; as int8 it fits {narrow}'
    return dataclasses.replace(row, fits=False, note=note)
  copies = machine.num_chips // chips
  limit = sum(
    max(phase.flops / machine.rate(dtype), phase.bytes / machine.bytes)
    for phase in phases
  ) / (chips * copies)
  return dataclasses.replace(
    row, copies=copies, limit_secs=limit, secs=limit / row.share
  )
