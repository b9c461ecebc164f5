"""What a plan takes for given: numbers of prompts and tokens, sizes of rows."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from erp_jax.core import config, errors, store
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.embed import embedder
from erp_jax.models import checkpoint, deberta, networks
from erp_jax.models import tokenizer as tokenizer_lib
from erp_jax.score import features, train_stage
from erp_jax.score import rewards as rewards_lib

# Bytes in a run of the quickstart (BUILD.md, "Plans"): of a folder's manifest
# and identity, a row's other columns, a token of compressed text, a reward, a
# number of a vector, and of a folder of orbax's.
_FOLDER_BYTES = 3800
_RESPONSE_BYTES, _TOKEN_BYTES = 6.0, 1.9
_REWARD_BYTES = 5.0
_NUMBER_BYTES = 5.3
_PROBE_BYTES = 6000
PROBE_SECS = 0.04  # To read one probe's rewards and save it, in that run.
HOST_DTYPE = 'float64'
QUESTION_TOKENS = 24  # Around a prompt and response that a judge reads.
# Of a prompt where no tokenizer is at hand, as in PerfectBlend's quarters.
PROMPT_TOKENS = 200


class Reads(NamedTuple):
  """What a reward model's network is, and how much it reads at once."""

  model: str
  dtype: str
  max_tokens: float  # Of a prompt with its response.
  batch_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
  """Numbers that the config does not hold.

  Attributes:
    prompts: of the config's file, if it is here.
    response_tokens: mean of a response, its stop counted.
    at_most: what to add to it where it is the longest that a response can be.
    assumed_tokens: mean of a prompt, for tokenizers or prompts that are not at
      hand.
  """

  num_prompts: int
  prompts: Sequence[prompts_lib.Prompt]
  response_tokens: float
  at_most: str
  assumed_tokens: float

  def prompt_tokens(self, model: str, arm: arms_lib.Arm | None = None) -> float:
    """Mean of a prompt in a model's chat template, the arm's system prompt."""
    if not self._counts(model):
      return self.assumed_tokens
    chat = {}
    if arm:
      chat = {'system_prompt': arm.system_prompt, 'thinking': arm.thinking}
    tokens = _tokenizer(model)
    return statistics.mean(
      len(tokens.render_ids(p.prompt, **chat)) for p in self.prompts
    )

  def encoder_tokens(self, embed: embedder.EmbedConfig) -> float:
    """Mean of a prompt as the encoder reads it, cut to its length."""
    if not self._counts(embed.encoder):
      return min(self.assumed_tokens, embed.max_tokens)
    texts = [embed.prompt + p.prompt for p in self.prompts]
    rows = _tokenizer(embed.encoder).encode_batch(texts, special=True)
    return statistics.mean(min(len(row), embed.max_tokens) for row in rows)

  def _counts(self, model: str) -> bool:
    return bool(self.prompts) and networks.is_at_hand(model)


def gather(
  cfg, num_prompts: int, prompt_tokens: float, response_tokens: float
) -> Inputs:
  """Inputs of a Pipeline config; 0 is what can be found out.

  Prompts are those of its file, else as many as its limit on each category of
  its table allows; tokens of a prompt are counted where the file and the
  tokenizer are here; a response has at most sample.max_new_tokens.
  Raises UserError without arms, and where nobody says how many prompts there
  are.
  """
  if not cfg.arms:
    raise errors.UserError(
      'the config has no arms to sample from, only replays: nothing to plan.'
    )
  path = cfg.prompts.path
  is_here = path == prompts_lib.QUICKSTART or epath.Path(path).exists()
  prompts = prompts_lib.load(cfg.prompts) if is_here else ()
  num_prompts = num_prompts or len(prompts)
  if not num_prompts:
    categories = set(cfg.prompts.categories.values()) - {''}
    num_prompts = len(categories) * cfg.prompts.limit_per_category
  if not num_prompts:
    raise errors.UserError(
      f'config.prompts.path is {path!r}, which is not here, and the config '
      'has no limit on each of its categories: set --num_prompts.'
    )
  return Inputs(
    num_prompts=num_prompts,
    prompts=() if prompt_tokens else prompts,
    response_tokens=response_tokens or cfg.sample.max_new_tokens,
    at_most='' if response_tokens else ', the most that they can have',
    assumed_tokens=prompt_tokens or PROMPT_TOKENS,
  )


def reads(reward: rewards_lib.RewardConfig) -> Reads:
  """How a reward model with a network reads.

  Raises UserError if a trained one is not complete.
  """
  if reward.kind == 'preference':
    folder = epath.Path(reward.model) / train_stage.FOLDER
    made_from = store.read_manifest(folder)['identity']['features']
    cfg = config.build(features.FeatureConfig, made_from['features'])
    return Reads(cfg.model, cfg.dtype, cfg.max_tokens, cfg.batch_tokens)
  is_pair = isinstance(networks.find(reward.model), deberta.DebertaConfig)
  dtype, max_tokens = reward.dtype, reward.max_tokens
  if dtype == 'auto':
    dtype = 'float32' if is_pair else 'bfloat16'
  if not max_tokens:
    max_tokens = rewards_lib.PAIR_TOKENS if is_pair else math.inf
  return Reads(reward.model, dtype, max_tokens, reward.batch_tokens)


def response_bytes(num: float, tokens: float) -> float:
  """Of one arm's responses, with so many tokens on average."""
  return _FOLDER_BYTES + num * (_RESPONSE_BYTES + _TOKEN_BYTES * tokens)


def reward_bytes(num: float) -> float:
  """Of the rewards of one arm's responses."""
  return _FOLDER_BYTES + num * _REWARD_BYTES


def embedding_bytes(num: float, width: int) -> float:
  """Of the prompts' vectors."""
  return _FOLDER_BYTES + num * width * _NUMBER_BYTES


def probe_bytes(width: int) -> float:
  """Of one arm's probe, in float64."""
  return _PROBE_BYTES + 8 * width


@functools.cache
def _tokenizer(model: str) -> tokenizer_lib.Tokenizer:
  return tokenizer_lib.load_tokenizer(checkpoint.open_checkpoint(model).path)
