"""Bits are the values of another dtype's name, and only where they help."""

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.models import bits


def test_bits_are_the_values():
  x_N = jnp.asarray([0.0, -0.0, 1.5, -3e38, 1e-40, jnp.inf], jnp.bfloat16)
  tree = {'half': x_N, 'whole': jnp.arange(3.0), 'id': jnp.arange(3)}
  packed = bits.pack(tree)
  assert packed['half'].dtype == bits.stored(jnp.bfloat16)
  assert packed['whole'].dtype == jnp.float32
  assert packed['id'].dtype == jnp.int32
  again = bits.unpack(packed)
  assert again['half'].dtype == jnp.bfloat16
  np.testing.assert_array_equal(
    np.asarray(again['half']).view(np.uint16), np.asarray(x_N).view(np.uint16)
  )


def test_no_copy_of_a_stack_of_bits():
  """What it is for: of bfloat16 the whole stack is made float32."""

  def total(stack_LN):
    def add(sum_N, x_N):
      return sum_N + bits.unpack(x_N).astype(jnp.float32), None

    return jax.lax.scan(add, jnp.zeros(stack_LN.shape[1]), stack_LN)[0]

  def bytes_of(stack_LN):
    compiled = jax.jit(total).lower(stack_LN).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  stack_LN = jnp.ones((64, 4096), jnp.bfloat16)
  assert bytes_of(bits.pack(stack_LN)) < stack_LN.nbytes / 8
