"""The networks of the paper's checkpoints, and where each fact was read.

At load a checkpoint's own config wins; where it contradicts a fact here that
changes shapes or numbers, one of the two is wrong and loading stops. Facts
from memory are unverified until a checkpoint's own config has confirmed them.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from erp_jax.core import errors
from erp_jax.models import deberta, decoder, decoder_weights, encoder
from erp_jax.models import params as params_lib

Config = decoder.DecoderConfig | deberta.DebertaConfig | encoder.EncoderConfig

# Sources.
MEMORY = 'from memory, unverified'
_LITGPT = 'litgpt 0.5.13, litgpt/config.py, which cites each hub config'
_GEMMA = 'google/gemma_pytorch, gemma/config.py'
_INTERNLM = 'InternLM/InternEvo, configs of InternLM2-7B'
_DEBERTA = 'microsoft/DeBERTa, experiments/language_model/rtd_large.json'
_GTE = 'a copy of its config; text-embeddings-inference, models/gte.rs'
_FILE = 'the checkpoint itself'
# Changes neither shapes nor numbers, so a difference is only told.
_HARMLESS = ('max_position',)

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Entry:
  """What is known of a checkpoint before it is opened.

  Attributes:
    config: of its network.
    source: where the config's fields were read, but for those in `others`.
    others: field -> where it was read.
  """

  config: Config
  source: str
  others: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def unverified(self) -> list[str]:
    """Fields that no file has confirmed."""
    names = [f.name for f in dataclasses.fields(self.config)]
    return [n for n in names if self.others.get(n, self.source) == MEMORY]


_LLAMA_8B = decoder.DecoderConfig(
  vocab_size=128256,
  num_layers=32,
  width=4096,
  mlp=14336,
  heads=32,
  kv_heads=8,
  head_dim=128,
  max_position=131072,
  norm_eps=1e-5,
  tied=False,
  rope_theta=500000.0,
  rope_factor=8.0,
)
_GEMMA_7B = decoder.DecoderConfig(
  vocab_size=256000,
  num_layers=28,
  width=3072,
  mlp=24576,  # The report's 49152 is gate and up together.
  heads=16,
  kv_heads=16,
  head_dim=256,
  max_position=8192,
  norm_eps=1e-6,
  tied=True,
  rope_theta=10000.0,
  activation='gelu_tanh',
  embed_scaled=True,
  norm_plus_one=True,
)
_GEMMA2_9B = dataclasses.replace(
  _GEMMA_7B,
  num_layers=42,
  width=3584,
  mlp=14336,
  kv_heads=8,
  post_norms=True,
  query_scale=256**-0.5,
  attn_softcap=50.0,
  logit_softcap=30.0,
  window=4096,
  windowed=(True, False) * 21,
)
_QWEN25_7B = decoder.DecoderConfig(
  vocab_size=152064,
  num_layers=28,
  width=3584,
  mlp=18944,
  heads=28,
  kv_heads=4,
  head_dim=128,
  max_position=32768,
  norm_eps=1e-6,
  tied=False,
  rope_theta=1000000.0,
  qkv_bias=True,
)

CATALOG: dict[str, Entry] = {
  'meta-llama/Llama-3.1-8B-Instruct': Entry(_LLAMA_8B, _LITGPT),
  'meta-llama/Llama-3.1-70B-Instruct': Entry(
    dataclasses.replace(
      _LLAMA_8B, num_layers=80, width=8192, mlp=28672, heads=64
    ),
    _LITGPT,
  ),
  'google/gemma-2-9b-it': Entry(_GEMMA2_9B, _GEMMA),
  'google/gemma-2-27b-it': Entry(
    dataclasses.replace(
      _GEMMA2_9B,
      num_layers=46,
      width=4608,
      mlp=36864,
      heads=32,
      kv_heads=16,
      head_dim=128,
      query_scale=144**-0.5,  # width / heads, not head_dim.
      windowed=(True, False) * 23,
    ),
    _GEMMA,
  ),
  'google/gemma-7b-it': Entry(_GEMMA_7B, _GEMMA),
  'Qwen/Qwen2.5-7B-Instruct': Entry(
    _QWEN25_7B, _LITGPT, {'max_position': MEMORY}
  ),
  # The release of April 2025; those of July have a RoPE base of 5e6.
  'Qwen/Qwen3-235B-A22B': Entry(
    dataclasses.replace(
      _QWEN25_7B,
      vocab_size=151936,
      num_layers=94,
      width=4096,
      mlp=1536,
      heads=64,
      max_position=40960,
      qkv_bias=False,
      qk_norm=True,
      num_experts=128,
      experts_per_token=8,
      renormalize_experts=True,
    ),
    _LITGPT,
    {
      'renormalize_experts': 'AI-Hypercomputer/maxtext, qwen3-235b-a22b.yml',
    },
  ),
  'HuggingFaceTB/SmolLM2-135M-Instruct': Entry(
    decoder.DecoderConfig(
      vocab_size=49152,
      num_layers=30,
      width=576,
      mlp=1536,
      heads=9,
      kv_heads=3,
      head_dim=64,
      max_position=8192,
      norm_eps=1e-5,
      tied=True,
      rope_theta=100000.0,
    ),
    _FILE,
  ),
  'OpenAssistant/reward-model-deberta-v3-large-v2': Entry(
    deberta.DebertaConfig(
      vocab_size=128100,
      num_layers=24,
      width=1024,
      mlp=4096,
      heads=16,
      norm_eps=1e-7,
      buckets=256,
      max_distance=512,
    ),
    _DEBERTA,
  ),
  'Ray2333/GRM-Gemma-2B-rewardmodel-ft': Entry(
    dataclasses.replace(
      _GEMMA_7B,
      num_layers=18,
      width=2048,
      mlp=16384,
      heads=8,
      kv_heads=1,
      num_labels=1,
    ),
    _GEMMA,
    {'vocab_size': MEMORY, 'num_labels': 'its use in JudgeBench'},
  ),
  'internlm/internlm2-7b-reward': Entry(
    dataclasses.replace(
      _LLAMA_8B,
      vocab_size=92544,
      max_position=32768,
      rope_theta=1000000.0,
      rope_factor=1.0,
      qkv_fused=True,
      num_labels=1,
    ),
    _INTERNLM,
    {
      'max_position': 'the config of a sibling, in a third repository',
      'num_labels': 'InternLM/xtuner, modeling_internlm2.py',
      'qkv_fused': 'InternLM/xtuner, modeling_internlm2.py',
    },
  ),
  'Alibaba-NLP/gte-large-en-v1.5': Entry(
    encoder.EncoderConfig(
      vocab_size=30528,
      num_layers=24,
      width=1024,
      mlp=4096,
      heads=16,
      norm_eps=1e-12,
      max_position=8192,
      num_token_types=2,
      rope_theta=320000.0,  # 160000 times the NTK factor 2.
      rope_divisor=2 ** (2 / 64),
      gated=True,
    ),
    _GTE,
  ),
  'sentence-transformers/all-MiniLM-L6-v2': Entry(
    encoder.EncoderConfig(
      vocab_size=30522,
      num_layers=6,
      width=384,
      mlp=1536,
      heads=12,
      norm_eps=1e-12,
      max_position=512,
      num_token_types=2,
    ),
    _FILE,
  ),
}


def weights(config: Config) -> Any:
  """Params of any network of the catalogue."""
  if isinstance(config, decoder.DecoderConfig):
    return decoder_weights.declare(config)
  module = deberta if isinstance(config, deberta.DebertaConfig) else encoder
  return module.weights(config)


def num_parameters(config: Config) -> int:
  """Exact count; heads that share the embedding count once."""
  return params_lib.count(weights(config))


def check(name: str, config: Config) -> None:
  """Compares the config that a checkpoint came with to what is known of it.

  `name` is a hub id with '@revision' or without; others are not checked.
  Raises UserError for a contradiction in a field that changes shapes or
  numbers, unless what is here is from memory.
  """
  entry = CATALOG.get(name.partition('@')[0])
  if entry is None:
    return
  unverified = entry.unverified
  for field in dataclasses.fields(entry.config):
    known = getattr(entry.config, field.name)
    found = getattr(config, field.name, None)
    if found == known:
      continue
    source = entry.others.get(field.name, entry.source)
    if field.name in unverified or field.name in _HARMLESS:
      _log.warning(
        '%s: its config has %s = %s; the catalogue has %s (%s).',
        *(name, field.name, found, known, source),
      )
      continue
    raise errors.UserError(
      f'{name}: its config gives {field.name} = {found}, the catalogue {known} '
      f'({source}): check which is right; if the checkpoint was changed, load '
      'it from a local folder, otherwise correct erp_jax/models/catalog.py.'
    )
  if unverified:
    _log.info('%s: its config settles %s.', name, ', '.join(unverified))
