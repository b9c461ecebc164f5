"""Tensors of GGUF files and of InternLM2 under the names of the hub's Llama.

Renaming is a dict; where a file also keeps values in another order or shifted,
they are put right as they are read.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from erp_jax.core import errors
from erp_jax.models import decoder, lazy_tensor

_LAYER = re.compile(r'(?:blk|model\.layers)\.(\d+)\.(.+)')
_GGUF = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
_GGUF_LAYER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
# Where there are four norms, the one before the MLP has a name of its own.
_GGUF_POST_NORMS = {
  'ffn_norm': 'pre_feedforward_layernorm',
  'post_attention_norm': 'post_attention_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}
_INTERNLM2 = {
  'model.tok_embeddings.weight': 'model.embed_tokens.weight',
  'output.weight': 'lm_head.weight',
  'v_head.weight': 'score.weight',
}
_INTERNLM2_LAYER = {
  'attention.wqkv': 'self_attn.qkv_proj',
  'attention.wo': 'self_attn.o_proj',
  'attention_norm': 'input_layernorm',
  'ffn_norm': 'post_attention_layernorm',
  'feed_forward.w1': 'mlp.gate_proj',
  'feed_forward.w3': 'mlp.up_proj',
  'feed_forward.w2': 'mlp.down_proj',
}


class Renamed(Mapping[str, Any]):
  """Tensors by other names; `mend(name, tensor)` is applied to each."""

  def __init__(
    self,
    tensors: Mapping[str, Any],
    rename: Callable[[str], str],
    mend: Callable[[str, Any], Any] = lambda name, tensor: tensor,
  ):
    self._tensors = tensors
    self._name_of: dict[str, str] = {}
    self._mend = mend
    for name in tensors:
      other = self._name_of.setdefault(rename(name), name)
      if other != name:
        raise errors.UserError(
          f'the checkpoint holds {other} and {name}, which are one weight: '
          'fetch it again, or remove one.'
        )

  def __getitem__(self, name: str) -> Any:
    return self._mend(name, self._tensors[self._name_of[name]])

  def __iter__(self) -> Iterator[str]:
    return iter(self._name_of)

  def __len__(self) -> int:
    return len(self._name_of)


def from_gguf(
  tensors: Mapping[str, Any], cfg: decoder.DecoderConfig, architecture: str
) -> Renamed:
  """Tensors of a GGUF file by the hub's names, with the hub's values."""
  layer_names = {**_GGUF_LAYER, **(_GGUF_POST_NORMS if cfg.post_norms else {})}

  def mend(name, tensor):
    # Only llama's files pair rows (2i, 2i + 1) of a head for interleaved RoPE.
    if architecture == 'llama' and name.endswith(
      ('.q_proj.weight', '.k_proj.weight')
    ):
      return _half_split(tensor, cfg.head_dim)
    # Gemma's norms have the 1 added that the network adds.
    if cfg.norm_plus_one and name.endswith('norm.weight'):
      return _minus_one(tensor)
    return tensor

  return Renamed(tensors, _renamer(_GGUF, layer_names), mend)


def from_internlm2(tensors: Mapping[str, Any]) -> Renamed:
  """Tensors of an InternLM2 checkpoint by the hub's Llama names."""
  return Renamed(tensors, _renamer(_INTERNLM2, _INTERNLM2_LAYER))


def join_query_key_value(tensors: Mapping[str, Any]) -> dict[str, Any]:
  """BERT's three linear maps of a layer as one, their rows one after another.

  `…self.query_key_value.weight` and `.bias`, as gte's checkpoints have it.
  """
  found = dict(tensors)
  for name in tensors:
    parts = [
      name.replace('.self.query.', f'.self.{kind}.')
      for kind in ('query', 'key', 'value')
    ]
    if len(set(parts) & found.keys()) == 3:
      joined = name.replace('.self.query.', '.self.query_key_value.')
      found[joined] = _join([found.pop(part) for part in parts])
  return found


def _renamer(names, layer_names) -> Callable[[str], str]:
  def rename(name):
    if match := _LAYER.fullmatch(name):
      stem, dot, kind = match[2].rpartition('.')
      if stem in layer_names:
        return f'model.layers.{match[1]}.{layer_names[stem]}{dot}{kind}'
    return names.get(name, name)

  return rename


def _half_split(tensor, head_dim: int) -> lazy_tensor.LazyTensor:
  """Rows of each head from interleaved pairs to the hub's halves."""
  block = head_dim * tensor.shape[-1]

  def read(start, stop):
    first, last = start // block, -(-stop // block)
    rows = tensor.read(first * block, last * block)
    pairs = rows.reshape(last - first, head_dim // 2, 2, -1)
    flat = pairs.swapaxes(1, 2).ravel()
    return flat[start - first * block : stop - first * block]

  return dataclasses.replace(tensor, read=read)


def _minus_one(tensor) -> lazy_tensor.LazyTensor:
  return dataclasses.replace(
    tensor, read=lambda start, stop: tensor.read(start, stop) - np.float32(1)
  )


def _join(parts) -> lazy_tensor.LazyTensor:
  """The tensors as one, along their first axis."""
  flat = [part.reshape((math.prod(part.shape),)) for part in parts]
  ends = np.cumsum([part.shape[0] for part in flat]).tolist()

  def read(start, stop):
    pieces = []
    for part, end in zip(flat, ends, strict=True):
      first = end - part.shape[0]
      index = slice(max(start - first, 0), max(stop - first, 0))
      pieces.append(part[(index,)])
    return np.concatenate(pieces)

  shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
  return lazy_tensor.LazyTensor(shape, parts[0].dtype, read)
