"""Declared weights against torch's layout and published counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.core import errors, sharding
from erp_jax.models import decoder, decoder_weights, params

TREE = {
  'w_LDHW': params.Param(
    (2, 4, 3, 2), ('layers', 'embed', 'heads', None), 'h.{layer}.w', 1
  ),
  'w_LHWD': params.Param(
    (2, 3, 2, 4), ('layers', 'heads', None, 'embed'), 'h.{layer}.o', 2
  ),
  'b_LHW': params.Param((2, 3, 2), ('layers', 'heads', None), 'h.{layer}.b', 0),
  'norm_D': params.Param((4,), ('embed',), 'norm', mean=1.0, std=0.1),
}

LLAMA_8B = decoder.DecoderConfig(
  vocab_size=128256,
  num_layers=32,
  width=4096,
  mlp=14336,
  heads=32,
  kv_heads=8,
  head_dim=128,
  rope_theta=500000.0,
  norm_eps=1e-5,
  tied=False,
  max_position=131072,
)
LLAMA_70B = dataclasses.replace(
  LLAMA_8B, num_layers=80, width=8192, mlp=28672, heads=64
)
SMOLLM2 = dataclasses.replace(
  LLAMA_8B,
  vocab_size=49152,
  num_layers=30,
  width=576,
  mlp=1536,
  heads=9,
  kv_heads=3,
  head_dim=64,
  tied=True,
)


class Reader(dict):
  """Tensors that remember which were read."""

  def __init__(self, tensors):
    super().__init__(tensors)
    self.reads = []

  def __getitem__(self, name):
    self.reads.append(name)
    return super().__getitem__(name)


def _torch_tensors() -> Reader:
  rng = np.random.default_rng(0)
  tensors = {'norm': rng.normal(size=4)}
  for i in range(2):
    tensors[f'h.{i}.w'] = rng.normal(size=(6, 4))
    tensors[f'h.{i}.o'] = rng.normal(size=(4, 6))
    tensors[f'h.{i}.b'] = rng.normal(size=6)
  return Reader({name: x.astype(np.float32) for name, x in tensors.items()})


def test_load_computes_what_torch_linear_computes():
  tensors = _torch_tensors()
  values = params.load(TREE, tensors, jnp.float32)
  assert set(tensors.reads) == set(tensors)
  x_D = np.arange(4.0)
  for i in range(2):
    # torch: y = W x + b on [out, in]; heads are blocks of the output.
    want_Y = tensors[f'h.{i}.w'] @ x_D + tensors[f'h.{i}.b']
    got_HW = np.einsum('D,DHW->HW', x_D, values['w_LDHW'][i])
    got_HW = got_HW + values['b_LHW'][i]
    np.testing.assert_allclose(got_HW.ravel(), want_Y, rtol=1e-5)
    back_D = np.einsum('HW,HWD->D', got_HW, values['w_LHWD'][i])
    np.testing.assert_allclose(back_D, tensors[f'h.{i}.o'] @ want_Y, rtol=1e-4)


def test_to_tensors_inverts_load():
  values = params.init(TREE, jax.random.key(0), jnp.float32)
  tensors = dict(params.to_tensors(TREE, values))
  assert tensors['h.1.w'].shape == (6, 4)
  again = params.load(TREE, tensors, jnp.float32)
  jax.tree.map(np.testing.assert_array_equal, values, again)


def test_load_casts_to_the_dtype_asked_for():
  tensors = _torch_tensors()
  values = params.load(TREE, tensors, jnp.bfloat16)
  want = jnp.asarray(tensors['norm']).astype(jnp.bfloat16)
  assert values['norm_D'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(values['norm_D'], want)


def test_load_refuses_a_missing_tensor():
  tensors = _torch_tensors()
  del tensors['h.1.o']
  with pytest.raises(errors.UserError, match=r'lacks h\.1\.o; .* nothing'):
    params.load(TREE, tensors, jnp.float32)


def test_load_refuses_an_extra_tensor_unless_ignored():
  tensors = Reader({**_torch_tensors(), 'h.2.w': np.zeros((6, 4))})
  with pytest.raises(errors.UserError, match=r'holds h\.2\.w, which'):
    params.load(TREE, tensors, jnp.float32)
  params.load(TREE, tensors, jnp.float32, ignored=('h.2.*',))
  assert 'h.2.w' not in tensors.reads


@pytest.mark.parametrize('name', ['h.1.w', 'h.0.b', 'norm'])
def test_load_refuses_a_misshapen_tensor(name):
  tensors = _torch_tensors()
  tensors[name] = np.swapaxes(tensors[name][None], 0, -1)
  with pytest.raises(errors.UserError, match=f'tensor {name} has shape'):
    params.load(TREE, tensors, jnp.float32)


def test_init_randomises_norms_and_biases_by_name():
  values = params.init(TREE, jax.random.key(0), jnp.float32)
  assert np.ptp(values['norm_D']) > 0.01
  assert abs(np.mean(values['norm_D']) - 1) < 0.3
  assert np.ptp(values['b_LHW']) > 0.001
  alone = params.init({'z': TREE['b_LHW']}, jax.random.key(0), jnp.float32)
  np.testing.assert_array_equal(alone['z'], values['b_LHW'])
  other = params.init(TREE, jax.random.key(1), jnp.float32)
  assert not np.array_equal(other['b_LHW'], values['b_LHW'])


# Instantiated on torch's meta device from the published configs.
@pytest.mark.parametrize(
  ('cfg', 'count'),
  [
    (LLAMA_8B, 8_030_261_248),
    (LLAMA_70B, 70_553_706_496),
    (SMOLLM2, 134_515_008),
  ],
)
def test_count_is_exact(cfg, count):
  assert params.count(decoder_weights.declare(cfg)) == count


def test_shardings_follow_the_rules_and_refuse_what_does_not_divide():
  devices = jax.sharding.AbstractMesh((2, 4), ('data', 'model'))
  specs = params.shardings(decoder_weights.declare(LLAMA_8B), devices)
  assert specs['layers']['wq_LDHW'].spec == jax.P(None, None, 'model', None)
  assert specs['layers']['down_LFD'].spec == jax.P(None, 'model', None)
  assert specs['embed_VD'].spec == jax.P('model', None)
  assert specs['layers']['mlp_norm_LD'].spec == jax.P(None, None)
  with pytest.raises(errors.UserError, match='divide the 9 heads.* 1, 3'):
    params.shardings(decoder_weights.declare(SMOLLM2), devices)


def test_load_puts_weights_on_the_mesh_in_force():
  mesh = sharding.make_mesh(1, 1)
  with jax.set_mesh(mesh):
    values = params.load(TREE, _torch_tensors(), jnp.float32)
  assert values['w_LDHW'].sharding.mesh == mesh


@pytest.mark.parametrize(('data', 'model'), [(0, 1), (1, 4096)])
def test_make_mesh_refuses_what_does_not_fit(data, model):
  with pytest.raises(errors.UserError, match=f'data={data} x model={model}'):
    sharding.make_mesh(data, model)
