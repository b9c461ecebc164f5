"""What the live part ran: its responses and rewards, and how they were made."""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

from erp_jax.core import store, upstream


@dataclasses.dataclass(frozen=True)
class Run:
  """The live part's artefacts of one workdir.

  Attributes:
    responses: table per arm.
    rewards: table per (reward model, arm).
    sampled: manifest per arm.
    scored: manifest per (reward model, arm).
  """

  responses: Mapping[str, pa.Table]
  rewards: Mapping[tuple[str, str], pa.Table]
  sampled: Mapping[str, Mapping[str, Any]]
  scored: Mapping[tuple[str, str], Mapping[str, Any]]

  @property
  def arms(self) -> list[str]:
    return list(self.responses)

  def reward_label(self, reward: str) -> str:
    """The reward model's name, marked where it scored its own answers."""
    arms = [arm for name, arm in self.scored if name == reward]
    own = [
      arm for arm in arms if self.scored[reward, arm]['info']['self_scored']
    ]
    if not own:
      return reward
    which = '' if len(own) == len(arms) else f', for {", ".join(own)}'
    return f'{reward} (scored by the model that answered{which})'


def load(
  workdir: epath.PathLike, rewards: Sequence[str], arms: Sequence[str]
) -> Run:
  """Reads responses and rewards.

  UserError names one that is not complete, or rewards of other responses.
  """
  workdir = epath.Path(workdir)
  responses = {arm: workdir / 'responses' / arm for arm in arms}
  scores = {(r, a): workdir / 'rewards' / r / a for r in rewards for a in arms}
  for (_, arm), path in scores.items():
    upstream.check_current(path, responses[arm])
  return Run(
    responses={arm: store.read_table(path) for arm, path in responses.items()},
    rewards={key: store.read_table(path) for key, path in scores.items()},
    sampled={arm: store.read_manifest(p) for arm, p in responses.items()},
    scored={key: store.read_manifest(path) for key, path in scores.items()},
  )


@dataclasses.dataclass(frozen=True)
class Response:
  """One response, as it is shown; `rewards` are NaN if not finite."""

  k: int
  text: str
  num_tokens: int | None  # None where a server did not say.
  finish_reason: str
  rewards: Mapping[str, float]  # Only the reward models that scored it.


@dataclasses.dataclass(frozen=True)
class Sample:
  """A prompt, and every arm's responses to it."""

  prompt_id: str
  category: str
  prompt: str  # Empty: not known here.
  responses: Mapping[str, list[Response]]


def pick(
  prompt_ids: Iterable[str], categories: Iterable[str], limit: int
) -> dict[str, str]:
  """{prompt id: category}: from each category the id of the smallest sha256.

  At most `limit`, categories in the same order: the choice sees no text, no
  response and no reward.
  """
  rank = lambda text: hashlib.sha256(text.encode()).hexdigest()
  by_category = collections.defaultdict(set)
  for prompt_id, category in zip(prompt_ids, categories, strict=True):
    by_category[category].add(prompt_id)
  chosen = sorted(by_category, key=rank)[:limit]
  return {min(by_category[c], key=rank): c for c in sorted(chosen)}


def samples(
  run: Run, picked: Mapping[str, str], prompts: Mapping[str, str]
) -> list[Sample]:
  """The picked prompts with all their responses.

  Args:
    picked: {prompt id: category}.
    prompts: {prompt id: text}; it may lack some.
  """
  rewards = {
    (name, arm): {
      (row['prompt_id'], row['k']): row['reward']
      for row in table.to_pylist()
      if row['prompt_id'] in picked
    }
    for (name, arm), table in run.rewards.items()
  }
  found = []
  for prompt_id, category in picked.items():
    responses = {}
    for arm, table in run.responses.items():
      responses[arm] = [
        Response(
          k=row['k'],
          text=row['text'],
          num_tokens=row['num_tokens'],
          finish_reason=row['finish_reason'],
          rewards={
            name: scores[prompt_id, row['k']]
            for (name, of_arm), scores in rewards.items()
            if of_arm == arm and (prompt_id, row['k']) in scores
          },
        )
        for row in sorted(table.to_pylist(), key=lambda row: row['k'])
        if row['prompt_id'] == prompt_id
      ]
    text = prompts.get(prompt_id, '')
    found.append(Sample(prompt_id, category, text, responses))
  return found


@dataclasses.dataclass(frozen=True)
class ArmUse:
  """What one arm cost to sample."""

  model: str
  system_prompt: str
  num_parameters: int  # 0: served elsewhere, nobody counts them.
  responses: int
  tokens: int
  mean_prompt_tokens: float
  mean_tokens: float
  busy_frac: float  # Of the decoding slots; NaN if nothing was counted.
  cut_frac: float  # Share that hit the length limit.


def arm_use(run: Run, arm: str) -> ArmUse:
  """Counts of one arm, from its responses and their manifest."""
  manifest = run.sampled[arm]
  table = run.responses[arm]
  counts = manifest['counts']
  column = lambda name: table[name].to_numpy(zero_copy_only=False)
  steps = counts.get('slot_steps', 0)  # None of ours, of a server.
  return ArmUse(
    model=manifest['identity']['arm']['model'],
    system_prompt=manifest['identity']['arm']['system_prompt'],
    num_parameters=manifest['info'].get('num_parameters', 0),
    responses=table.num_rows,
    tokens=counts['tokens'],
    mean_prompt_tokens=float(column('prompt_tokens').mean()),
    mean_tokens=float(column('num_tokens').mean()),
    # A response's first token comes with its prompt, in no decode step.
    busy_frac=(counts['tokens'] - table.num_rows) / steps
    if steps
    else math.nan,
    cut_frac=float(np.mean(column('finish_reason') == 'length')),
  )


def provenance(run: Run) -> dict[str, list[str]]:
  """{what: its values}: one value, unless artefacts were made differently."""
  seen = collections.defaultdict(list)
  for manifest in [*run.sampled.values(), *run.scored.values()]:
    made = manifest['provenance']
    machine = made['machine']
    facts = dict(made['versions']) | {
      'code revision': made['revision'],
      'machine': f'{machine["platform"]}, {machine["cpus"]} CPUs, '
      f'devices {", ".join(machine["devices"])}',
      'changed while running': '; '.join(manifest['version_changes']),
    }
    for what, value in facts.items():
      if value and value not in seen[what]:
        seen[what].append(value)
  return {what: values for what, values in seen.items() if values}
