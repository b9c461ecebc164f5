"""Recorded outcomes -> how routing would have done, over split seeds."""

import dataclasses

import numpy as np

from erp_jax.core import config, errors, progress, resample
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import outcomes, splits
from erp_jax.probe import ridge as ridge_lib
from erp_jax.route import results

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedOutcomes:
  """A table of recorded outcomes, and which part of it is replayed."""

  outcomes: str = ''  # Parquet file, or package:paretobandit.
  title: str = ''  # In the report; no two alike.
  models: tuple[str, ...] = ()
  costs: tuple[float, ...] = ()  # One per model; empty: the table's cost_usd.
  category_column: str = 'category'
  categories: tuple[str, ...] = ()  # Keep only these; empty keeps all.
  cost_unit: str = ''  # Of `costs`, for readers; empty: parameters.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayConfig:
  """How recorded outcomes are split and fitted."""

  splits: int = 20  # Split seeds 0, 1, …
  train_frac: float = 0.5  # Of each category.
  ridge: ridge_lib.RidgeConfig = ridge_lib.RidgeConfig()
  bootstrap: resample.BootstrapConfig = resample.BootstrapConfig()

  def __post_init__(self):
    errors.check_least('splits', self.splits, 1)


def run(
  workdir: workdir_lib.Workdir,
  table: outcomes.Outcomes,
  source: dict,
  emb_NE: np.ndarray,
  cfg: ReplayConfig,
) -> None:
  """Writes the evaluation into the work folder itself.

  Args:
    source: what identifies the table and its embeddings.
    emb_NE: embeddings of its prompts, in its order.
  """
  identity = {
    'stage': 'replay',
    'format_version': FORMAT_VERSION,
    'replay': {
      field.name: config.as_plain(getattr(cfg, field.name))
      for field in dataclasses.fields(ReplayConfig)
    },
    'outcomes': source,
  }
  artifact = workdir.artifact('.', identity)
  if artifact.is_done():
    return
  unit = 'USD' if table.cost_source == 'recorded' else 'as given by --costs'
  files = results.files(table, unit, _fits(table, emb_NE, cfg), cfg.bootstrap)
  with workdir.writer(artifact) as writer:
    for name, data in files.items():
      writer.write_file(name, data)
    writer.finish()


def _fits(table, emb_NE, cfg):
  """A fit and its predictions for each split seed."""
  with progress.track('replay splits', cfg.splits, 'splits') as advance:
    for seed in range(cfg.splits):
      train_N = splits.train_mask(
        table.prompt_ids, table.category_N.tolist(), seed, cfg.train_frac
      )
      probe = ridge_lib.fit(
        emb_NE[train_N], table.reward_NM[train_N], cfg.ridge, table.models
      )
      yield results.SplitResult(seed, train_N, ridge_lib.predict(probe, emb_NE))
      advance(1)
