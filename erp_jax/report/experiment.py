"""What experiments share: splits, the ridge, intervals, their result."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import errors, resample
from erp_jax.data import splits
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.report import document


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
  """Splits and intervals of every experiment."""

  # Split seeds 0, 1, …: the first one is what single-split tables and figures
  # show, with a bootstrap over its test prompts; all of them make the bands.
  splits: int = 20
  train_frac: float = 0.5  # Of each category.
  ridge: ridge_lib.RidgeConfig = ridge_lib.RidgeConfig()  # The policy `erp`.
  bootstrap: resample.BootstrapConfig = resample.BootstrapConfig()

  def __post_init__(self):
    if self.splits < 1:
      raise errors.UserError(f'splits must be >= 1, got {self.splits}.')

  def masks(
    self, records: records_lib.Records
  ) -> Iterator[tuple[int, np.ndarray]]:
    """(split seed, train_N) of each split, the first one first."""
    for seed in range(self.splits):
      yield (
        seed,
        splits.train_mask(
          records.prompt_ids,
          records.category_N.tolist(),
          seed,
          self.train_frac,
        ),
      )


class Result(NamedTuple):
  """What an experiment found.

  Attributes:
    sections: for readers, one of each Records.
    metrics: the same numbers, nested by records and reward model; JSON-able,
      None where undefined.
  """

  sections: Sequence[document.Section]
  metrics: Mapping[str, Any]


def fit_and_predict(
  records: records_lib.Records,
  train_N: np.ndarray,
  cfg: ridge_lib.RidgeConfig,
) -> dict[str, np.ndarray]:
  """As `records.predict_rewards`."""
  return records_lib.predict_rewards(records, train_N, cfg)
