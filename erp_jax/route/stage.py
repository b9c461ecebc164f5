"""Probes, rewards and costs of a run -> routes/{reward}: how routing does."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from erp_jax.core import config, resample, store, upstream
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import embeddings, outcomes
from erp_jax.data import prompts as prompts_lib
from erp_jax.probe import rewards as rewards_lib
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from erp_jax.route import costs, results

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouteConfig:
  """How policies are priced and compared."""

  cost: costs.CostConfig = costs.CostConfig()
  bootstrap: resample.BootstrapConfig = resample.BootstrapConfig()


def run(
  workdir: workdir_lib.Workdir,
  rewards: Iterable[str],
  arms: Mapping[str, arms_lib.Arm],
  prompts: Sequence[prompts_lib.Prompt],
  encoder: str,
  fit_cfg: fit_stage.FitConfig,
  cfg: RouteConfig,
) -> None:
  """Evaluates each reward model's router on the test half of the prompts.

  The probes must be fitted on these prompts. A changed list of arms makes it
  anew: it is cheap.
  """
  for reward in rewards:
    check_probes(workdir, reward, arms, prompts, encoder, fit_cfg)
    artifact = _artifact(
      workdir, reward, arms, encoder, made_with(prompts, fit_cfg, cfg)
    )
    if artifact.is_done():
      continue
    prompt_ids = [p.id for p in prompts]
    emb_NE = embeddings.read(workdir.path / encoder, prompt_ids)
    probe = fit_stage.load(workdir.path, reward, tuple(arms))
    result = results.SplitResult(
      fit_cfg.split_seed,
      fit_stage.train_mask(prompts, fit_cfg),
      ridge.predict(probe, emb_NE),
    )
    files = results.files(
      read_outcomes(workdir, reward, arms, prompts, cfg.cost),
      costs.UNITS[cfg.cost.kind],
      [result],
      cfg.bootstrap,
    )
    with workdir.writer(artifact) as writer:
      for name, data in files.items():
        writer.write_file(name, data)
      writer.finish()


def check_probes(
  workdir: workdir_lib.Workdir,
  reward: str,
  arms: Iterable[str],
  prompts: Sequence[prompts_lib.Prompt],
  encoder: str,
  fit_cfg: fit_stage.FitConfig,
) -> None:
  """UserError unless the run's probes are of these prompts and this config.

  And of its rewards, which must be of its responses.
  """
  digest = lambda name: upstream.digest(workdir.path / name)
  for arm in arms:
    upstream.check_current(
      workdir.path / rewards_lib.folder(reward, arm),
      workdir.path / 'responses' / arm,
    )
    store.check_made_with(
      workdir.path / 'probes' / reward / arm,
      {
        'prompts': prompts_lib.digest(prompts),
        'fit': config.as_plain(fit_cfg),
        'rewards': digest(rewards_lib.folder(reward, arm)),
        'embeddings': digest(encoder),
      },
    )


def made_with(
  prompts: Sequence[prompts_lib.Prompt],
  fit_cfg: fit_stage.FitConfig,
  cfg: RouteConfig,
) -> dict[str, Any]:
  """The part of an evaluation's identity that follows from the config."""
  return {
    'prompts': prompts_lib.digest(prompts),
    'fit': config.as_plain(fit_cfg),
    'route': config.as_plain(cfg),
  }


def _artifact(workdir, reward, arms, encoder, made) -> store.Artifact:
  digest = lambda name: upstream.digest(workdir.path / name)
  identity = {
    'stage': 'route',
    'format_version': FORMAT_VERSION,
    **made,
    'embeddings': digest(encoder),
    'arms': {
      name: {
        **{price: getattr(arm, price) for price in arms_lib.PRICES},
        'responses': digest(f'responses/{name}'),
        'rewards': digest(rewards_lib.folder(reward, name)),
        'probe': digest(f'probes/{reward}/{name}'),
      }
      for name, arm in arms.items()
    },
  }
  return workdir.artifact(f'routes/{reward}', identity, replaceable=True)


def read_outcomes(
  workdir: workdir_lib.Workdir,
  reward: str,
  arms: Mapping[str, arms_lib.Arm],
  prompts: Sequence[prompts_lib.Prompt],
  cfg: costs.CostConfig,
) -> outcomes.Outcomes:
  """The run's own rewards and costs, as a table of recorded outcomes."""
  names = tuple(arms)
  prompt_ids = tuple(p.id for p in prompts)
  target = rewards_lib.read(workdir.path, reward, names, prompt_ids)
  cost_NM = costs.read(workdir.path, arms, prompt_ids, cfg)
  fixed = cfg.kind not in costs.PER_ANSWER
  return outcomes.Outcomes(
    prompt_ids=prompt_ids,
    prompts=tuple(p.prompt for p in prompts),
    category_N=np.array([p.category for p in prompts]),
    models=names,
    reward_NM=target.mean_NM,
    cost_NM=cost_NM,
    cost_source='given' if fixed else 'recorded',
    reward_kind=reward,
    counts={
      'prompts': len(prompts),
      'prompts_complete': int(np.isfinite(target.mean_NM).all(axis=1).sum()),
      'rewards': int(target.num_NM.sum()),
      'rewards_not_finite': int(target.num_not_finite_M.sum()),
    },
  )
