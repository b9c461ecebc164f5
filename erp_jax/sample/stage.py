"""Prompts × arms -> K responses each, as one artefact per arm."""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import pyarrow as pa

from erp_jax.core import errors, group, progress, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.data import thinking
from erp_jax.models import checkpoint, decoder_weights, generation_config
from erp_jax.models import params as params_lib
from erp_jax.models import tokenizer as tokenizer_lib
from erp_jax.sample import engine as engine_lib
from erp_jax.sample import noise, programs, served

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
SCHEMA = pa.schema(
  [
    ('prompt_id', pa.string()),
    ('k', pa.int32()),
    ('arm', pa.string()),
    ('text', pa.string()),  # With the <think> that the template opened.
    # Up to and including the stop; null where a server does not say.
    ('num_tokens', pa.int32()),
    ('prompt_tokens', pa.int32()),  # System prompt and template included.
    ('finish_reason', pa.string()),  # 'stop', 'length'; a server's own.
  ]
)
PLAIN, VENDOR = 'plain', 'vendor'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
  """How responses are drawn (Sec. 4.1: K = 32 at temperature 1, plain)."""

  k: int = 32  # Responses per prompt and arm.
  temperature: float = 1.0  # 0 is greedy.
  # 'plain': the temperature alone. 'vendor': temperature, top-k and top-p as
  # each arm's checkpoint names them in its generation_config.json.
  generation: str = PLAIN
  max_new_tokens: int = 1024
  seed: int = 0
  # Of weights and matmuls: bfloat16 or float32; or int8 of matrices, with
  # bfloat16 for the rest.
  dtype: str = 'bfloat16'
  shard_prompts: int = 64  # Prompts per shard: what a kill can lose.
  engine: engine_lib.EngineConfig = engine_lib.EngineConfig()

  def __post_init__(self):
    for name in ('k', 'max_new_tokens', 'shard_prompts'):
      errors.check_least(f'sample.{name}', getattr(self, name), 1)
    if not 0 <= self.temperature < math.inf:
      raise errors.UserError(
        f'sample.temperature must be >= 0 and finite, got {self.temperature}.'
      )
    if self.generation not in (PLAIN, VENDOR):
      raise errors.UserError(
        f'sample.generation is {self.generation!r}, but must be {PLAIN} or '
        f'{VENDOR}.'
      )
    if self.generation == VENDOR and self.temperature != 1:
      raise errors.UserError(
        f'sample.temperature is {self.temperature}, but with sample.generation '
        f'{VENDOR} each checkpoint names its own: leave it at 1.0.'
      )
    if self.dtype not in ('bfloat16', 'float32', 'int8'):
      raise errors.UserError(
        f'sample.dtype must be bfloat16, float32 or int8, got {self.dtype!r}.'
      )

  def identity(self, is_served: bool = False) -> dict[str, Any]:
    """What responses depend on; `generation` is left out at its default.

    The checkpoint's revision covers its generation_config.json. A server
    decides for itself what it computes in.
    """
    identity = dataclasses.asdict(self)
    if self.generation == PLAIN:
      del identity['generation']
    if is_served:
      del identity['dtype'], identity['engine']
    return identity


def artifact(
  workdir: workdir_lib.Workdir,
  name: str,
  arm: arms_lib.Arm,
  prompts: Sequence[prompts_lib.Prompt],
  cfg: SampleConfig,
) -> store.Artifact:
  """The artefact that holds the responses of one arm."""
  workdir_lib.check_name('arm', name)
  identity = {
    'stage': 'sample',
    'format_version': FORMAT_VERSION,
    'arm': {'name': name, **arm.identity(), 'revision': _revision(arm)},
    'sample': cfg.identity(arm.is_served),
    'prompts': prompts_lib.text_digest(prompts),
  }
  num_shards = -(-len(prompts) // cfg.shard_prompts)
  return workdir.artifact(f'responses/{name}', identity, num_shards)


def run(
  workdir: workdir_lib.Workdir,
  arms: Mapping[str, arms_lib.Arm],
  prompts: Sequence[prompts_lib.Prompt],
  cfg: SampleConfig,
) -> None:
  """Samples what is missing, arm by arm; each checkpoint is loaded once.

  Raises UserError for a prompt that does not fit the context, before anything
  is sampled for its arm; and for an arm without vendor settings where they are
  asked for, before anything is sampled. Arms that are served come last.
  """
  artifacts = {
    name: artifact(workdir, name, arm, prompts, cfg)
    for name, arm in arms.items()
  }
  todo = [
    name for name, art in artifacts.items() if not group.of_first(art.is_done)
  ]
  elsewhere = [name for name in todo if arms[name].is_served]
  for name in elsewhere:
    group.check_alone(f'arm {name!r}')
  if elsewhere and cfg.generation == VENDOR:
    raise errors.UserError(
      f'sample.generation is {VENDOR!r}, but arm {elsewhere[0]!r} is served '
      'elsewhere, and no server says how its vendor samples: set it to '
      f'{PLAIN!r}, or sample that arm in a run of its own.'
    )
  # Servers are asked what they serve at once, not when all others are done.
  servers = {
    name: served.ServedArm(name, arms[name], prompts, cfg) for name in elsewhere
  }
  here = [name for name in todo if name not in elsewhere]
  models = dict.fromkeys(arms[name].model for name in here)
  settings = {model: _settings(model, cfg) for model in models}
  for model in models:
    loaded = checkpoint.load_decoder(model, jnp.dtype(cfg.dtype))
    if loaded[0].num_labels:
      raise errors.UserError(
        f'arms.NAME.model is {model!r}, a reward model, which writes no text: '
        'choose a language model.'
      )
    for name in here:
      if arms[name].model == model:
        drawn = _checkpoint_arm(
          *(name, arms[name], prompts, cfg, settings[model], loaded)
        )
        _fill(workdir, artifacts[name], name, prompts, cfg, drawn)
  for name, server in servers.items():
    _fill(workdir, artifacts[name], name, prompts, cfg, server)


def _revision(arm: arms_lib.Arm) -> str:
  if arm.is_served:
    return arm.endpoint.identify(arm.model)
  return checkpoint.open_checkpoint(arm.model).revision


class _Drawn(NamedTuple):
  """What draws the responses of one arm.

  Attributes:
    draw: (slice of the prompts, advance) -> rows of SCHEMA and counts.
    end: the artefact's counts -> what its manifest records of the arm.
  """

  draw: Callable[[slice, Callable], tuple[list[dict], dict[str, float]]]
  end: Callable[[Mapping[str, float]], dict[str, Any]]


def _settings(model: str, cfg: SampleConfig) -> generation_config.Settings:
  if cfg.generation == PLAIN:
    return generation_config.Settings(temperature=cfg.temperature)
  settings = generation_config.read(checkpoint.open_checkpoint(model))
  _log.info('%s samples with %s', model, settings)
  return settings


def _checkpoint_arm(name, arm, prompts, cfg, settings, loaded) -> _Drawn:
  """Responses of a decoder that is loaded here."""
  model_cfg, params, ckpt = loaded
  tokenizer = tokenizer_lib.load_tokenizer(ckpt.path)
  task = programs.Task(
    model=model_cfg,
    num_ids=min(tokenizer.vocab_size, model_cfg.vocab_size),
    stop_ids=tuple(tokenizer.stop_ids),
    k=cfg.k,
    max_new_tokens=cfg.max_new_tokens,
    seed=cfg.seed,
    temperature=settings.temperature,
    top_k=settings.top_k,
    top_p=settings.top_p,
  )
  chat = {'system_prompt': arm.system_prompt, 'thinking': arm.thinking}
  ids = [tokenizer.render_ids(p.prompt, **chat) for p in prompts]
  head = thinking.open_thinking(tokenizer.chat('Hi', **chat))
  limit = min(
    model_cfg.max_position - cfg.max_new_tokens, max(cfg.engine.prompt_buckets)
  )
  for prompt, x in zip(prompts, ids, strict=True):
    if len(x) > limit:
      raise errors.UserError(
        f'prompt {prompt.id!r} has {len(x)} tokens for arm {name!r}, but at '
        f'most {limit} fit (context {model_cfg.max_position}, '
        f'sample.max_new_tokens {cfg.max_new_tokens}, largest of sample.'
        f'engine.prompt_buckets {max(cfg.engine.prompt_buckets)}): shorten or '
        'drop it.'
      )

  def draw(part, advance):
    names = [p.id for p in prompts[part]]
    words_NKJ = noise.response_words(arm.noise_name(name), names, cfg.k)
    responses, use = engine_lib.generate(
      params, task, cfg.engine, ids[part], words_NKJ, advance
    )
    spared = len(names) * cfg.k * cfg.max_new_tokens - use.tokens
    advance(0, skipped=spared)
    rows = _rows(name, names, ids[part], responses, tokenizer, head)
    return rows, {'tokens': use.tokens, 'slot_steps': use.slot_steps}

  def end(counts):
    _log.info(
      'sample %s: %d tokens, slots busy %.0f %%',
      name,
      counts['tokens'],
      100
      * (counts['tokens'] - len(prompts) * cfg.k)
      / max(1, counts['slot_steps']),
    )
    weights = decoder_weights.declare(model_cfg)
    info = {'num_parameters': params_lib.count(weights)}
    if cfg.generation == VENDOR:
      info['generation'] = dataclasses.asdict(settings)
    return info

  return _Drawn(draw, end)


def _fill(workdir, artifact, name, prompts, cfg, drawn) -> None:
  """Writes the shards of one arm that are missing.

  `drawn` is a _Drawn or a ServedArm.
  """
  with workdir.writer(artifact) as writer:
    missing = writer.missing()
    num_prompts = sum(len(prompts[_shard(i, cfg)]) for i in missing)
    budget = num_prompts * cfg.k * cfg.max_new_tokens
    with progress.track(f'sample {name}', budget, 'tokens') as advance:
      for i in missing:
        rows, counts = drawn.draw(_shard(i, cfg), advance)
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        writer.write_shard(i, table, counts)
    if writer.is_complete():
      writer.finish(drawn.end(writer.shard_counts()))


def _shard(index: int, cfg: SampleConfig) -> slice:
  return slice(index * cfg.shard_prompts, (index + 1) * cfg.shard_prompts)


def _rows(name, prompt_ids, ids, responses, tokenizer, head) -> list[dict]:
  """Rows of one shard, by prompt and k; each text begins with `head`."""
  rows = []
  for prompt_id, prompt, per_prompt in zip(
    prompt_ids, ids, responses, strict=True
  ):
    for k, response in enumerate(per_prompt):
      text_ids = response.ids[:-1] if response.stopped else response.ids
      rows.append(
        {
          'prompt_id': prompt_id,
          'k': k,
          'arm': name,
          'text': head + tokenizer.decode(text_ids),
          'num_tokens': len(response.ids),
          'prompt_tokens': len(prompt),
          'finish_reason': 'stop' if response.stopped else 'length',
        }
      )
  return rows
