"""Loading piece by piece: values, layouts on a mesh, and peak memory."""

import json
import logging
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from erp_jax.core import sharding
from erp_jax.models import (
  decoder_config,
  decoder_weights,
  lazy_tensor,
  params,
  safetensors_file,
  streaming,
)

# (layout, shape of a tensor in the file, what turns it into our part)
_LAYOUTS = {
  'inputs_first': (
    streaming.Layout((3,), (4,), (5, 2)),
    (10, 4),
    lambda x: x.T.reshape(4, 5, 2),
  ),
  'two_inputs': (
    streaming.Layout((3,), (5, 2), (4,)),
    (4, 10),
    lambda x: x.T.reshape(5, 2, 4),
  ),
  'experts': (
    streaming.Layout((2, 3), (4,), (6,)),
    (6, 4),
    lambda x: x.T,
  ),
  'table': (streaming.Layout((), (4,), (7,), as_is=True), (7, 4), lambda x: x),
  'bias': (
    streaming.Layout((3,), (), (5, 2)),
    (10,),
    lambda x: x.reshape(5, 2),
  ),
}


def _one_device(layout):
  """Everything on one device."""
  mesh = sharding.make_mesh(1, 1)
  return jax.NamedSharding(mesh, jax.P(*[None] * len(layout.shape)))


def _tensors(layout, shape):
  rng = np.random.default_rng(0)
  return {
    place: rng.normal(size=shape).astype(np.float32)
    for place in np.ndindex(*layout.lead)
  }


@pytest.mark.parametrize('piece_bytes', [1, 40, 100, 10_000])
@pytest.mark.parametrize('case', _LAYOUTS)
def test_pieces_of_any_size_make_up_the_array(case, piece_bytes, monkeypatch):
  monkeypatch.setattr(streaming, 'PIECE_BYTES', piece_bytes)
  layout, shape, ours = _LAYOUTS[case]
  tensors = _tensors(layout, shape)
  got = streaming.load(
    tensors.__getitem__, layout, _one_device(layout), jnp.float32, False
  )
  assert got.shape == layout.shape
  for place, tensor in tensors.items():
    np.testing.assert_array_equal(got[place], ours(tensor))


@pytest.mark.parametrize('case', ['inputs_first', 'two_inputs', 'table'])
def test_int8_keeps_each_channel_within_half_a_step(case, monkeypatch):
  monkeypatch.setattr(streaming, 'PIECE_BYTES', 100)
  layout, shape, ours = _LAYOUTS[case]
  tensors = _tensors(layout, shape)
  got = streaming.load(
    tensors.__getitem__, layout, _one_device(layout), jnp.bfloat16, True
  )
  assert got.value.dtype == jnp.int8 and got.dtype == jnp.bfloat16
  assert got.scale.shape == layout.lead + layout.outputs
  for place, tensor in tensors.items():
    # A channel of the file is a row, whose largest value becomes 127.
    largest = np.abs(tensor).max(axis=1, keepdims=True)
    want = np.round(tensor / largest * 127)
    assert np.abs(got.value[place] - ours(want)).max() <= 1
    np.testing.assert_allclose(
      np.ravel(got.scale[place]), largest[:, 0] / 127, rtol=1e-6
    )


def test_bfloat16_is_rounded_to_nearest():
  layout, shape, ours = _LAYOUTS['inputs_first']
  tensors = _tensors(layout, shape)
  got = streaming.load(
    tensors.__getitem__, layout, _one_device(layout), jnp.bfloat16, False
  )
  assert got.dtype == jnp.bfloat16
  want = ours(tensors[1,]).astype(ml_dtypes.bfloat16)
  np.testing.assert_array_equal(got[1], want)


def test_a_lazy_tensor_reads_what_numpy_would_and_no_more():
  array = np.arange(2 * 3 * 4 * 5.0).reshape(6, 20)
  ranges = []

  def read(start, stop):
    ranges.append((start, stop))
    return array.ravel()[start:stop]

  tensor = lazy_tensor.LazyTensor(array.shape, array.dtype, read)
  view, want = tensor.reshape((2, 3, 4, 5)), array.reshape(2, 3, 4, 5)
  for index in (
    (slice(1, 2),),
    (slice(0, 2), slice(1, 3)),
    (slice(0, 1), slice(2, 3), slice(1, 3), slice(0, 5)),
    (slice(0, 2), slice(0, 3), slice(0, 4), slice(2, 4)),
    (),
  ):
    ranges.clear()
    np.testing.assert_array_equal(view[index], want[index])
    assert sum(stop - start for start, stop in ranges) == want[index].size
  np.testing.assert_array_equal(np.asarray(tensor), array)


@pytest.mark.parametrize(
  ('case', 'split'), [('inputs_first', 2), ('two_inputs', 1), ('table', 0)]
)
def test_a_host_reads_only_what_its_devices_hold(case, split):
  layout, shape, ours = _LAYOUTS[case]
  tensors = _tensors(layout, shape)
  ranges = []

  def tensor_at(place):
    def read(start, stop):
      ranges.append(stop - start)
      return tensors[place].ravel()[start:stop]

    return lazy_tensor.LazyTensor(shape, np.dtype(np.float32), read)

  # The first of some devices that share one axis, a place of which it holds.
  bounds = [(0, size) for size in layout.shape]
  bounds[len(layout.lead) and split] = (0, 1)
  starts = (0,) * (len(layout.lead) + 1)
  rows = layout.split([stop for _, stop in bounds])[2][0]
  piece = streaming._read(tensor_at, layout, bounds, starts, 1, rows)
  index = tuple(slice(*b) for b in bounds[len(layout.lead) :])
  first = tensors[(0,) * len(layout.lead)]
  np.testing.assert_array_equal(piece[0], ours(first)[index])
  assert sum(ranges) == piece.size < first.size


_HF = {
  'architectures': ['LlamaForCausalLM'],
  'hidden_size': 4096,
  'intermediate_size': 14336,
  'num_hidden_layers': 4,
  'num_attention_heads': 32,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-5,
  'vocab_size': 32000,
  'max_position_embeddings': 8192,
  'tie_word_embeddings': False,
}
# Loads with and without int8; prints the bytes beyond arrays and baseline.
_MEASURE = """
import json, pathlib, sys
import jax, jax.numpy as jnp
from erp_jax.models import checkpoint

def resident(key):
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return 1024 * int(next(x for x in lines if x.startswith(key)).split()[1])

jnp.zeros(3).block_until_ready()
before = resident('VmRSS')
_, values, _ = checkpoint.load_decoder(sys.argv[1], jnp.dtype(sys.argv[2]))
arrays = sum(x.nbytes for x in jax.tree.leaves(jax.block_until_ready(values)))
print(json.dumps({
  'arrays': arrays,
  'beyond': resident('VmHWM') - before - arrays,
  'last': float(values['layers']['mlp_norm_LD'][-1, -1]),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_peak_memory_is_that_of_a_layers_tensor(dtype, tmp_path):
  size = _write_sparse(tmp_path)
  assert size > 2e9
  out = subprocess.run(
    [sys.executable, '-c', _MEASURE, str(tmp_path), dtype],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, 'XLA_FLAGS': ''},
  )
  got = json.loads(out.stdout.splitlines()[-1])
  largest = 4096 * 14336 * 2
  assert got['arrays'] > (2e9 if dtype == 'bfloat16' else 1.1e9)
  assert got['last'] == 1.5
  logging.getLogger(__name__).info(
    '%s: %.2f of the largest tensor', dtype, got['beyond'] / largest
  )
  assert got['beyond'] <= 1.1 * largest


def _write_sparse(folder) -> int:
  """A checkpoint of 2 GB, most of it holes; its size."""
  tree = decoder_weights.declare(decoder_config.from_hf(_HF))
  header, at, marked = {}, 0, 0
  for param in params.leaves(tree):
    for name in param.file_names():
      end = at + 2 * math.prod(param.file_shape)
      header[name] = {
        'dtype': 'BF16',
        'shape': param.file_shape,
        'data_offsets': [at, end],
      }
      if name == 'model.layers.3.post_attention_layernorm.weight':
        marked = end - 2
      at = end
  text = json.dumps(header).encode()
  with (folder / 'model.safetensors').open('wb') as file:
    file.write(len(text).to_bytes(8, 'little') + text)
    file.truncate(8 + len(text) + at)
    file.seek(8 + len(text) + marked)
    file.write(np.array(1.5, ml_dtypes.bfloat16).tobytes())
  (folder / 'config.json').write_text(json.dumps(_HF))
  files = safetensors_file.SafetensorsFiles([folder / 'model.safetensors'])
  assert len(files) == len(header)
  return at
