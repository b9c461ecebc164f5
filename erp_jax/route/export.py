"""Probes, rewards and costs of a run -> router/{reward}: what can be served."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import embeddings
from erp_jax.data import prompts as prompts_lib
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from erp_jax.route import artifact, costs, stage
from erp_jax.route import guarded as guarded_lib
from erp_jax.route import policy as policy_lib
from erp_jax.route import split as split_lib

_log = logging.getLogger(__name__)

# How the ridge penalty of a policy is chosen.
_SELECTION = {policy_lib.ERP: 'fixed', policy_lib.ERP_LOO: 'leave_one_out'}
_POLICIES = (*_SELECTION, policy_lib.ERP_GUARDED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
  """Which policy a router has, and what it does with strange prompts."""

  policy: str = policy_lib.ERP  # Or erp_loo, erp_guarded.
  guarded: guarded_lib.GuardedConfig = guarded_lib.GuardedConfig()
  # Of training prompts' leverages: from there on, out of distribution.
  leverage_quantile: float = 0.99
  # What becomes of such a prompt: 'flag' routes it like any other and says so;
  # 'static_mixture' routes it without reading it, within the same budget.
  out_of_distribution: str = policy_lib.FLAG
  max_points: int = policy_lib.MAX_POINTS  # Of the λ path, kept in the file.

  def __post_init__(self):
    for name, allowed in (
      ('policy', _POLICIES),
      ('out_of_distribution', (policy_lib.FLAG, policy_lib.STATIC_MIXTURE)),
    ):
      errors.check_choice(name, getattr(self, name), allowed)
    if not 0 < self.leverage_quantile <= 1:
      raise errors.UserError(
        f'leverage_quantile is {self.leverage_quantile}; give a '
        'fraction over 0 and up to 1.'
      )
    errors.check_least('max_points', self.max_points, 2)


def folder(reward: str) -> str:
  """Where the run keeps one reward model's router."""
  return f'router/{reward}'


def run(
  workdir: workdir_lib.Workdir,
  rewards: Iterable[str],
  arms: Mapping[str, arms_lib.Arm],
  prompts: Sequence[prompts_lib.Prompt],
  encoder: str,
  fit_cfg: fit_stage.FitConfig,
  cost_cfg: costs.CostConfig,
  cfg: ExportConfig,
) -> None:
  """Writes a router for each reward model; the same bytes each time.

  Budgets are set on the test prompts, which no probe was fitted on.
  Raises UserError where the run's probes are of other prompts or settings.
  """
  for reward in rewards:
    stage.check_probes(workdir, reward, arms, prompts, encoder, fit_cfg)
    made = _policy(
      workdir, reward, arms, prompts, encoder, fit_cfg, cost_cfg, cfg
    )
    digest = lambda name: store.read_manifest(workdir.path / name)['digest']
    identity = store.read_manifest(workdir.path / encoder)['identity']
    path = workdir.path / folder(reward)
    artifact.save(
      path,
      artifact.Saved(
        policy=made,
        encoder={name: identity[name] for name in ('embed', 'revision')},
        made_from={
          'reward': reward,
          'prompts': prompts_lib.digest(prompts),
          'embeddings': digest(encoder),
          'probes': {arm: digest(f'probes/{reward}/{arm}') for arm in arms},
        },
        versions=workdir.provenance['versions'],
      ),
    )
    _log.info(
      '%s: %d arms, %d of %d points of the path, at most %.2g of predicted '
      'reward lost to the others.',
      *(path, len(made.arms), len(made.ladder.cost_P)),
      *(made.ladder.num_exact, made.ladder.reward_loss),
    )


def _policy(
  workdir, reward, arms, prompts, encoder, fit_cfg, cost_cfg, cfg
) -> policy_lib.Policy:
  """The policy of one reward model, calibrated on the test prompts."""
  table = stage.read_outcomes(workdir, reward, arms, prompts, cost_cfg)
  train_N = fit_stage.train_mask(prompts, fit_cfg)
  emb_NE = embeddings.read(workdir.path / encoder, table.prompt_ids)
  # For what a split checks and counts; its predictions are not used.
  split = split_lib.from_outcomes(
    table, train_N, np.zeros_like(table.reward_NM)
  )
  if cfg.policy == policy_lib.ERP_GUARDED:
    fitted = _guarded(emb_NE[train_N], split, fit_cfg.ridge, cfg)
  else:
    ridge_cfg = dataclasses.replace(
      fit_cfg.ridge, selection=_SELECTION[cfg.policy]
    )
    if ridge_cfg == fit_cfg.ridge:
      probe = fit_stage.load(workdir.path, reward, tuple(arms))
    else:
      names = [f'{reward}/{arm}' for arm in arms]
      probe = ridge.fit(
        emb_NE[train_N], split.train_reward_NM, ridge_cfg, names
      )
    part = policy_lib.ridge_part(
      *(probe, emb_NE[train_N], split.train_reward_NM),
      *(ridge_cfg, cfg.leverage_quantile),
    )
    fitted = _Fitted(probe.bias_M, part, np.zeros(len(arms)))
  return policy_lib.calibrate(
    name=cfg.policy,
    arms=table.models,
    cost_M=split.cost_M,
    mean_M=split.train_mean_M,
    bias_M=fitted.bias_M,
    parts=[fitted.part],
    emb_NE=emb_NE[~train_N],
    margin_M=fitted.margin_M,
    max_points=cfg.max_points,
    out_of_distribution=cfg.out_of_distribution,
  )


class _Fitted(NamedTuple):
  """What is fitted of a policy, as in policy.Policy."""

  bias_M: np.ndarray
  part: policy_lib.Part
  margin_M: np.ndarray


def _guarded(
  emb_NE: np.ndarray,
  split: split_lib.Split,
  ridge_cfg: ridge.RidgeConfig,
  cfg: ExportConfig,
) -> _Fitted:
  """Contrasts behind a guard; its margin is kept apart from predictions."""
  contrast = dataclasses.replace(
    cfg.guarded.contrast, embedding=ridge_cfg.embedding
  )
  found = guarded_lib.fit(
    emb_NE,
    split.train_reward_NM,
    split.cost_M,
    dataclasses.replace(
      cfg.guarded,
      contrast=contrast,
      leverage_quantile=cfg.leverage_quantile,
    ),
    split.train_category_N,
  )
  margin_M = np.zeros(len(split.cost_M))
  margin_M[found.best_arm] = found.margin
  return _Fitted(found.bias_M - margin_M, found.part, margin_M)
