"""What the device reaches at best: a large matmul, a large copy."""

import time

import jax
import jax.numpy as jnp

from launch.benchmarks import contest

_REPEATS = 5


def contender(dtype: str) -> contest.Contender:
  """Measures in every round, beside those whose limit it gives."""
  return contest.Contender(f'ceilings {dtype}', '.ceilings:prepare', dtype)


def prepare(dtype: str):
  """Work.flops and .bytes are what the device does in a second, at best."""
  on_cpu = jax.default_backend() == 'cpu'
  size = 2048 if on_cpu else 8192
  num_bytes = 2**28 if on_cpu else 2**32
  jax.config.update('jax_enable_x64', dtype == 'float64')
  x = jnp.ones((size, size), dtype)
  # 16-bit floats are summed in float32, as in our networks.
  multiply = jax.jit(
    lambda x_MK, y_KN: jnp.einsum(
      'MK,KN->MN',
      x_MK,
      y_KN,
      preferred_element_type=jnp.promote_types(dtype, jnp.float32),
    )
  )
  # In place: a fresh result would measure the system's paging instead.
  add = jax.jit(lambda x: x + 1, donate_argnums=0)
  state = [jnp.zeros(num_bytes // 4, jnp.float32)]

  def copy():
    state[0] = add(state[0])
    return state[0]

  def run() -> contest.Work:
    flops = 2 * size**3 / _best(lambda: multiply(x, x))
    return contest.Work(1, flops, 2 * num_bytes / _best(copy))

  return run


def _best(step) -> float:
  """Seconds of the fastest repeat."""
  secs = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    step().block_until_ready()
    secs.append(time.perf_counter() - start)
  return min(secs)
