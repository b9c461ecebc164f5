"""Every network on a mesh of eight CPU devices against a single device.

The devices are those of a process of its own, which runs this file.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.core import runtime, sharding
from erp_jax.models import cache as cache_lib
from erp_jax.models import deberta, decoder, decoder_weights, encoder
from erp_jax.models import params as params_lib

_TOLERANCE = 1e-5
_LLAMA = decoder.DecoderConfig(
  vocab_size=96,
  num_layers=2,
  width=32,
  mlp=64,
  heads=8,
  kv_heads=4,
  head_dim=8,
  max_position=64,
  norm_eps=1e-5,
  tied=False,
  rope_theta=10000.0,
)
_GEMMA = dataclasses.replace(
  _LLAMA,
  activation='gelu_tanh',
  embed_scaled=True,
  norm_plus_one=True,
  tied=True,
)
_GEMMA2 = dataclasses.replace(
  _GEMMA,
  post_norms=True,
  query_scale=0.3,
  attn_softcap=5.0,
  logit_softcap=3.0,
  window=4,
  windowed=(True, False),
)
_QWEN3 = dataclasses.replace(_LLAMA, qk_norm=True)
# Config, and the largest size of the model axis that divides its heads.
_DECODERS = {
  'llama': (_LLAMA, 8),
  'gemma1_one_kv_head': (dataclasses.replace(_GEMMA, kv_heads=1), 8),
  'gemma2': (_GEMMA2, 8),
  'gemma3': (
    dataclasses.replace(_GEMMA2, qk_norm=True, rope_local_theta=100.0),
    8,
  ),
  'internlm2_score': (
    dataclasses.replace(_LLAMA, qkv_fused=True, num_labels=1),
    8,
  ),
  'qwen2': (  # 28 heads over 4, as Qwen2.5 7B.
    dataclasses.replace(_LLAMA, qkv_bias=True, heads=28, mlp=84),
    7,
  ),
  'qwen3': (_QWEN3, 8),
  'qwen3_moe': (
    dataclasses.replace(
      _QWEN3,
      num_experts=8,
      experts_per_token=3,
      renormalize_experts=True,
      mlp=24,
    ),
    8,
  ),
  'smollm2': (  # 9 heads over 3, as SmolLM2.
    dataclasses.replace(_LLAMA, heads=9, kv_heads=3, mlp=72, tied=True),
    3,
  ),
}
_BERT = encoder.EncoderConfig(
  vocab_size=90,  # Not divided by 4, as BERT's own is not.
  num_layers=2,
  width=32,
  mlp=64,
  heads=8,
  norm_eps=1e-12,
  max_position=64,
  num_token_types=2,
)
_ENCODERS = {
  'bert': _BERT,
  'gte': dataclasses.replace(
    _BERT, rope_theta=1000.0, rope_divisor=1.1, gated=True
  ),
}
_DEBERTA = deberta.DebertaConfig(
  vocab_size=90,
  num_layers=2,
  width=32,
  mlp=64,
  heads=8,
  norm_eps=1e-7,
  buckets=8,
  max_distance=32,
)
_CASES = (*_DECODERS, *_ENCODERS, 'deberta')


@pytest.fixture(scope='module')
def differences() -> dict[str, dict[str, float]]:
  """Largest difference per case and mesh, from the process of eight."""
  root = pathlib.Path(__file__).parents[2]
  out = subprocess.run(
    [sys.executable, __file__],
    capture_output=True,
    text=True,
    cwd=root,
    env={
      **os.environ,
      'PYTHONPATH': str(root),
      # Compiling is most of the time; nothing here runs long enough to gain.
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8 '
      '--xla_backend_optimization_level=0',
    },
  )
  assert out.returncode == 0, out.stderr
  return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.parametrize('case', _CASES)
def test_a_mesh_computes_what_one_device_does(case, differences):
  assert len(differences[case]) == 1 + (case != 'smollm2')
  for mesh, difference in differences[case].items():
    assert difference <= _TOLERANCE, mesh


def test_weights_load_onto_a_mesh_as_onto_one_device(differences):
  assert len(differences['loaded']) == 6
  assert all(differences['loaded'].values()), differences['loaded']


def test_weights_and_caches_are_spread(differences):
  # Bytes on a device of the mesh (2, 4) over the bytes of all; norms are whole.
  assert 1 / 4 < differences['spread']['weights'] < 0.26
  assert differences['spread']['cache'] == pytest.approx(1 / 4)


def _run_deberta(params, cfg, token_BT, valid_BT):
  tables = deberta.distance_tables(params, cfg)
  return deberta.reward(params, tables, cfg, token_BT, valid_BT)


def _run_decoder(params, cfg, token_PT, token_PKT):
  """States of a prefill, and heads after scoring and one decode step."""
  P, K, T = token_PKT.shape
  hidden_PTD, cache = decoder.prefill(params, cfg, token_PT)
  len_P = jnp.arange(P) % 3 + token_PT.shape[1] - 2
  prefix = cache_lib.as_prefix(cache, len_P, token_PT.shape[1] + 1)
  suffix = decoder.empty_cache(cfg, P, K, T, jnp.float32)
  out = [hidden_PTD]
  for start, stop in ((0, T - 1), (T - 1, T)):  # Scoring, then decoding.
    num = stop - start
    seen_TS = np.arange(T) <= start + np.arange(num)[:, None]
    hidden_PKTD, suffix = decoder.extend(
      params,
      cfg,
      token_PKT[..., start:stop],
      jnp.broadcast_to(
        len_P[:, None, None] + start + jnp.arange(num), (P, K, num)
      ),
      prefix,
      suffix,
      start,
      jnp.broadcast_to(seen_TS, (P, K, num, T)),
    )
    head = (
      decoder.score(params, hidden_PKTD)
      if cfg.num_labels
      else decoder.logits(params, cfg, hidden_PKTD)
    )
    out += [hidden_PKTD, head]
  return out, suffix


def _case(name):
  """(declared weights, function of weights and inputs, inputs, sizes)."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.integers(0, 90, shape)
  if name in _DECODERS:
    cfg, sizes = _DECODERS[name]
    tree = decoder_weights.declare(cfg)
    return tree, cfg, _run_decoder, (draw(4, 9), draw(4, 3, 5)), sizes
  valid_BT = np.arange(12) < np.array([12, 5, 1, 9])[:, None]
  inputs = (draw(4, 12), valid_BT)
  if name == 'deberta':
    return deberta.weights(_DEBERTA), _DEBERTA, _run_deberta, inputs, 8
  cfg = _ENCODERS[name]
  run = lambda *args: jnp.where(valid_BT[..., None], encoder.encode(*args), 0)
  return encoder.weights(cfg), cfg, run, inputs, 8


def _compare(name) -> dict[str, float]:
  tree, cfg, run, inputs, largest = _case(name)
  is_param = lambda x: isinstance(x, params_lib.Param)
  values = jax.tree.map(  # Or attention sees no difference between keys.
    lambda param, x: 4 * x if param.is_matrix else x,
    tree,
    params_lib.init(tree, jax.random.key(0), jnp.float32),
    is_leaf=is_param,
  )
  run = jax.jit(run, static_argnums=1)
  want = jax.device_get(run(values, cfg, *inputs))
  result = {}
  # SmolLM2's nine heads do not divide by two.
  sizes = [largest] if name == 'smollm2' else [2, largest]
  for model in sizes:
    mesh = sharding.make_mesh(8 // model, model)
    with jax.set_mesh(mesh):
      placed = jax.device_put(values, params_lib.shardings(tree, mesh))
      got = run(placed, cfg, *inputs)
    pairs = zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True)
    result[f'{8 // model} x {model}'] = max(
      float(np.abs(np.asarray(w) - np.asarray(g)).max()) for w, g in pairs
    )
  return result


def _loaded() -> dict[str, bool]:
  """Whether weights loaded onto meshes are those loaded onto one device."""
  result = {}
  for name, model in (('llama', 8), ('internlm2_score', 2), ('qwen3_moe', 4)):
    tree = _case(name)[0]
    values = params_lib.init(tree, jax.random.key(0), jnp.float32)
    tensors = dict(params_lib.to_tensors(tree, values))
    for dtype, int8 in ((jnp.float32, False), (jnp.bfloat16, True)):
      want = params_lib.load(tree, tensors, dtype, int8=int8)
      with jax.set_mesh(sharding.make_mesh(8 // model, model)):
        got = params_lib.load(tree, tensors, dtype, int8=int8)
      pairs = zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True)
      result[f'{name} {jnp.dtype(dtype).name}'] = all(
        np.array_equal(np.asarray(w), np.asarray(g)) for w, g in pairs
      )
  return result


def _spread() -> dict[str, float]:
  """Share of weights and cache on one of eight devices."""
  tree = decoder_weights.declare(_LLAMA)
  values = params_lib.init(tree, jax.random.key(0), jnp.float32)
  tensors = dict(params_lib.to_tensors(tree, values))

  def share(arrays):
    held = sum(x.addressable_shards[0].data.nbytes for x in arrays)
    return held / sum(x.nbytes for x in arrays)

  with jax.set_mesh(sharding.make_mesh(2, 4)):
    loaded = params_lib.load(tree, tensors, jnp.float32)
    cache = jax.jit(
      lambda: decoder.empty_cache(_LLAMA, 3, 2, 16, jnp.float32)
    )()
  return {
    'weights': share(jax.tree.leaves(loaded)),
    'cache': share([cache.key_LPKGWS, cache.value_LPKGSW]),
  }


if __name__ == '__main__':
  assert jax.device_count() == 8
  runtime.start(runtime.RuntimeConfig())
  results = {name: _compare(name) for name in _CASES}
  results |= {'loaded': _loaded(), 'spread': _spread()}
  sys.stdout.write(json.dumps(results) + '\n')
