"""Moments of prompts that arrive in shards, computed on the mesh in force.

A block of rows is centred about its own mean, and its Gram matrix is merged
into running totals with the rank-one correction of Chan, Golub and LeVeque.
Axis Y is features, then rewards: one product holds the features' Gram matrix,
the cross products and the rewards' second moments.

Totals are float64 on the host: a merge is one addition per block, little beside
the product, and exact enough for any number of shards.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from erp_jax.core import checkpoint, compare, errors, shapes, sharding, store
from erp_jax.probe import ridge

FORMAT_VERSION = 1

Shard = tuple[np.ndarray, np.ndarray]  # emb_NE, and reward_NM with NaN.


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
      if not getattr(self, name) >= least:
        raise errors.UserError(
          f'stream.{name} must be >= {least}, got {getattr(self, name)}.'
        )


class Moments(NamedTuple):
  """Of some prompts' features and rewards, float64."""

  num: int
  mean_Y: np.ndarray
  gram_YY: np.ndarray  # About the mean.


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

  def add(self, emb_NE: np.ndarray, reward_NM: np.ndarray) -> None:
    """Adds one shard or, if it is refused, nothing.

    Raises UserError as `prepare` does, and for more patterns of missing
    rewards than the config allows.
    """
    x_NE, reward_NM = self.prepare(self.num_shards, emb_NE, reward_NM)
    present_NM = np.isfinite(reward_NM)
    pattern_PM, index_N = np.unique(present_NM, axis=0, return_inverse=True)
    keys = {present_M.tobytes() for present_M in pattern_PM if present_M.any()}
    num = len(self._moments.keys() | keys)
    if num > self.cfg.max_patterns:
      size = x_NE.shape[1] + reward_NM.shape[1]
      raise errors.UserError(
        f'shard {self.num_shards} (counted from 0): {num} patterns of missing '
        f'rewards so far, but stream.max_patterns is {self.cfg.max_patterns}: '
        'fit fewer arms or reward models at once, leave out prompts of rare '
        f'patterns, or raise it ({size**2 * 8 / 1e6:.3g} MB each).'
      )
    row_NY = np.concatenate([x_NE, np.where(present_NM, reward_NM, 0)], axis=1)
    for p, present_M in enumerate(pattern_PM):
      own_N = index_N.reshape(-1) == p
      if present_M.any():
        self._add(present_M.tobytes(), row_NY[own_N])
      else:
        self.num_without += int(own_N.sum())
    self.width, self.num_columns = x_NE.shape[1], reward_NM.shape[1]
    self.num_shards += 1

  def prepare(
    self, index: int, emb_NE: np.ndarray, reward_NM: np.ndarray
  ) -> Shard:
    """A shard as it is used: scaled embeddings and rewards, both float64.

    Raises UserError as `ridge.prepare` does, with the shard's index, and for
    other widths than those of the shards before.
    """
    try:
      x_NE = ridge.prepare(emb_NE, self.embedding)
    except errors.UserError as e:
      raise errors.UserError(f'shard {index} (counted from 0): {e}') from e
    reward_NM = np.asarray(reward_NM, np.float64)
    if reward_NM.ndim != 2 or len(reward_NM) != len(x_NE):
      raise ValueError(
        f'shard {index}: embeddings {x_NE.shape} and rewards '
        f'{reward_NM.shape} must have one row per prompt.'
      )
    found = x_NE.shape[1], reward_NM.shape[1]
    if self.num_shards and found != (self.width, self.num_columns):
      raise errors.UserError(
        f'shard {index} (counted from 0) has {found[0]} features and '
        f'{found[1]} columns of rewards, those before it {self.width} and '
        f'{self.num_columns}: use one encoder and the same arms for all.'
      )
    return x_NE, reward_NM

  def present_PM(self) -> np.ndarray:
    """The patterns seen: which columns each has."""
    flat = np.frombuffer(b''.join(sorted(self._moments)), bool)
    return flat.reshape(len(self._moments), self.num_columns)

  def num_P(self) -> np.ndarray:
    """Prompts of each pattern."""
    keys = sorted(self._moments)
    return np.array([self._moments[key].num for key in keys], int)

  def merged(self, use_P: np.ndarray) -> Moments:
    """Moments of the prompts of several patterns.

    Rewards that some of these patterns lack have no meaning in it.
    """
    keys = np.array(sorted(self._moments), object)[use_P]
    return functools.reduce(_merged, (self._moments[key] for key in keys))

  def save(self, path: epath.PathLike) -> None:
    """Writes one safetensors file, whole or not at all."""
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

  def _add(self, key: bytes, row_NY: np.ndarray) -> None:
    for start in range(0, len(row_NY), self.cfg.rows):
      new = _measure(row_NY[start : start + self.cfg.rows], self.cfg)
      old = self._moments.get(key)
      self._moments[key] = new if old is None else _merged(old, new)


def device(cfg: StreamConfig) -> contextlib.AbstractContextManager:
  """In it, JAX computes in the config's dtype."""
  return jax.enable_x64(cfg.dtype == 'float64')


def blocks(row_NY: np.ndarray, cfg: StreamConfig) -> Iterator[np.ndarray]:
  """The rows in blocks of a few shapes, filled up with rows of zeros.

  In the config's dtype. The mesh's data axis divides every block.
  """
  num_devices = jax.sharding.get_abstract_mesh().shape.get(sharding.DATA, 1)
  sizes = shapes.sizes(cfg.rows, shortest=max(16, cfg.rows // 8))
  for start in range(0, len(row_NY), cfg.rows):
    part_NY = row_NY[start : start + cfg.rows]
    num = shapes.bucket(len(part_NY), sizes)
    num = -(-num // num_devices) * num_devices
    block_BY = np.zeros((num, row_NY.shape[1]), cfg.dtype)
    block_BY[: len(part_NY)] = part_NY
    yield block_BY


def _measure(row_NY: np.ndarray, cfg: StreamConfig) -> Moments:
  mean_Y = row_NY.mean(axis=0)
  # Centred before the cast: float32 would lose digits to the mean.
  (row_BY,) = blocks(row_NY - mean_Y, cfg)
  with device(cfg):
    gram_YY = jax.device_get(_gram(row_BY))
  return Moments(len(row_NY), mean_Y, gram_YY.astype(np.float64))


@jax.jit
def _gram(row_BY: jax.Array) -> jax.Array:
  row_BY = sharding.constrain(row_BY, 'batch', None)
  gram_YY = jnp.matmul(row_BY.T, row_BY, precision='highest')
  return sharding.constrain(gram_YY, None, None)


def _merged(a: Moments, b: Moments) -> Moments:
  num = a.num + b.num
  shift_Y = b.mean_Y - a.mean_Y
  scaled_Y = shift_Y * np.sqrt(a.num * b.num / num)
  gram_YY = a.gram_YY + b.gram_YY
  gram_YY += np.outer(scaled_Y, scaled_Y)
  return Moments(num, a.mean_Y + shift_Y * (b.num / num), gram_YY)
