"""One more arm of a run, or of a table: what makes it, and its records."""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import config, errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.embed import stage as embed_stage
from erp_jax.probe import records as records_lib
from erp_jax.probe import rewards as rewards_lib
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from erp_jax.report import experiment
from erp_jax.report import newcomer as report
from erp_jax.route import stage as route_stage
from erp_jax.sample import stage as sample_stage
from erp_jax.score import imported
from erp_jax.score import stage as score_stage
from launch import experiments, sources

_LEAD = [
  'What does one more arm bring? The share of the prompts that it would get, '
  'the cost that it saves at equal regret, and the regret at equal cost, each '
  'with an interval over test prompts for these two fitted routers.',
  'And how many of its prompts have to be scored first: routers with a probe '
  'of the newcomer from fewer prompts, on the same test prompts.',
]


class Source(NamedTuple):
  """Where the newcomer's rewards come from; all empty: the config knows it.

  Attributes:
    model, system_prompt, nominal_b: as in an arm, to be sampled.
    table, reward: a file of rewards, and the reward model that gave them.
    cost: of each of the table's answers; NaN: the table says.
  """

  model: str = ''
  system_prompt: str = ''
  nominal_b: float = 0.0
  table: str = ''
  reward: str = ''
  cost: float = math.nan


class Newcomer(NamedTuple):
  """Records with the newcomer among their arms, and how they are split."""

  records: records_lib.Records
  train_N: np.ndarray
  ridge: ridge.RidgeConfig


def find(cfg, workdir, name: str, how: Source) -> list[Newcomer]:
  """Makes what is missing of the newcomer; the other arms stay as they are.

  Raises UserError for a source that is not one, and a name that is taken.
  """
  if how.model and how.table:
    raise errors.UserError(
      '--model and --rewards_table are two ways to get rewards: give one.'
    )
  if (how.model or how.table) and name in cfg.arms:
    raise errors.UserError(
      f'--arm={name} is an arm of the config: give the newcomer another name, '
      'or --arm alone for the arm as it is there.'
    )
  if how.table:
    workdir_lib.check_name('arm', name)
    return [from_table(cfg, workdir, name, how)]
  if how.model:
    arm = arms_lib.Arm(
      model=how.model,
      system_prompt=how.system_prompt,
      nominal_b=how.nominal_b,
    )
    return [sampled(cfg, workdir, name, arm)]
  if name in cfg.arms and cfg.experiments.origin == 'run':
    return [sampled(cfg, workdir, name, cfg.arms[name])]
  return held_out(cfg, workdir, name)


def folder_name(name: str) -> str:
  """Of that arm's results in experiments: one for each name."""
  safe = re.sub('[^A-Za-z0-9._-]+', '-', name)
  digest = '' if safe == name else f'-{store.digest(name)[:8]}'
  return f'add_arm-{safe}{digest}'


def publish(
  cfg, workdir, name: str, found: list[Newcomer]
) -> dict[str, dict[str, Any]]:
  """Writes experiments/add_arm-NAME; what is there is not made again.

  Returns `report.newcomer.measure` of each of the records, by name.
  """
  own, bootstrap = cfg.experiments.newcomer, cfg.experiments.common.bootstrap
  folder = folder_name(name)

  def make():
    measured = {
      one.records.name: report.measure(
        *(one.records, name, one.train_N, one.ridge, own, bootstrap)
      )
      for one in found
    }
    sections = [report.section(metrics) for metrics in measured.values()]
    return experiment.Result(sections, measured)

  experiments.publish(
    *(workdir, folder, f'One more arm: {name}', _LEAD),
    *(_identity(cfg, name, found), [one.records for one in found], make),
  )
  return experiments.read_metrics(workdir, folder)


def sampled(cfg, workdir, name: str, arm: arms_lib.Arm) -> Newcomer:
  """Samples, scores and fits this arm of the run alone, then reads them all."""
  loaded = prompts_lib.load(cfg.prompts)
  others = {other: a for other, a in cfg.arms.items() if other != name}
  _check_fitted(cfg, workdir, cfg.rewards, others, loaded)
  own = {name: arm}
  sample_stage.run(workdir, own, loaded, cfg.sample)
  score_stage.run(workdir, cfg.rewards, own, loaded)
  _fit(cfg, workdir, cfg.rewards, name, loaded)
  enlarged = dataclasses.replace(cfg, arms=others | own)
  return _of_run(cfg, sources.from_run(enlarged, workdir), loaded)


def from_table(cfg, workdir, name: str, how: Source) -> Newcomer:
  """Imports one reward model's rewards of the arm, fits it, then reads them."""
  reward = how.reward
  loaded = prompts_lib.load(cfg.prompts)
  if reward not in cfg.rewards:
    raise errors.UserError(
      f'--reward={reward}: the table’s rewards must be those of a reward model '
      f'of the config; {config.did_you_mean(reward, cfg.rewards)}'
    )
  only = {reward: cfg.rewards[reward]}
  _check_fitted(cfg, workdir, only, cfg.arms, loaded)
  imported.run(workdir, reward, only[reward], name, loaded, how.table, how.cost)
  _fit(cfg, workdir, only, name, loaded)
  pool = sources.from_run(dataclasses.replace(cfg, rewards=only), workdir)
  ids = pool.prompt_ids
  folder = workdir.path / rewards_lib.folder(reward, name)
  target = rewards_lib.read(workdir.path, reward, [name], ids)
  cost_N = imported.read_cost(workdir.path, reward, name, ids)
  fixed = pool.cost_source == 'given' and not math.isnan(how.cost)
  if fixed:
    cost_N[:] = how.cost
  mean_NM = np.column_stack([pool.mean_NM(reward), target.mean_NM])
  enlarged = dataclasses.replace(
    pool,
    arms=(*pool.arms, name),
    reward_NKM={reward: mean_NM[:, None, :]},
    cost_NM=np.column_stack([pool.cost_NM, cost_N]),
    cost_source='given' if fixed else 'recorded',
    flag_NKM={},  # Of the newcomer's responses nothing is known.
    digest=store.digest([pool.digest, store.read_manifest(folder)['digest']]),
  )
  return _of_run(cfg, enlarged, loaded)


def held_out(cfg, workdir, name: str) -> list[Newcomer]:
  """Records of the config in which that arm is there already."""
  live = cfg.experiments.origin == 'simulated' and name in cfg.arms
  replays = {n: r for n, r in cfg.replays.items() if name in r.models}
  if not live and not replays:
    known = [*cfg.arms, *(m for r in cfg.replays.values() for m in r.models)]
    raise errors.UserError(
      f'--arm={name} is no arm of the config, and neither --model nor '
      f'--rewards_table says what it is; {config.did_you_mean(name, known)}'
    )
  origin = 'simulated' if live else 'recorded'
  chosen = dataclasses.replace(
    cfg,
    replays=replays,
    experiments=dataclasses.replace(cfg.experiments, origin=origin),
  )
  common = cfg.experiments.common
  return [
    Newcomer(one, next(common.masks(one)), common.ridge)
    for one in sources.load(chosen, workdir)
  ]


def _identity(cfg, name, found) -> dict[str, Any]:
  return {
    'stage': 'experiments/add_arm',
    'format_version': experiments.FORMAT_VERSION,
    'arm': name,
    'newcomer': config.as_plain(cfg.experiments.newcomer),
    'bootstrap': config.as_plain(cfg.experiments.common.bootstrap),
    'records': {
      one.records.name: {
        'title': one.records.title,
        'digest': one.records.digest,
        'train': store.digest(one.train_N.tolist()),
        'ridge': config.as_plain(one.ridge),
      }
      for one in found
    },
  }


def _of_run(cfg, records, loaded) -> Newcomer:
  return Newcomer(records, fit_stage.train_mask(loaded, cfg.fit), cfg.fit.ridge)


def _fit(cfg, workdir, rewards, name, loaded) -> None:
  encoder = embed_stage.folder(cfg.embed)
  fit_stage.run(workdir, rewards, [name], loaded, encoder, cfg.fit)


def _check_fitted(cfg, workdir, rewards, arms, loaded) -> None:
  """UserError unless the pool is there, before hours go into the newcomer."""
  encoder = embed_stage.folder(cfg.embed)
  for reward in rewards:
    route_stage.check_probes(workdir, reward, arms, loaded, encoder, cfg.fit)
