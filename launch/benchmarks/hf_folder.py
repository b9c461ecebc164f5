"""A checkpoint of ours as what peers read: a folder, or a GGUF file."""

import json
import pathlib
import shutil
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from erp_jax.models import (
  catalog,
  checkpoint,
  decoder,
  decoder_weights,
  encoder,
)
from erp_jax.models import params as params_lib


def write(name: str, folder: pathlib.Path, dtype: str) -> None:
  """config.json and model.safetensors of a Llama-like decoder."""
  model, params, _ = checkpoint.load_decoder(name, jnp.dtype(dtype))
  tensors = dict(params_lib.to_tensors(decoder_weights.declare(model), params))
  safetensors.numpy.save_file(
    tensors, folder / 'model.safetensors', {'format': 'pt'}
  )
  text = json.dumps({'architectures': ['LlamaForCausalLM'], **config(model)})
  (folder / 'config.json').write_text(text)


def config(model: decoder.DecoderConfig) -> dict[str, Any]:
  """transformers' config of a Llama-like decoder, or of a Gemma 2."""
  made = {
    'model_type': 'llama',
    'vocab_size': model.vocab_size,
    'hidden_size': model.width,
    'intermediate_size': model.mlp,
    'num_hidden_layers': model.num_layers,
    'num_attention_heads': model.heads,
    'num_key_value_heads': model.kv_heads,
    'head_dim': model.head_dim,
    'max_position_embeddings': model.max_position,
    'rms_norm_eps': model.norm_eps,
    'rope_theta': model.rope_theta,
    'tie_word_embeddings': model.tied,
  }
  if not model.post_norms:
    return made
  kinds = ('full_attention', 'sliding_attention')
  return made | {
    'model_type': 'gemma2',
    'hidden_activation': 'gelu_pytorch_tanh',
    'query_pre_attn_scalar': round(model.query_scale**-2),
    'attn_logit_softcapping': model.attn_softcap,
    'final_logit_softcapping': model.logit_softcap,
    'sliding_window': model.window,
    'layer_types': [kinds[windowed] for windowed in model.windowed],
  }


def write_gte(folder: pathlib.Path, source: str, seed: int) -> None:
  """gte-large's shape with random float32 weights, and another's tokenizer."""
  cfg = catalog.CATALOG['Alibaba-NLP/gte-large-en-v1.5'].config
  declared = encoder.weights(cfg)
  params = params_lib.init(declared, jax.random.key(seed), jnp.float32)
  safetensors.numpy.save_file(
    dict(params_lib.to_tensors(declared, params)),
    folder / 'model.safetensors',
    {'format': 'pt'},
  )
  config = {
    'architectures': ['GteModel'],
    'model_type': 'gte',
    'vocab_size': cfg.vocab_size,
    'hidden_size': cfg.width,
    'intermediate_size': cfg.mlp,
    'num_hidden_layers': cfg.num_layers,
    'num_attention_heads': cfg.heads,
    'max_position_embeddings': cfg.max_position,
    'layer_norm_eps': cfg.norm_eps,
    'type_vocab_size': cfg.num_token_types,
    'pad_token_id': 0,
    'rope_parameters': {
      'rope_type': 'linear',
      'rope_theta': cfg.rope_theta,
      'factor': cfg.rope_divisor,
    },
  }
  (folder / 'config.json').write_text(json.dumps(config))
  for file in checkpoint.open_checkpoint(source).path.glob('*token*.json'):
    shutil.copy(file, folder)


def write_gguf(source: pathlib.Path, file: pathlib.Path, kind: str) -> None:
  """The same GGUF file with its matrices of one kind, such as BF16 or Q4_0."""
  reader = gguf.GGUFReader(source)
  writer = gguf.GGUFWriter(file, 'llama')
  for field in reader.fields.values():
    if field.name.startswith('GGUF.') or field.name in (
      'general.architecture',
      'general.file_type',
      'general.quantization_version',
    ):
      continue
    of = field.types[0]
    sub = field.types[-1] if of == gguf.GGUFValueType.ARRAY else None
    writer.add_key_value(field.name, field.contents(), of, sub_type=sub)
  stored = gguf.GGMLQuantizationType[kind]
  for tensor in reader.tensors:
    value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if value.ndim == 2:
      writer.add_tensor(
        tensor.name, gguf.quants.quantize(value, stored), raw_dtype=stored
      )
    else:
      writer.add_tensor(tensor.name, value.astype(np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
