"""Responses -> rewards, one artefact per reward model and arm."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from erp_jax.core import errors, group, progress, store, upstream
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.data import thinking
from erp_jax.score import rewards as rewards_lib

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
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
  arm: arms_lib.Arm,
  cfg: rewards_lib.RewardConfig,
  prompts: Sequence[prompts_lib.Prompt],
) -> store.Artifact:
  """The artefact that holds one reward model's rewards of one arm.

  Raises UserError if the responses are of another arm or other prompts.
  """
  workdir_lib.check_name('reward', reward_name)
  folder = workdir.path / 'responses' / arm_name
  store.check_made_with(
    folder,
    {
      # None: it is not there.
      'arm': {'thinking': None, 'endpoint': None, **arm.identity()},
      'prompts': prompts_lib.text_digest(prompts),
    },
  )
  identity = {
    'stage': 'score',
    'format_version': FORMAT_VERSION,
    'reward': rewards_lib.identity(cfg),
    'responses': upstream.digest(folder),
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
  rewards_lib.check_prompts(rewards.values(), prompts)
  for name, cfg in rewards.items():
    artifacts = [
      artifact(workdir, name, arm_name, arm, cfg, prompts)
      for arm_name, arm in arms.items()
    ]
    todo = [art for art in artifacts if not group.of_first(art.is_done)]
    if todo:
      if cfg.kind in rewards_lib.SERVED:
        group.check_alone(f'reward model {name!r}')
      score = rewards_lib.scorer(cfg, name)
      for art in todo:
        _run_arm(workdir, art, cfg, prompts, score)


def _run_arm(workdir, artifact, cfg, prompts, score) -> None:
  """Scores the missing shards of one arm, which the artefact's path names."""
  reward_name, arm_name = artifact.path.parts[-2:]
  label = f'score {reward_name}/{arm_name}'
  responses = workdir.path / 'responses' / arm_name
  texts = _texts(responses, prompts, cfg.max_responses)
  with workdir.writer(artifact) as writer:
    parts = {
      i: prompts[i * cfg.shard_prompts : (i + 1) * cfg.shard_prompts]
      for i in writer.missing()
    }
    total = sum(len(texts[p.id]) for part in parts.values() for p in part)
    total *= rewards_lib.passes(cfg)
    is_judged = False
    with progress.track(label, total, 'reads') as advance:
      for i, part in parts.items():
        read = _Read(advance)
        scored = score(part, [texts[p.id] for p in part], read)
        neither = scored.counts.get('neither', 0)
        is_judged |= any(np.isfinite(x_K).any() for x_K in scored.rewards)
        if neither and not is_judged:
          raise errors.UserError(
            f'{label}: {cfg.model!r} lists neither Yes nor No for the first '
            f'token of any of {neither} answers, as judges that think do: '
            'serve it without thinking, or choose another '
            f'rewards.{reward_name}.model or .question.'
          )
        counts = {
          'positions': read.positions,
          'truncated': scored.num_cut,
          **_count(cfg, part, scored.rewards),
          **scored.counts,
        }
        writer.write_shard(i, _table(part, scored.rewards), counts)
    if not writer.is_complete():
      return
    counts = writer.shard_counts()
    if counts['non_finite'] or counts['not_checked']:
      _log.warning(
        '%s: %d rewards are not finite, %d have no check; they leave the mean.',
        *(label, counts['non_finite'], counts['not_checked']),
      )
    if counts['truncated']:
      _log.warning(
        '%s: %d responses were read in part: with their prompts they have more '
        'tokens than the reward model reads.',
        *(label, counts['truncated']),
      )
    if counts.get('bounded'):
      _log.warning(
        '%s: %d rewards are bounds: the server listed Yes or No, not both.',
        *(label, counts['bounded']),
      )
    answered_by = store.read_manifest(responses)['identity']['arm']['revision']
    scored_by = artifact.identity['reward'].get('revision')
    writer.finish({'self_scored': scored_by == answered_by})


def _texts(folder, prompts, limit: int) -> dict[str, list[str]]:
  """What a user sees of each prompt's responses, by id.

  At most `limit` of them (0: all). Every kind of reward scores these.
  """
  texts: dict[str, list[str]] = {prompt.id: [] for prompt in prompts}
  rows = store.read_table(folder).select(['prompt_id', 'text'])
  for row in rows.to_pylist():
    if not limit or len(texts[row['prompt_id']]) < limit:
      text = thinking.visible_text(row['text'])
      texts[row['prompt_id']].append(text)
  return texts


def _count(cfg, prompts, scores) -> dict[str, int]:
  """Rewards that will leave the mean, by reason."""
  non_finite = not_checked = 0
  for prompt, score_K in zip(prompts, scores, strict=True):
    bad = int((~np.isfinite(score_K)).sum())
    if cfg.kind == 'verify' and not prompt.checks:
      not_checked += bad
    else:
      non_finite += bad
  return {'non_finite': non_finite, 'not_checked': not_checked}


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
