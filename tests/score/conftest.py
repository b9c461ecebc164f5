"""Tiny reward models as their authors save them, every parameter random."""

import copy
import functools
import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

_SPECIAL = ['<pad>', '<eos>', '<bos>', '<start_of_turn>', '<end_of_turn>']
_BOS = 2
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_VOCAB = len(_SPECIAL) + len(_LETTERS) + 3
_REWARD_TOKEN = _VOCAB - 1
_CHAT = (
  "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] +"
  " '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)
_FIELDS = {
  'vocab_size': _VOCAB,
  'hidden_size': 48,
  'intermediate_size': 80,
  'num_hidden_layers': 2,
  'num_attention_heads': 6,
  'num_key_value_heads': 2,
  'head_dim': 16,
  'max_position_embeddings': 512,
  'rms_norm_eps': 1e-5,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 5000.0},
  'bos_token_id': _BOS,
  'eos_token_id': 1,
  'pad_token_id': 0,
  'num_labels': 1,
  'attn_implementation': 'eager',
}
_FAMILIES = {
  'Gemma': {'num_attention_heads': 4, 'num_key_value_heads': 1},
  'Gemma2': {'sliding_window': 30, 'attn_logit_softcapping': 2.0},
  'Gemma3Text': {'sliding_window': 30, 'query_pre_attn_scalar': 9},
  'Llama': {},
  'Qwen2': {},
  'Qwen3': {},
  'Qwen3Moe': {
    'num_experts': 5,
    'num_experts_per_tok': 2,
    'moe_intermediate_size': 24,
    'norm_topk_prob': True,
  },
}


def _save_tokenizer(folder):
  """Bytes and Gemma's control tokens; it puts <bos> before every text."""
  vocab = [*_SPECIAL, *_LETTERS]
  core = tokenizers.Tokenizer(
    models.BPE({token: i for i, token in enumerate(vocab)}, [])
  )
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  core.add_special_tokens(_SPECIAL)
  core.post_processor = processors.TemplateProcessing(
    single='<bos> $A', special_tokens=[('<bos>', _BOS)]
  )
  _, transformers = _torch()
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    bos_token='<bos>',
    eos_token='<eos>',
    pad_token='<pad>',
  )
  fast.chat_template = _CHAT
  fast.save_pretrained(folder)


def _torch():
  """torch and transformers, which `make test-latest` does without."""
  import torch
  import transformers

  torch.set_num_threads(1)  # Its spinning threads cost more than they give.
  return torch, transformers


def _model(family):
  """A small torch model, every parameter random."""
  torch, transformers = _torch()
  fields = copy.deepcopy({**_FIELDS, **_FAMILIES[family]})
  config = getattr(transformers, f'{family}Config')(**fields)
  model = getattr(transformers, f'{family}ForSequenceClassification')(config)
  torch.manual_seed(0)
  model = model.eval().requires_grad_(False)
  for name, value in model.named_parameters():
    mean = 1.0 if 'norm' in name and 'Gemma' not in family else 0.0
    value.normal_(mean, 0.15)
  return model


@pytest.fixture(scope='session')
def saved(tmp_path_factory):
  """A function from a family to its torch model and the saved folder."""

  @functools.cache
  def save(family):
    folder = tmp_path_factory.mktemp('models') / family
    model = _model(family)
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return model, folder

  return save


@pytest.fixture(scope='session')
def internlm(saved, tmp_path_factory):
  """Llama's torch model, and its weights as internlm2-7b-reward has them."""
  from safetensors import torch as safetensors_torch

  torch, _ = _torch()
  model, _ = saved('Llama')
  folder = tmp_path_factory.mktemp('internlm')
  _save_tokenizer(folder)
  state = model.state_dict()
  G, W = _FIELDS['num_key_value_heads'], _FIELDS['head_dim']
  out = {
    'model.tok_embeddings.weight': state['model.embed_tokens.weight'],
    'model.norm.weight': state['model.norm.weight'],
    'v_head.weight': state['score.weight'],
  }
  for i in range(_FIELDS['num_hidden_layers']):
    layer = f'model.layers.{i}.'
    by_head = [
      state[f'{layer}self_attn.{x}_proj.weight'].reshape(G, -1, W, 48)
      for x in 'qkv'
    ]
    out[f'{layer}attention.wqkv.weight'] = torch.cat(by_head, 1).reshape(-1, 48)
    for name, other in (
      ('attention.wo', 'self_attn.o_proj'),
      ('attention_norm', 'input_layernorm'),
      ('ffn_norm', 'post_attention_layernorm'),
      ('feed_forward.w1', 'mlp.gate_proj'),
      ('feed_forward.w3', 'mlp.up_proj'),
      ('feed_forward.w2', 'mlp.down_proj'),
    ):
      out[f'{layer}{name}.weight'] = state[f'{layer}{other}.weight']
  safetensors_torch.save_file(
    {name: value.contiguous() for name, value in out.items()},
    folder / 'model.safetensors',
  )
  kept = (
    *('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers'),
    *('num_attention_heads', 'num_key_value_heads', 'head_dim'),
    *('max_position_embeddings', 'rms_norm_eps', 'bos_token_id'),
    *('eos_token_id', 'pad_token_id'),
  )
  config = {name: _FIELDS[name] for name in kept} | {
    'architectures': ['InternLM2ForRewardModel'],
    'auto_map': {'AutoModel': 'modeling_internlm2.InternLM2ForRewardModel'},
    'model_type': 'internlm2',
    'bias': False,
    'hidden_act': 'silu',
    'rope_theta': 5000.0,
    'rope_scaling': {'type': 'dynamic', 'factor': 2.0},
    'tie_word_embeddings': False,
    'reward_token_id': _REWARD_TOKEN,
  }
  (folder / 'config.json').write_text(json.dumps(config))
  return model, folder


@pytest.fixture(scope='session')
def deberta(tmp_path_factory):
  """The folder of a random DeBERTa reward model over letters."""
  torch, transformers = _torch()
  folder = tmp_path_factory.mktemp('deberta')
  pieces = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', *'abcdefghijklmnopqrstuvwxyz▁']
  core = tokenizers.Tokenizer(
    models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3)
  )
  core.add_special_tokens(pieces[:4])
  core.pre_tokenizer = pre_tokenizers.Metaspace()
  core.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 1), ('[SEP]', 2)]
  )
  core.save(str(folder / 'tokenizer.json'))
  config = transformers.DebertaV2Config(
    vocab_size=len(pieces),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    relative_attention=True,
    position_buckets=8,
    share_att_key=True,
    pos_att_type=['p2c', 'c2p'],
    norm_rel_ebd='layer_norm',
    position_biased_input=False,
    num_labels=1,
  )
  torch.manual_seed(0)
  model = transformers.DebertaV2ForSequenceClassification(config)
  model.requires_grad_(False)
  for param in model.parameters():
    param.normal_(0, 0.5)
  model.save_pretrained(folder)
  return folder
