"""Counts against torch's own of transformers' networks, and closed forms."""

import dataclasses

import pytest
import torch
import transformers
from torch.utils import flop_counter

from erp_jax.models import (
  catalog,
  counting,
  deberta,
  decoder_config,
  encoder_config,
)
from erp_jax.models import params as params_lib

_SIZES = {
  'vocab_size': 97,
  'hidden_size': 32,
  'intermediate_size': 80,
  'num_hidden_layers': 3,
  'num_attention_heads': 4,
}
_B, _T = 2, 16
_LLAMA_8B = 'meta-llama/Llama-3.1-8B-Instruct'


def _measured(kind, config) -> int:
  """Matmul FLOPs of one forward pass of a random network."""
  config._attn_implementation = 'eager'
  model = kind(config).eval()
  ids = torch.ones((_B, _T), dtype=torch.long)
  with torch.no_grad(), flop_counter.FlopCounterMode(display=False) as counter:
    model(ids)
  return counter.get_total_flops()


def _counted(config) -> int:
  """Of all tokens and of all pairs: eager attention leaves none out."""
  tokens = _B * _T * counting.flops_per_token(config)
  return tokens + _B * _T * _T * counting.flops_per_pair(config)


@pytest.mark.parametrize(
  'name, kind, fields',
  [
    ('Llama', 'CausalLM', {'num_key_value_heads': 2}),
    ('Qwen2', 'CausalLM', {'num_key_value_heads': 1}),
    ('Gemma2', 'CausalLM', {'num_key_value_heads': 2, 'head_dim': 16}),
    ('Llama', 'SequenceClassification', {'num_labels': 1}),
  ],
)
def test_a_decoder(name, kind, fields):
  config = getattr(transformers, f'{name}Config')(
    pad_token_id=0, **_SIZES, **fields
  )
  ours = decoder_config.from_hf(
    config.to_dict() | {'architectures': [f'{name}For{kind}']}
  )
  heads = _B * _T * counting.head_flops(ours)
  measured = _measured(getattr(transformers, f'{name}For{kind}'), config)
  assert measured == _counted(ours) + heads


def test_a_bert():
  config = transformers.BertConfig(**_SIZES)
  ours = encoder_config.from_hf(config.to_dict())
  pooler = 2 * _B * 32 * 32
  assert _measured(transformers.BertModel, config) == _counted(ours) + pooler


def test_deberta_with_as_many_positions_as_keys():
  """Its table is projected per layer for a batch of any size: not a token's."""
  config = transformers.DebertaV2Config(
    **_SIZES,
    **{
      'relative_attention': True,
      'position_buckets': _T // 2,
      'pos_att_type': ['p2c', 'c2p'],
      'share_att_key': True,
      'norm_rel_ebd': 'layer_norm',
      'position_biased_input': False,
      'type_vocab_size': 0,
      'num_labels': 1,
    },
  )
  ours = deberta.from_hf(config.to_dict())
  # Queries' and keys' projections; the head's two layers.
  apart = 3 * 2 * 2 * _T * 32 * 32 + 2 * _B * 32 * 33
  kind = transformers.DebertaV2ForSequenceClassification
  assert _measured(kind, config) == _counted(ours) + apart


def test_a_token_uses_the_published_parameters_of_experts():
  """Qwen3's name: 22 billion active, embedding and head among them."""
  config = catalog.CATALOG['Qwen/Qwen3-235B-A22B'].config
  tables = 2 * config.vocab_size * config.width
  active = counting.flops_per_token(config) / 2 + tables
  assert active == pytest.approx(22e9, rel=0.01)
  dense = counting.flops_per_token(
    dataclasses.replace(config, experts_per_token=128)
  )
  assert dense / 2 + tables == pytest.approx(235.1e9, rel=0.001)


def test_bytes_that_a_step_reads():
  config = catalog.CATALOG[_LLAMA_8B].config
  # All weights but norms and the table that is looked up.
  norms = (2 * config.num_layers + 1) * config.width
  table = config.vocab_size * config.width
  count = params_lib.count(catalog.weights(config)) - norms - table
  assert counting.weight_bytes(config, 'bfloat16', 1) == 2 * count
  assert counting.weight_bytes(config, 'int8', 1) == count
  assert counting.cache_bytes(config, 'bfloat16') == 128 * 1024
  assert counting.cache_bytes(config, 'int8') == 128 * 1024
  assert counting.cache_bytes(config, 'float32') == 256 * 1024


def test_a_batch_reads_the_experts_that_its_tokens_chose():
  config = catalog.CATALOG['Qwen/Qwen3-235B-A22B'].config
  one, many, all_of_them = (
    counting.weight_bytes(config, 'bfloat16', n) for n in (1, 16, 10**6)
  )
  flops = counting.flops_per_token(config) + counting.head_flops(config)
  assert one == pytest.approx(flops, rel=1e-9)  # Two bytes, two operations.
  assert all_of_them == pytest.approx(
    2 * (235.1e9 - config.vocab_size * config.width), rel=0.001
  )
  experts = all_of_them - one
  missed = (1 - 8 / 128) ** 16 - (1 - 8 / 128) ** 10**6
  share = 1 - 8 / 128  # Of experts, beyond those of one token.
  assert all_of_them - many == pytest.approx(experts / share * missed, rel=1e-9)


def test_pairs_of_causal_attention():
  assert counting.causal_pairs(3) == 1 + 2 + 3
  assert counting.causal_pairs(3, before=5) == 6 + 7 + 8
