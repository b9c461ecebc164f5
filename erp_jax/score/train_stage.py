"""Preference pairs -> features -> a reward model in WORKDIR/reward.

Features are an artefact of their own, so that another head, or a restart, does
not compute them again.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from erp_jax.core import checkpoint as weights_lib
from erp_jax.core import errors, progress, store
from erp_jax.core import runtime as runtime_lib
from erp_jax.core import workdir as workdir_lib
from erp_jax.models import checkpoint
from erp_jax.score import bradley_terry, preference
from erp_jax.score import features as features_lib

FORMAT_VERSION = 1
FOLDER = 'reward'
WEIGHTS = 'weights'
METRICS = 'metrics.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRewardConfig:
  """Pairs, the frozen network that reads them, and the head on top."""

  pairs: preference.PairsConfig
  features: features_lib.FeatureConfig = features_lib.FeatureConfig()
  train: bradley_terry.TrainConfig = bradley_terry.TrainConfig()
  shard_pairs: int = 64  # Pairs per shard of features: what a kill can lose.
  runtime: runtime_lib.RuntimeConfig = runtime_lib.RuntimeConfig()

  def __post_init__(self):
    errors.check_least('shard_pairs', self.shard_pairs, 1)


def run(workdir: workdir_lib.Workdir, cfg: TrainRewardConfig) -> dict[str, Any]:
  """Computes what is missing; returns metrics.json.

  It holds `preference.accuracy` of the pairs that are held out, of the others
  (`train`, those that validate among them), and on the held-out ones of
  preferring the longer response (`longer`), which a reward model must beat;
  the counts of rows and of those that were cut; and what `bradley_terry.fit`
  reports.
  """
  pairs = preference.load(cfg.pairs)
  made = _read_pairs(workdir, pairs, cfg.features, cfg.shard_pairs)
  identity = {
    'stage': 'train_reward',
    'format_version': FORMAT_VERSION,
    'split_seed': cfg.pairs.split_seed,
    'held_out_frac': cfg.pairs.held_out_frac,
    'train': dataclasses.asdict(cfg.train),
    'features': made.identity,
  }
  artifact = workdir.artifact(FOLDER, identity)
  if not artifact.is_done():
    prompts = np.array([pair.prompt for pair in pairs], object)
    train_I = preference.train_mask(
      prompts, cfg.pairs.split_seed, cfg.pairs.held_out_frac
    )
    chosen_IE, rejected_IE = _arrays(store.read_table(made.path))
    reward, report = bradley_terry.fit(
      chosen_IE[train_I], rejected_IE[train_I], prompts[train_I], cfg.train
    )
    margin_I = reward(chosen_IE) - reward(rejected_IE)
    longer_I = np.array([len(p.chosen) - len(p.rejected) for p in pairs])
    metrics = {
      'held_out': preference.accuracy(margin_I[~train_I], prompts[~train_I]),
      'longer': preference.accuracy(longer_I[~train_I], prompts[~train_I]),
      'train': preference.accuracy(margin_I[train_I], prompts[train_I]),
      'fit': report,
      'read': store.read_manifest(made.path)['counts'],
    }
    arrays = reward.arrays()
    with workdir.writer(artifact) as writer:
      weights_lib.save(artifact.path / WEIGHTS, arrays)
      writer.add_file(WEIGHTS, weights_lib.content_digest(arrays))
      writer.write_file(METRICS, store.json_bytes(metrics))
      writer.finish()
  return store.read_json(artifact.path / METRICS)


def _read_pairs(
  workdir: workdir_lib.Workdir,
  pairs: Sequence[preference.Pair],
  cfg: features_lib.FeatureConfig,
  shard_pairs: int,
) -> store.Artifact:
  """The artefact of the pairs' features, which it completes."""
  name = cfg.model.rstrip('/').replace(':', '/').split('/')[-1]
  identity = {
    'stage': 'features',
    'format_version': FORMAT_VERSION,
    'features': dataclasses.asdict(cfg),
    'shard_pairs': shard_pairs,
    'revision': checkpoint.open_checkpoint(cfg.model).revision,
    'pairs': preference.digest(pairs),
  }
  num_shards = -(-len(pairs) // shard_pairs)
  artifact = workdir.artifact(f'features/{name}', identity, num_shards)
  if artifact.is_done():
    return artifact
  reader = features_lib.load(cfg)
  with workdir.writer(artifact) as writer:
    parts = {
      i: pairs[i * shard_pairs : (i + 1) * shard_pairs]
      for i in writer.missing()
    }
    total = 2 * sum(map(len, parts.values()))
    with progress.track('read pairs', total, 'responses') as advance:
      for i, part in parts.items():
        x_IKE = reader.read(
          [pair.prompt for pair in part],
          [(pair.chosen, pair.rejected) for pair in part],
          lambda num_done, positions: advance(num_done),
        )
        counts = {'responses': 2 * len(part), 'cut': reader.num_cut}
        writer.write_shard(i, _table(np.stack(x_IKE)), counts)
    writer.finish({'width': reader.width})
  return artifact


def _table(x_IKE: np.ndarray) -> pa.Table:
  """A row per pair, in the order of the pairs."""
  return pa.table(
    {
      name: pa.FixedSizeListArray.from_arrays(
        pa.array(x_IKE[:, k].ravel(), pa.float32()), x_IKE.shape[-1]
      )
      for k, name in enumerate(('chosen', 'rejected'))
    }
  )


def _arrays(table: pa.Table) -> list[np.ndarray]:
  """chosen_IE and rejected_IE of `_table`."""
  return [
    column.combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    for column in table.columns
  ]
