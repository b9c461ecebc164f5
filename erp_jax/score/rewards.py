"""Reward models by kind: (prompt, response) -> reward.

What decides the values of one is in `RewardConfig`.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import endpoint as endpoint_lib
from erp_jax.core import errors
from erp_jax.data import prompts as prompts_lib
from erp_jax.models import checkpoint
from erp_jax.score import (
  conversations,
  likelihood,
  pairs,
  preference_reward,
  served,
  verify,
)

# Kind -> what its `model` is.
KINDS = {
  'verify': '',
  'relevance': 'a decoder',
  'judge': 'a decoder',
  'reward_model': 'a checkpoint with a reward head',
  'preference': 'the --workdir of a launch.train_reward',
  'served_judge': 'the name of a model that endpoint.url serves',
  'served_score': 'the name of a model that endpoint.url serves',
}
SERVED = ('served_judge', 'served_score')
# Fields that not all kinds read, by those that do.
_READS = {
  'reward_model': ('max_tokens', 'pair', 'bos'),
  'served_judge': ('endpoint',),
  'served_score': ('max_tokens', 'endpoint', 'api'),
}
DTYPES = ('auto', 'bfloat16', 'float32', 'int8')
_DEBERTA = 'DebertaV2ForSequenceClassification'
PAIR_TOKENS = 512  # As the pair models were trained.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """One reward model."""

  kind: str = 'verify'  # One of KINDS.
  model: str = ''  # A hub id, a folder, package:NAME; KINDS says of what.
  # Of weights and matmuls (int8: of matrices; the rest is bfloat16). 'auto' is
  # float32 for DeBERTa, else bfloat16. A preference model has its own.
  dtype: str = 'auto'
  max_responses: int = 0  # Scored per prompt and arm; 0 is all of them.
  neutral_prompt: str = 'Write something.'  # relevance is measured against it.
  question: str = (  # What the judge answers with Yes or No.
    'Is the answer correct, helpful and complete? Reply Yes or No.'
  )
  # The next three are reward_model's; a served_score has max_tokens too.
  max_tokens: int = 0  # Of prompt and response; 0: 512 of a pair, else all.
  pair: str = 'pair'  # DeBERTa reads a 'pair', or one text 'joined'.
  # Beginnings of text that a decoder reads: as the 'template' writes it, or
  # 'doubled'; 'auto' goes by the model's name.
  bos: str = 'auto'
  batch_tokens: int = 4096  # Positions read at once.
  shard_prompts: int = 64  # Prompts per shard: what a kill can lose.
  endpoint: endpoint_lib.Endpoint = endpoint_lib.Endpoint()  # Of served kinds.
  # Of a served_score: vLLM's 'score' reads pairs, its 'classify' conversations.
  api: str = served.SCORE

  def __post_init__(self):
    if self.kind not in KINDS:
      raise errors.UserError(
        f'rewards.NAME.kind {self.kind!r} is unknown; allowed: '
        f'{", ".join(KINDS)}.'
      )
    if (self.kind == 'verify') != (not self.model):
      raise errors.UserError(
        f'rewards.NAME.model is {self.model!r} for kind {self.kind!r}, which '
        f'needs {KINDS[self.kind] or "none"}.'
      )
    for name, allowed in (
      ('dtype', DTYPES),
      ('pair', pairs.PAIRS),
      ('bos', conversations.BOS),
      ('api', served.APIS),
    ):
      if getattr(self, name) not in allowed:
        raise errors.UserError(
          f'rewards.NAME.{name} is {getattr(self, name)!r}, but must be one of '
          f'{", ".join(allowed)}.'
        )
    if (
      min(self.max_responses, self.max_tokens) < 0
      or min(self.shard_prompts, self.batch_tokens) < 1
    ):
      raise errors.UserError(
        'rewards.NAME needs max_responses >= 0, max_tokens >= 0, '
        'shard_prompts >= 1 and batch_tokens >= 1, got '
        f'{self.max_responses}, {self.max_tokens}, {self.shard_prompts} and '
        f'{self.batch_tokens}.'
      )
    reads = _READS.get(self.kind, ())
    for name in ('max_tokens', 'pair', 'bos', 'endpoint', 'api'):
      if name not in reads:
        self.refuse(name, f'kind {self.kind!r}')
    if self.kind in SERVED:
      self.refuse('dtype', f'kind {self.kind!r}')
      if not self.endpoint.url:
        raise errors.UserError(
          f'rewards.NAME.endpoint.url is empty, but kind {self.kind!r} needs '
          'the URL of the server, such as http://localhost:8000/v1.'
        )

  def fields(self) -> dict[str, Any]:
    """Those that decide rewards, as identities hold them.

    Of a server it is what the user says of it, and what a judge is sent, as in
    an arm's identity: not the URL, under which the same model may be served
    tomorrow or not. `served_score` is sent the same whatever `server` is.
    'endpoint' is None, and in no identity, where a judge is sent nothing more.
    """
    fields = dataclasses.asdict(self)
    del fields['endpoint'], fields['api']
    if self.kind in SERVED:
      fields['revision'] = self.endpoint.identify(self.model)
    if self.kind == 'served_judge':
      settings = served.judge_settings(self.endpoint)
      fields['endpoint'] = {'settings': settings} if settings else None
    if self.kind == 'served_score':
      fields['api'] = self.api
    return fields

  def refuse(self, name: str, reader: str) -> None:
    """UserError if a field is set that `reader` does not read."""
    default = getattr(type(self), name)
    if getattr(self, name) != default:
      raise errors.UserError(
        f'rewards.NAME.{name} is {getattr(self, name)!r}, but {reader} does '
        f'not read it: leave it at {default!r}.'
      )


class Scored(NamedTuple):
  """Rewards of some prompts' responses.

  Attributes:
    rewards: of each prompt, float32 [K] and maybe not finite.
    num_cut: how many of the responses were read in part.
    counts: what else a kind counts.
  """

  rewards: list[np.ndarray]
  num_cut: int
  counts: Mapping[str, int] = types.MappingProxyType({})


def scorer(cfg: RewardConfig, name: str = 'NAME') -> Callable[..., Scored]:
  """`score(prompts, texts, advance)` of this reward model, weights loaded.

  `name` is its name in the config, for messages.

  `texts` holds each prompt's responses; `advance(n, positions=0)` is told of
  every pass over n responses (`passes` of them each) and of positions read.
  """
  if cfg.kind == 'verify':
    return _verify
  model = _load_served(cfg, name) if cfg.kind in SERVED else _load(cfg)

  def score(
    prompts: Sequence[prompts_lib.Prompt],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None],
  ) -> Scored:
    rewards = model.score([p.prompt for p in prompts], texts, advance)
    counts = model.take_counts() if cfg.kind in SERVED else {}
    return Scored(rewards, model.num_cut, counts)

  return score


def identity(cfg: RewardConfig) -> dict[str, Any]:
  """What decides the rewards: the config, the weights, and how they read.

  `read_as` holds what the checkpoint makes of the config's 'auto' and 0.
  """
  fields = cfg.fields()
  if cfg.kind in SERVED:
    return {k: v for k, v in fields.items() if (k, v) != ('endpoint', None)}
  if cfg.kind == 'preference':
    return fields | {'revision': preference_reward.revision(cfg.model)}
  if cfg.model:
    ckpt = checkpoint.open_checkpoint(cfg.model)
    fields |= {'revision': ckpt.revision, 'read_as': _read_as(cfg, ckpt)}
  return fields


def check_prompts(
  rewards: Iterable[RewardConfig], prompts: Iterable[prompts_lib.Prompt]
) -> None:
  """UserError naming a prompt whose checks `verify` could not read."""
  if any(cfg.kind == 'verify' for cfg in rewards):
    for prompt in prompts:
      if prompt.checks:
        verify.validate_checks(prompt.checks, f'prompt {prompt.id!r}')


def passes(cfg: RewardConfig) -> int:
  """How often each response is read."""
  return 2 if cfg.kind == 'relevance' else 1


def _is_deberta(ckpt: checkpoint.Checkpoint) -> bool:
  return _DEBERTA in (ckpt.config.get('architectures') or ())


def _read_as(cfg: RewardConfig, ckpt: checkpoint.Checkpoint) -> dict[str, Any]:
  """How a checkpoint reads: the arguments of the functions that load it."""
  is_pair = cfg.kind == 'reward_model' and _is_deberta(ckpt)
  dtype = cfg.dtype
  if dtype == 'auto':
    dtype = 'float32' if is_pair else 'bfloat16'
  if is_pair:
    cfg.refuse('bos', f'{_DEBERTA} ({ckpt.name})')
    max_tokens = cfg.max_tokens or PAIR_TOKENS
    return {'dtype': dtype, 'pair': cfg.pair, 'max_tokens': max_tokens}
  if cfg.kind == 'reward_model':
    cfg.refuse('pair', f'a decoder ({ckpt.name})')
    convention = conversations.convention(ckpt, cfg.bos, cfg.max_tokens)
    return {'dtype': dtype, 'convention': dataclasses.asdict(convention)}
  return {'dtype': dtype}


def _load_served(cfg: RewardConfig, name: str) -> served.ServedScorer:
  client = endpoint_lib.client_module().Client(f'rewards.{name}', cfg.endpoint)
  if cfg.kind == 'served_judge':
    return served.judge(client, cfg.model, cfg.question, cfg.endpoint)
  return served.scores(client, cfg.model, cfg.api, cfg.max_tokens)


def _load(cfg: RewardConfig):
  """An object with `score` of texts and `num_cut`."""
  if cfg.kind == 'preference':
    return preference_reward.load(cfg.model)
  ckpt = checkpoint.open_checkpoint(cfg.model)
  args = {'model': cfg.model, 'batch_tokens': cfg.batch_tokens}
  args |= _read_as(cfg, ckpt)
  if cfg.kind == 'relevance':
    return likelihood.load(cfg.kind, text=cfg.neutral_prompt, **args)
  if cfg.kind == 'judge':
    return likelihood.load(cfg.kind, text=cfg.question, **args)
  if _is_deberta(ckpt):
    return pairs.load(**args)
  args['convention'] = conversations.Convention(**args['convention'])
  return conversations.load(**args)


def _verify(
  prompts: Sequence[prompts_lib.Prompt],
  texts: Sequence[Sequence[str]],
  advance: Callable[..., None],
) -> Scored:
  """Share of a prompt's checks that each response passes, in [0, 1].

  NaN where the prompt has nothing to check.
  """
  out = []
  for prompt, responses in zip(prompts, texts, strict=True):
    out.append(
      np.array(
        [
          verify.verify(prompt.checks, text) if prompt.checks else np.nan
          for text in responses
        ],
        np.float32,
      )
    )
    advance(len(responses))
  return Scored(out, 0)
