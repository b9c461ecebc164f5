"""What a policy is linear in: embeddings, or random Fourier features of them.

Fourier features are drawn from a seed, so that a file need not hold them.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from erp_jax.probe import ridge


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMap:
  """Features of embeddings.

  Attributes:
    width: of the embeddings.
    embedding: 'unit' or 'raw', as in ridge.RidgeConfig.
    num_fourier: how many Fourier features; 0 takes the embedding itself. Half
      are cosines and half sines of frequencies ~ N(0, 1 / length_scale²), and
      the inner product of two prompts' features tends to the Gaussian kernel
      exp(-|x - y|² / (2 length_scale²)) (Rahimi and Recht, 2007).
    length_scale, seed: of the frequencies.
  """

  width: int
  embedding: str = 'unit'
  num_fourier: int = 0
  length_scale: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.embedding not in ('unit', 'raw'):
      raise ValueError(f'embedding {self.embedding!r} is not unit or raw.')
    if self.num_fourier < 0 or self.num_fourier % 2:
      raise ValueError(f'num_fourier {self.num_fourier} must be even and >= 0.')
    if not (np.isfinite(self.length_scale) and self.length_scale > 0):
      raise ValueError(f'length_scale {self.length_scale} must be > 0.')

  @property
  def num_features(self) -> int:
    """Columns of `apply`."""
    return self.num_fourier or self.width

  @functools.cached_property
  def _frequency_EF(self) -> np.ndarray:
    rng = np.random.default_rng([self.seed])
    shape = (self.width, self.num_fourier // 2)
    return rng.standard_normal(shape) / self.length_scale

  def apply(
    self, emb_NE: np.ndarray, prompt_ids: Sequence[str] = ()
  ) -> np.ndarray:
    """float64 features [N, num_features].

    Raises UserError for embeddings of another width, and as `ridge.prepare`.
    """
    emb_NE = ridge.prepare_for(
      self.width, 'the policy was', emb_NE, self.embedding, prompt_ids
    )
    if not self.num_fourier:
      return emb_NE
    angle_NF = emb_NE @ self._frequency_EF
    feature_NF = np.concatenate([np.cos(angle_NF), np.sin(angle_NF)], axis=1)
    return feature_NF * np.sqrt(2 / self.num_fourier)
