"""What experiments share: splits, the ridge, intervals, their result."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import errors, progress, resample
from erp_jax.data import splits
from erp_jax.probe import records as records_lib
from erp_jax.probe import ridge as ridge_lib
from erp_jax.report import cells, document


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
    errors.check_least('splits', self.splits, 1)

  def masks(self, records: records_lib.Records) -> Iterator[np.ndarray]:
    """train_N of each split, the first one first."""
    ids, categories = records.prompt_ids, records.category_N.tolist()
    for seed in range(self.splits):
      yield splits.train_mask(ids, categories, seed, self.train_frac)

  def track(
    self, records: records_lib.Records, what: str
  ) -> Iterator[np.ndarray]:
    """`masks`, while progress is shown."""
    title = f'{records.name}: {what} splits'
    with progress.track(title, self.splits, 'splits') as advance:
      for train_N in self.masks(records):
        yield train_N
        advance(1)


class Result(NamedTuple):
  """What an experiment found.

  Attributes:
    sections: for readers, one of each Records.
    metrics: the same numbers, nested by records and reward model; JSON-able,
      None where undefined.
  """

  sections: Sequence[document.Section]
  metrics: Mapping[str, Any]


class Part(NamedTuple):
  """What an experiment says of one Records.

  Attributes:
    text, tables: at the top of its section.
    rewards: by reward model, a part of that section, and its metrics.
  """

  text: Sequence[str]
  rewards: Mapping[str, tuple[document.Section, Mapping[str, Any]]]
  tables: Sequence[cells.Table] = ()


def gather(
  records: Sequence[records_lib.Records],
  say: Callable[[records_lib.Records], Part],
) -> Result:
  """A section per records, a part of it per reward model."""
  sections, metrics = [], {}
  for one in records:
    part = say(one)
    sections.append(
      document.Section(
        title=one.title,
        origin=one.origin,
        text=part.text,
        tables=part.tables,
        sections=[section for section, _ in part.rewards.values()],
      )
    )
    metrics[one.name] = {
      reward: values for reward, (_, values) in part.rewards.items()
    }
  return Result(sections, metrics)
