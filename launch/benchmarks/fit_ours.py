"""Our ridge fits, as launch.fit runs them, and the prompts that they are of."""

import functools
import math
import mmap
import os
import tempfile
import time

import numpy as np

from erp_jax.probe import moments, ridge, streaming
from launch.benchmarks import contest

PENALTIES = tuple(float(f'{10**x:.4g}') for x in np.linspace(-3, 1.5, 10))


def problem(work, num: int, part: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """emb_NE, float32 of length 1, and reward_NM."""
  rng = np.random.default_rng((work.seed, part))
  scale_E = (1 + np.arange(work.width, dtype=np.float32)) ** -0.5
  emb_NE = rng.standard_normal((num, work.width), np.float32) * scale_E + 0.05
  emb_NE /= np.linalg.norm(emb_NE, axis=1, keepdims=True)
  theta_EM = np.random.default_rng(work.seed).normal(
    size=(work.width, work.num_targets)
  )
  noise_NM = rng.normal(size=(num, work.num_targets))
  # Targets of unlike noise want unlike penalties.
  return emb_NE, emb_NE @ theta_EM + noise_NM * np.geomspace(
    0.1, 3, work.num_targets
  )


def prepare_one(part):
  """Fits by one penalty."""
  emb_NE, reward_NM = problem(part.work, part.num)
  num, width = emb_NE.shape
  columns = part.work.num_targets

  def run() -> contest.Work:
    for _ in range(part.repeats):
      probe = ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig())
    # Half of a symmetric product, the other ones, and Cholesky's solution.
    flops = num * width**2 + 2 * num * width * columns + width**3 / 3
    return contest.Work(
      part.repeats,
      part.repeats * flops,
      detail={'theta': float(probe.theta_EM[0, 0])},
    )

  return run


def prepare_path(part):
  """Fits by each target's penalty of the least leave-one-out error."""
  emb_NE, reward_NM = problem(part.work, part.num)
  cfg = ridge.RidgeConfig(selection='leave_one_out', betas=PENALTIES)

  def run() -> contest.Work:
    for _ in range(part.repeats):
      probe = ridge.fit(emb_NE, reward_NM, cfg)
    return contest.Work(
      part.repeats, detail=chosen(probe.beta_M, probe.loo_mse_AM.min(0))
    )

  return run


def chosen(beta_M: np.ndarray, loo_mse_M: np.ndarray) -> dict[str, list[float]]:
  """Each target's penalty and leave-one-out error, for whoever compares."""
  return {
    'penalties': beta_M.tolist(),
    'leave_one_out': [float(f'{mse:.10g}') for mse in loo_mse_M],
  }


class _Shards:
  """Files, mapped into memory one after another; they end with the process."""

  def __init__(self, work, num: int):
    self._shape = work.shard_rows, work.width
    self._files = [
      _write(problem(work, work.shard_rows, i)) for i in range(num)
    ]

  def __iter__(self):
    size = math.prod(self._shape)
    for file in self._files:
      data = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
      emb = np.frombuffer(data, np.float32, size)
      reward = np.frombuffer(data, np.float64, offset=emb.nbytes)
      yield emb.reshape(self._shape), reward.reshape(self._shape[0], -1)


def _write(arrays: tuple[np.ndarray, ...]) -> int:
  """The descriptor of a file without a name."""
  file, name = tempfile.mkstemp()
  os.unlink(name)
  with open(file, 'wb', closefd=False) as f:
    for array in arrays:
      f.write(array.tobytes())
  return file


def prepare_stream(part):
  """Shards in files, which the work reads."""
  work = part.work
  num_prompts = part.num * work.shard_rows
  shards = _Shards(work, part.num)
  fit = functools.partial(
    streaming.fit_stream,
    cfg=ridge.RidgeConfig(),
    stream=moments.StreamConfig(dtype=work.stream_dtype),
  )
  size = work.width + work.num_targets

  def run() -> contest.Work:
    start = time.perf_counter()
    solution = fit(shards)
    secs = time.perf_counter() - start
    return contest.Work(
      num_prompts,
      # Of a matmul: a symmetric product needs half, and ours does 5/8.
      flops=2 * num_prompts * size**2,
      detail={
        'condition': float(solution.condition_M.max()),
        'gib_of_shards': num_prompts * work.width * 4 / 2**30,
        'extrapolated_secs_of_1e7': secs * 1e7 / num_prompts,
      },
    )

  return run
