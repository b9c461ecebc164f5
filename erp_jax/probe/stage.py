"""Rewards and embeddings -> one ridge probe per reward model and arm."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from erp_jax.core import checkpoint, store, upstream
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import embeddings, splits
from erp_jax.data import prompts as prompts_lib
from erp_jax.probe import rewards as rewards_lib
from erp_jax.probe import ridge as ridge_lib

FORMAT_VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
  """Which prompts train the probes, and how."""

  split_seed: int = 0
  train_frac: float = 0.5  # Of each category.
  ridge: ridge_lib.RidgeConfig = ridge_lib.RidgeConfig()


def train_mask(
  prompts: Sequence[prompts_lib.Prompt], cfg: FitConfig
) -> np.ndarray:
  """train_N: which prompts train."""
  return splits.train_mask(
    [p.id for p in prompts],
    [p.category for p in prompts],
    cfg.split_seed,
    cfg.train_frac,
  )


def run(
  workdir: workdir_lib.Workdir,
  rewards: Mapping[str, Any],
  arms: Iterable[str],
  prompts: Sequence[prompts_lib.Prompt],
  encoder: str,
  cfg: FitConfig,
) -> None:
  """Fits what is missing; the other arms' folders are not touched.

  `rewards` are the reward models' configs; `encoder` is the folder of the
  embeddings in the run. Raises UserError if stored rewards or embeddings are
  of other prompts or another reward model, or rewards of other responses than
  are there.
  """
  prompt_ids = [p.id for p in prompts]
  emb_NE = embeddings.read(workdir.path / encoder, prompt_ids)
  train_N = train_mask(prompts, cfg)
  store.check_made_with(
    workdir.path / encoder, {'prompts': prompts_lib.text_digest(prompts)}
  )
  made_with = {'prompts': prompts_lib.digest(prompts)}
  for reward, reward_cfg in rewards.items():
    wanted = made_with | {'reward': reward_cfg.fields()}
    for arm in arms:
      folder = workdir.path / rewards_lib.folder(reward, arm)
      store.check_made_with(folder, wanted)
      upstream.check_current(folder, workdir.path / 'responses' / arm)
    artifacts = {
      arm: _artifact(workdir, reward, arm, prompts, encoder, cfg)
      for arm in arms
    }
    todo = [arm for arm, art in artifacts.items() if not art.is_done()]
    if not todo:
      continue
    mean_NM = rewards_lib.read(workdir.path, reward, todo, prompt_ids).mean_NM
    names = [f'{reward}/{arm}' for arm in todo]
    probe = ridge_lib.fit(emb_NE[train_N], mean_NM[train_N], cfg.ridge, names)
    for m, arm in enumerate(todo):
      _save(workdir, artifacts[arm], probe, m)


def load(
  run_folder: epath.Path, reward: str, arms: Sequence[str]
) -> ridge_lib.Probe:
  """The saved probes of these arms, side by side."""
  parts = []
  for arm in arms:
    folder = run_folder / 'probes' / reward / arm
    manifest = store.read_manifest(folder)
    arrays = checkpoint.load(folder / 'weights')
    checkpoint.check_digest(folder, arrays, manifest['files']['weights'])
    parts.append(arrays)
  stack = lambda name: np.stack([part[name] for part in parts], axis=-1)
  return ridge_lib.Probe(
    theta_EM=stack('theta_E'),
    bias_M=stack('bias'),
    beta_M=stack('beta'),
    num_prompts_M=stack('num_prompts'),
    betas_A=parts[0]['betas_A'],
    loo_mse_AM=stack('loo_mse_A'),
    embedding=manifest['identity']['fit']['ridge']['embedding'],
  )


def _artifact(workdir, reward, arm, prompts, encoder, cfg) -> store.Artifact:
  digest = lambda name: upstream.digest(workdir.path / name)
  identity = {
    'stage': 'fit',
    'format_version': FORMAT_VERSION,
    'fit': dataclasses.asdict(cfg),
    'prompts': prompts_lib.digest(prompts),
    'rewards': digest(rewards_lib.folder(reward, arm)),
    'embeddings': digest(encoder),
  }
  return workdir.artifact(f'probes/{reward}/{arm}', identity)


def _save(workdir, artifact, probe: ridge_lib.Probe, m: int) -> None:
  """Writes arm m's arrays; probes are float64, as they were fitted."""
  arrays = {
    'theta_E': np.ascontiguousarray(probe.theta_EM[:, m]),
    'bias': np.asarray(probe.bias_M[m]),
    'beta': np.asarray(probe.beta_M[m]),
    'num_prompts': np.asarray(probe.num_prompts_M[m]),
    'betas_A': probe.betas_A,
    'loo_mse_A': np.ascontiguousarray(probe.loo_mse_AM[:, m]),
  }
  with workdir.writer(artifact) as writer:
    checkpoint.save(artifact.path / 'weights', arrays)
    writer.add_file('weights', checkpoint.content_digest(arrays))
    writer.finish()
