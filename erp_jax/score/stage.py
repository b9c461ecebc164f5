"""Responses -> rewards, one artefact per reward model and arm."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from erp_jax.core import progress, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.models import checkpoint
from erp_jax.score import rewards as rewards_lib

_log = logging.getLogger(__name__)

FORMAT_VERSION = 1
SCHEMA = pa.schema(
  [
    ('prompt_id', pa.string()),
    ('k', pa.int32()),
    ('reward', pa.float32()),  # NaN: not finite, it leaves the mean.
  ]
)


def artifact(
  workdir: workdir_lib.Workdir,
  reward_name: str,
  arm_name: str,
  cfg: rewards_lib.RewardConfig,
  prompts: Sequence[prompts_lib.Prompt],
) -> store.Artifact:
  """The artefact that holds one reward model's rewards of one arm."""
  workdir_lib.check_name('reward', reward_name)
  responses = store.read_manifest(workdir.path / 'responses' / arm_name)
  reward = dataclasses.asdict(cfg)
  if cfg.model:
    reward['revision'] = checkpoint.open_checkpoint(cfg.model).revision
  identity = {
    'stage': 'score',
    'format_version': FORMAT_VERSION,
    'reward': reward,
    'responses': responses['digest'],
    'prompts': prompts_lib.digest(prompts),
  }
  num_shards = -(-len(prompts) // cfg.shard_prompts)
  return workdir.artifact(
    f'rewards/{reward_name}/{arm_name}', identity, num_shards
  )


def run(
  workdir: workdir_lib.Workdir,
  rewards: Mapping[str, rewards_lib.RewardConfig],
  arms: Mapping[str, arms_lib.Arm],
  prompts: Sequence[prompts_lib.Prompt],
) -> None:
  """Scores what is missing; each reward model is loaded once.

  The arms' responses must be complete.
  """
  for name, cfg in rewards.items():
    artifacts = {
      arm: artifact(workdir, name, arm, cfg, prompts) for arm in arms
    }
    todo = [arm for arm, art in artifacts.items() if not art.is_done()]
    if todo:
      score = rewards_lib.scorer(cfg)
      for arm in todo:
        _run_arm(
          workdir, artifacts[arm], name, cfg, arm, arms[arm], prompts, score
        )


def _run_arm(workdir, artifact, name, cfg, arm_name, arm, prompts, score):
  table = store.read_table(workdir.path / 'responses' / arm_name)
  texts: dict[str, list[str]] = {prompt.id: [] for prompt in prompts}
  for row in table.select(['prompt_id', 'text']).to_pylist():
    if (
      not cfg.max_responses or len(texts[row['prompt_id']]) < cfg.max_responses
    ):
      texts[row['prompt_id']].append(row['text'])
  with workdir.writer(artifact) as writer:
    missing = writer.missing()
    parts = {
      i: prompts[i * cfg.shard_prompts : (i + 1) * cfg.shard_prompts]
      for i in missing
    }
    total = sum(len(texts[p.id]) for part in parts.values() for p in part)
    total *= rewards_lib.passes(cfg)
    with progress.track(f'score {name}/{arm_name}', total, 'reads') as advance:
      for i, part in parts.items():
        read = _Read(advance)
        scores = score(part, [texts[p.id] for p in part], read)
        shard = _table(part, scores)
        bad = int(np.isnan(shard['reward'].to_numpy()).sum())
        counts = {'positions': read.positions, 'non_finite': bad}
        writer.write_shard(i, shard, counts)
    counts = writer.shard_counts()
    if counts['non_finite']:
      _log.warning(
        'score %s/%s: %d of %d rewards are not finite and leave the mean.',
        *(name, arm_name, counts['non_finite'], sum(map(len, texts.values()))),
      )
    writer.finish({'self_scored': cfg.model == arm.model})


class _Read:
  """Hands progress on, and adds up the positions read."""

  def __init__(self, advance):
    self._advance = advance
    self.positions = 0

  def __call__(self, n: int, positions: int = 0) -> None:
    self._advance(n)
    self.positions += positions


def _table(prompts, scores) -> pa.Table:
  """Rows of one shard, by prompt and k; what is not finite becomes NaN."""
  reward = np.concatenate(scores).astype(np.float32)
  return pa.table(
    {
      'prompt_id': [
        p.id for p, s in zip(prompts, scores, strict=True) for _ in s
      ],
      'k': np.concatenate([np.arange(len(s)) for s in scores]),
      'reward': np.where(np.isfinite(reward), reward, np.nan),
    },
    schema=SCHEMA,
  )
