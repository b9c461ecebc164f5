"""The Bradley-Terry head of Eq. 2.1 on frozen features of preference pairs.

r* = argmax_r E log σ(r(x, y₊) − r(x, y₋)), with r linear or a small MLP of
standardised features. No r has a bias at its end: it would cancel.
Axis I is that of pairs.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from erp_jax.core import errors, training
from erp_jax.score import preference

_log = logging.getLogger(__name__)


class Linear(nnx.Module):
  """r(x) = w·x, which starts at 0: the training problem is convex."""

  def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
    del hidden
    self.out = nnx.Linear(
      *(width, 1),
      use_bias=False,
      kernel_init=nnx.initializers.zeros_init(),
      rngs=rngs,
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Rewards [...] of features [..., E]."""
    return self.out(x)[..., 0]


class Mlp(nnx.Module):
  """r(x) = w·gelu(Ux + b)."""

  def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
    self.up = nnx.Linear(width, hidden, rngs=rngs)
    self.out = nnx.Linear(hidden, 1, use_bias=False, rngs=rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Rewards [...] of features [..., E]."""
    return self.out(nnx.gelu(self.up(x)))[..., 0]


_HEADS = {'linear': Linear, 'mlp': Mlp}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """The head, and how it is trained: Adam, its rate falling to 0 as a cosine.

  The objective is the mean loss of the pairs + weight_decay / 2 · ‖weights‖²,
  biases left out.
  """

  head: str = 'linear'  # linear or mlp.
  hidden: int = 128  # Width of the mlp's layer.
  learning_rate: float = 3e-3
  weight_decay: float = 0.1
  epochs: int = 100
  batch: int = 256  # Pairs a step; 0 is all of them.
  seed: int = 0  # Of the start and of the order of pairs.
  # Epochs without a better validation loss before training stops; the best
  # epoch's weights are kept. 0: no validation, all pairs train to the end.
  patience: int = 10
  validation_frac: float = 0.1  # Of the training prompts.

  def __post_init__(self):
    errors.check_choice('train.head', self.head, _HEADS)
    if self.learning_rate <= 0 or self.weight_decay < 0:
      raise errors.UserError(
        'train needs learning_rate > 0 and weight_decay >= 0, got '
        f'{self.learning_rate} and {self.weight_decay}.'
      )
    if self.hidden < 1 or self.epochs < 1 or min(self.batch, self.patience) < 0:
      raise errors.UserError(
        'train needs hidden >= 1, epochs >= 1, batch >= 0 and patience >= 0, '
        f'got {self.hidden}, {self.epochs}, {self.batch} and {self.patience}.'
      )
    if not 0 < self.validation_frac < 1:
      raise errors.UserError(
        'train.validation_frac must be between 0 and 1, got '
        f'{self.validation_frac}: set train.patience=0 for no validation.'
      )


@dataclasses.dataclass(frozen=True)
class Reward:
  """A trained reward model of features.

  Attributes:
    mean_E: of the training features; subtracted.
    scale_E: their standard deviations; divided by.
  """

  mean_E: np.ndarray
  scale_E: np.ndarray
  graph: Any
  params: Any

  def __call__(self, x_BE: np.ndarray) -> np.ndarray:
    """Rewards [B], float32, in logits."""
    return training.outputs(self.graph, self.params, self._scaled(x_BE))

  def arrays(self) -> dict[str, np.ndarray]:
    """All that `restore` needs, by name."""
    scaling = {'mean_E': self.mean_E, 'scale_E': self.scale_E}
    return scaling | training.arrays(self.params)

  def _scaled(self, x_BE: np.ndarray) -> np.ndarray:
    return ((x_BE - self.mean_E) / self.scale_E).astype(np.float32)


def restore(cfg: TrainConfig, arrays: Mapping[str, np.ndarray]) -> Reward:
  """The Reward whose `arrays` these are."""
  graph, params = _start(cfg, len(arrays['mean_E']))
  params = training.restored(params, arrays)
  return Reward(arrays['mean_E'], arrays['scale_E'], graph, params)


def fit(
  chosen_IE: np.ndarray,
  rejected_IE: np.ndarray,
  prompts: Sequence[str],
  cfg: TrainConfig,
) -> tuple[Reward, dict[str, Any]]:
  """A Reward, and what to report: loss curves, the epoch kept.

  Curves are mean −log σ(margin) over the pairs that train and those that
  validate, after each epoch, without the penalty. The result is a function of
  the arguments alone on one kind of machine.
  """
  train_I = np.ones(len(prompts), bool)
  if cfg.patience:
    train_I = preference.train_mask(prompts, cfg.seed, cfg.validation_frac)
  both_BE = np.concatenate([chosen_IE[train_I], rejected_IE[train_I]])
  mean_E = both_BE.mean(0, dtype=np.float64).astype(np.float32)
  scale_E = both_BE.std(0, dtype=np.float64).astype(np.float32)
  scale_E[scale_E == 0] = 1  # A constant feature says nothing.
  graph, params = _start(cfg, len(mean_E))
  reward = Reward(mean_E, scale_E, graph, params)
  chosen_IE, rejected_IE = (
    reward._scaled(chosen_IE),
    reward._scaled(rejected_IE),
  )
  sides = {
    side: (jnp.asarray(chosen_IE[mask_I]), jnp.asarray(rejected_IE[mask_I]))
    for side, mask_I in (('train', train_I), ('validation', ~train_I))
    if mask_I.any()
  }
  trained = training.train(_loss, graph, params, sides, cfg)
  num_train = int(train_I.sum())
  _log.info(
    'Trained %d epochs on %d pairs, kept epoch %d: loss %.4f.',
    *(len(trained.curves['train']), num_train, trained.epoch, trained.loss),
  )
  report = {
    'curves': trained.curves,
    'epoch': trained.epoch,
    'pairs': num_train,
  }
  return dataclasses.replace(reward, params=trained.params), report


def _start(cfg: TrainConfig, width: int) -> tuple[Any, Any]:
  """Graph and initial parameters of the head."""
  head = _HEADS[cfg.head](width, cfg.hidden, nnx.Rngs(cfg.seed))
  return nnx.split(head)


@functools.partial(jax.jit, static_argnames='graph')
def _loss(params, graph, decay, chosen_IE, rejected_IE):
  """−log σ(r(chosen) − r(rejected)), mean over pairs, and the penalty."""
  chosen_I, rejected_I = (
    training.apply(graph, params, x_IE) for x_IE in (chosen_IE, rejected_IE)
  )
  loss = jax.nn.softplus(rejected_I - chosen_I).mean()
  return loss + training.penalty(params, decay)
