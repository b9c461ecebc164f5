"""Moments of prompts that arrive in shards, computed on the mesh in force.

A block of rows is centred about its own mean, and its Gram matrix is merged
into running totals with the rank-one correction of Chan, Golub and LeVeque.
Axis Y is features, then rewards: one product holds the features' Gram matrix,
the cross products and the rewards' second moments.

Totals are float64 on the host: a merge is one addition per block, little beside
the product, and exact enough for any number of shards. The device goes on
meanwhile: a few blocks are in flight.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from erp_jax.core import checkpoint, compare, errors, shapes, sharding, store
from erp_jax.probe import ridge

FORMAT_VERSION = 2

Shard = tuple[np.ndarray, np.ndarray]  # emb_NE, and reward_NM with NaN.

IN_FLIGHT = 4  # Blocks that the device may be behind: one takes 10 to 100 ms.
# Of a symmetric product, each without what is left of its diagonal: 5/8 of the
# operations. Twice as many take longer.
_STRIPS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
  """How shards are accumulated; a pattern takes (E + M)^2 x 8 bytes."""

  # Of the products. 'float32' is for devices without float64 of their own, as
  # TPUs: with it, fits of large condition numbers lose digits.
  dtype: str = 'float64'
  rows: int = 2048  # On the device at once; a larger shard is cut.
  # Sets of arms that prompts have rewards of: 31 are all sets of 5 arms.
  max_patterns: int = 32
  save_secs: float = 30.0  # Between two saves of the totals.

  def __post_init__(self):
    errors.check_choice('stream.dtype', self.dtype, ('float64', 'float32'))
    for name, least in (('rows', 16), ('max_patterns', 1), ('save_secs', 0)):
      errors.check_least(f'stream.{name}', getattr(self, name), least)


class Prepared(NamedTuple):
  """A shard that can be used.

  Attributes:
    emb_NE: as given.
    scale_N: 1 / the length of each, or 1 for raw ones.
    reward_NM: float64.
  """

  emb_NE: np.ndarray
  scale_N: np.ndarray
  reward_NM: np.ndarray


class Block(NamedTuple):
  """Rows for the device, the first `num`; the others are 0."""

  emb_BE: np.ndarray
  scale_B: np.ndarray  # In the config's dtype, and so are the next.
  reward_BM: np.ndarray
  num: int


class Moments(NamedTuple):
  """Of some prompts' features and rewards, float64."""

  num: int
  mean_Y: np.ndarray
  gram_YY: (
    np.ndarray
  )  # About the mean; in sums, only on and above the diagonal.


class Totals:
  """Moments of the prompts so far, for each pattern of arms with a reward.

  Attributes:
    embedding: 'unit' or 'raw'.
    cfg: as given.
    num_shards: how many were added.
    num_without: prompts without any reward, which are left out.
    width, num_columns: of embeddings and rewards; 0 before the first shard.
  """

  def __init__(self, embedding: str, cfg: StreamConfig, source: str = ''):
    """`source` says what the shards are of; `restore` refuses another."""
    self.embedding = embedding
    self.cfg = cfg
    self.num_shards = self.num_without = self.width = self.num_columns = 0
    self._source = source
    self._moments: dict[bytes, Moments] = {}  # By present_M in bytes.
    # Key, number of prompts, and what their rewards are about, of each result
    # that the device may still be at.
    self._pending: list[tuple[bytes, int, np.ndarray, tuple]] = []

  def add(self, emb_NE: np.ndarray, reward_NM: np.ndarray) -> None:
    """Adds one shard or, if it is refused, nothing.

    Raises UserError as `prepare` does, and for more patterns of missing
    rewards than the config allows.
    """
    shard = self.prepare(self.num_shards, emb_NE, reward_NM)
    present_NM = np.isfinite(shard.reward_NM)
    found = patterns(present_NM)
    size = sum(shard.emb_NE.shape[1:] + shard.reward_NM.shape[1:])
    keys = {present_M.tobytes() for present_M, _ in found if present_M.any()}
    num = len(self._moments.keys() | keys)
    if num > self.cfg.max_patterns:
      raise errors.UserError(
        f'shard {self.num_shards} (counted from 0): {num} patterns of missing '
        f'rewards so far, but stream.max_patterns is {self.cfg.max_patterns}: '
        'fit fewer arms or reward models at once, leave out prompts of rare '
        f'patterns, or raise it ({size**2 * 8 / 1e6:.3g} MB each).'
      )
    for present_M, rows in found:
      if not present_M.any():
        self.num_without += len(rows)
        continue
      key = present_M.tobytes()
      if key not in self._moments:
        self._moments[key] = _no_moments(size)
      mean_M = np.zeros(len(present_M))
      mean_M[present_M] = shard.reward_NM[np.ix_(rows, present_M)].mean(axis=0)
      # Centred before the cast: float32 would lose digits to the mean.
      reward_RM = np.where(present_M, shard.reward_NM[rows] - mean_M, 0)
      for block in blocks(shard, rows, reward_RM, self.cfg):
        with device(self.cfg):
          self._pending.append((key, block.num, mean_M, _gram(*block)))
        self._settle(IN_FLIGHT)
    self.width, self.num_columns = shard.emb_NE.shape[1], len(mean_M)
    self.num_shards += 1

  def prepare(
    self, index: int, emb_NE: np.ndarray, reward_NM: np.ndarray
  ) -> Prepared:
    """A shard as it is used.

    Raises UserError as `ridge.prepare` does, with the shard's index, and for
    other widths than those of the shards before.
    """
    emb_NE = np.asarray(emb_NE)
    reward_NM = np.asarray(reward_NM, np.float64)
    if not emb_NE.ndim == reward_NM.ndim == 2 or len(reward_NM) != len(emb_NE):
      raise ValueError(
        f'shard {index}: embeddings {emb_NE.shape} and rewards '
        f'{reward_NM.shape} must have one row per prompt.'
      )
    try:
      norm_N = ridge.norms(emb_NE, self.embedding, self.cfg.dtype)
    except errors.UserError as e:
      raise errors.UserError(f'shard {index} (counted from 0): {e}') from e
    found = emb_NE.shape[1], reward_NM.shape[1]
    if self.num_shards and found != (self.width, self.num_columns):
      raise errors.UserError(
        f'shard {index} (counted from 0) has {found[0]} features and '
        f'{found[1]} columns of rewards, those before it {self.width} and '
        f'{self.num_columns}: use one encoder and the same arms for all.'
      )
    return Prepared(emb_NE, 1 / norm_N, reward_NM)

  def present_PM(self) -> np.ndarray:
    """The patterns seen: which columns each has."""
    flat = np.frombuffer(b''.join(sorted(self._moments)), bool)
    return flat.reshape(len(self._moments), self.num_columns)

  def num_P(self) -> np.ndarray:
    """Prompts of each pattern."""
    self._settle(0)
    keys = sorted(self._moments)
    return np.array([self._moments[key].num for key in keys], int)

  def merged(self, use_P: np.ndarray) -> Moments:
    """Moments of the prompts of several patterns.

    Rewards that some of these patterns lack have no meaning in it.
    """
    self._settle(0)
    keys = np.array(sorted(self._moments), object)[use_P]
    made = _no_moments(self.width + self.num_columns)
    for key in keys:
      num, mean_Y, gram_YY = self._moments[key]
      made = _merge(made, num, mean_Y, [gram_YY])
    upper_YY = np.triu(made.gram_YY)
    return made._replace(gram_YY=upper_YY + np.triu(upper_YY, 1).T)

  def save(self, path: epath.PathLike) -> None:
    """Writes one safetensors file, whole or not at all."""
    self._settle(0)
    arrays = {
      'identity': np.frombuffer(store.json_bytes(self._identity()), np.uint8),
      'counts': np.array([self.num_shards, self.num_without, self.width]),
      'present_PM': self.present_PM(),
    }
    for p, key in enumerate(sorted(self._moments)):
      for name, value in self._moments[key]._asdict().items():
        arrays[f'{name}.{p}'] = np.asarray(value)
    digest = checkpoint.content_digest(arrays).encode()
    arrays['digest'] = np.frombuffer(digest, np.uint8)
    store.write_bytes(path, safetensors.numpy.save(arrays))

  def restore(self, path: epath.PathLike) -> None:
    """Goes on from what `save` wrote; further sums are the same to the bit.

    Raises UserError for a damaged file, or one of another config or source.
    """
    damaged = errors.UserError(
      f'{path} is damaged: delete it to accumulate all shards again.'
    )
    try:
      arrays = safetensors.numpy.load(epath.Path(path).read_bytes())
    except safetensors.SafetensorError as e:
      raise damaged from e
    digest = arrays.pop('digest', np.zeros(0, np.uint8)).tobytes()
    if digest != checkpoint.content_digest(arrays).encode():
      raise damaged
    found = json.loads(arrays['identity'].tobytes())
    for where, old, new in compare.differences(found, self._identity()):
      raise errors.UserError(
        f'{path} was made with {where} = {old}, now it is {new}: set it back, '
        'or delete that file to accumulate all shards again.'
      )
    self.num_shards, self.num_without, self.width = arrays['counts'].tolist()
    self.num_columns = arrays['present_PM'].shape[1]
    self._moments = {
      present_M.tobytes(): Moments(
        int(arrays[f'num.{p}']), arrays[f'mean_Y.{p}'], arrays[f'gram_YY.{p}']
      )
      for p, present_M in enumerate(arrays['present_PM'])
    }

  def _identity(self) -> dict[str, str | int]:
    return {
      'format_version': FORMAT_VERSION,
      'embedding': self.embedding,
      'dtype': self.cfg.dtype,
      'rows': self.cfg.rows,
      'source': self._source,
    }

  def _settle(self, num_left: int) -> None:
    """Merges the oldest results until so many are left."""
    while len(self._pending) > num_left:
      key, num, mean_M, result = self._pending.pop(0)
      mean_E, strips = jax.device_get(result)
      # About the rounded mean: the difference is of second order.
      rest_Y = np.concatenate([strip[:, -1] for strip in strips])[:-1] / num
      mean_Y = np.concatenate([mean_E, mean_M]) + rest_Y
      total = self._moments[key]
      self._moments[key] = _merge(total, num, mean_Y, strips)


def patterns(present_NM: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
  """The sets of columns that rows have, in order of bytes, with those rows."""
  if len(present_NM) and present_NM.all():
    return [(present_NM[0], np.arange(len(present_NM)))]
  pattern_PM, index_N = np.unique(present_NM, axis=0, return_inverse=True)
  index_N = index_N.reshape(-1)
  return [
    (p_M, np.flatnonzero(index_N == p)) for p, p_M in enumerate(pattern_PM)
  ]


def device(cfg: StreamConfig) -> contextlib.AbstractContextManager:
  """In it, JAX computes in the config's dtype."""
  return jax.enable_x64(cfg.dtype == 'float64')


def blocks(
  shard: Prepared, rows: np.ndarray, reward_RM: np.ndarray, cfg: StreamConfig
) -> Iterator[Block]:
  """These rows, ascending, and their rewards, in blocks of a few shapes.

  The mesh's data axis divides every block.
  """
  # Never wider than needed: the device casts, once it is there.
  narrow = min(
    shard.emb_NE.dtype, np.dtype(cfg.dtype), key=lambda d: d.itemsize
  )
  num_devices = jax.sharding.get_abstract_mesh().shape.get(sharding.DATA, 1)
  sizes = shapes.sizes(cfg.rows, shortest=max(16, cfg.rows // 8))
  for start in range(0, len(rows), cfg.rows):
    part = rows[start : start + cfg.rows]
    num = len(part)
    size = -(-shapes.bucket(num, sizes) // num_devices) * num_devices
    if part[-1] - part[0] == num - 1:  # A view, not a copy.
      part = slice(part[0], part[-1] + 1)
    arrays = (
      shard.emb_NE[part].astype(narrow, copy=False),
      shard.scale_N[part].astype(cfg.dtype),
      reward_RM[start : start + cfg.rows].astype(cfg.dtype),
    )
    if num < size:
      arrays = tuple(
        np.pad(a, [(0, size - num)] + [(0, 0)] * (a.ndim - 1)) for a in arrays
      )
    yield Block(*arrays, num)


def centred(
  emb_BE: jax.Array, scale_B: jax.Array, mean_E: jax.Array, num: jax.Array
) -> jax.Array:
  """The first `num` scaled rows about `mean_E`, the others 0."""
  row_BE = emb_BE.astype(scale_B.dtype) * scale_B[:, None] - mean_E
  return jnp.where(jnp.arange(len(row_BE))[:, None] < num, row_BE, 0)


@jax.jit
def _gram(emb_BE, scale_B, reward_BM, num):
  """What rows are taken about, and strips of the products of J with J.

  J are features, rewards and a 1, whose products are sums: the mean of float32
  rows is rounded, and they are what is left of it. As reductions, XLA takes as
  long for these as for the Gram matrix.
  """
  emb_BE = sharding.constrain(emb_BE, 'batch', None)
  with jax.default_matmul_precision('highest'):
    mean_E = (scale_B / num) @ emb_BE.astype(scale_B.dtype)
    row_BE = centred(emb_BE, scale_B, mean_E, num)
    one_BI = jnp.ones_like(scale_B)[:, None]
    row_BJ = jnp.concatenate([row_BE, reward_BM, one_BI], axis=1)
    size = row_BJ.shape[1]
    width = -(-size // _STRIPS)
    strips = [
      row_BJ[:, start : start + width].T @ row_BJ[:, start:]
      for start in range(0, size, width)
    ]
  return mean_E, [sharding.constrain(strip, None, None) for strip in strips]


def _no_moments(size: int) -> Moments:
  return Moments(0, np.zeros(size), np.zeros((size, size)))


def _merge(
  total: Moments, num: int, mean_Y: np.ndarray, strips: Sequence[np.ndarray]
) -> Moments:
  """Moments of these prompts too; overwrites the total's Gram matrix.

  `strips` are rows of their Gram matrix, each from its diagonal on; what is
  beyond features and rewards is left out.
  """
  num_all = total.num + num
  shift_Y = mean_Y - total.mean_Y
  scaled_Y = shift_Y * np.sqrt(total.num * num / num_all)
  start = 0
  for strip in strips:
    own_Y = scaled_Y[start:]
    update = own_Y[: len(strip), None] * own_Y
    update += strip[: len(own_Y), : len(own_Y)]
    total.gram_YY[start : start + len(strip), start:] += update
    start += len(strip)
  mean_Y = total.mean_Y + shift_Y * (num / num_all)
  return Moments(num_all, mean_Y, total.gram_YY)
