"""Scoring with a reward model that `launch.train_reward` trained."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from erp_jax.core import checkpoint as weights_lib
from erp_jax.core import config, errors, store
from erp_jax.models import checkpoint
from erp_jax.score import bradley_terry, features, train_stage


@dataclasses.dataclass
class PreferenceReward:
  """A trained head on its frozen network.

  Attributes:
    num_cut: rows that the last call of `score` cut.
  """

  reader: features.EncoderReader | features.DecoderReader
  reward: bradley_terry.Reward
  num_cut: int = 0

  def score(
    self,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    advance: Callable[..., None] = lambda num_done, positions=0: None,
  ) -> list[np.ndarray]:
    """Rewards of each prompt's responses, float32: logits, no zero point.

    Sets `num_cut`. `advance(n, positions=p)` is called when n more rows with p
    tokens are read.
    """
    rows = self.reader.read(prompts, texts, advance)
    self.num_cut = self.reader.num_cut
    return [self.reward(x_KE) for x_KE in rows]


def revision(path: epath.PathLike) -> str:
  """What identifies the rewards of a trained workdir: a digest of its weights.

  It covers the frozen network too. Raises UserError if it is not complete.
  """
  manifest = store.read_manifest(epath.Path(path) / train_stage.FOLDER)
  return store.digest([manifest['digest'], manifest['files']])


def load(path: epath.PathLike) -> PreferenceReward:
  """The reward model that a run of launch.train_reward left in `path`.

  Raises UserError if it is not complete, altered, or if its network is not any
  longer the one that it was trained on.
  """
  folder = epath.Path(path) / train_stage.FOLDER
  manifest = store.read_manifest(folder)
  arrays = weights_lib.load(folder / train_stage.WEIGHTS)
  expected = manifest['files'][train_stage.WEIGHTS]
  weights_lib.check_digest(folder, arrays, expected)
  made_from = manifest['identity']['features']
  cfg = config.build(features.FeatureConfig, made_from['features'])
  found = checkpoint.open_checkpoint(cfg.model).revision
  if found != made_from['revision']:
    raise errors.UserError(
      f'{folder} was trained on revision {made_from["revision"][:12]} of '
      f'{cfg.model}, which is now {found[:12]}: put that one back, or train '
      'again in another --workdir.'
    )
  train = config.build(bradley_terry.TrainConfig, manifest['identity']['train'])
  return PreferenceReward(
    features.load(cfg), bradley_terry.restore(train, arrays)
  )
