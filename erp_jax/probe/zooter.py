"""Zooter (PAPER.md 15): one softmax over the arms, fitted to their rewards.

min over θ of mean_x KL(softmax(ÊR(x) / τ) ‖ softmax(f_θ(v(x)))), with f linear
or a small MLP. A softmax ignores what is common to all arms, so scores are
centred over them.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from erp_jax.core import checkpoint, errors, training
from erp_jax.data import splits
from erp_jax.probe import ridge, soft_targets

_log = logging.getLogger(__name__)


class Linear(nnx.Module):
  """f(x) = Wx + b, which starts at 0: the training problem is convex."""

  def __init__(self, width: int, hidden: int, num_arms: int, rngs: nnx.Rngs):
    del hidden
    self.out = _zeros(width, num_arms, rngs)

  def __call__(self, x_BE: jax.Array) -> jax.Array:
    """Logits [B, M]."""
    return self.out(x_BE)


class Mlp(nnx.Module):
  """f(x) = W gelu(Ux + a) + b; W starts at 0, so arms start equal."""

  def __init__(self, width: int, hidden: int, num_arms: int, rngs: nnx.Rngs):
    self.up = nnx.Linear(width, hidden, rngs=rngs)
    self.out = _zeros(hidden, num_arms, rngs)

  def __call__(self, x_BE: jax.Array) -> jax.Array:
    """Logits [B, M]."""
    return self.out(nnx.gelu(self.up(x_BE)))


_HEADS = {'linear': Linear, 'mlp': Mlp}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZooterConfig:
  """Targets, head, and training: Adam, its rate falling to 0 as a cosine.

  The objective is the mean KL of the prompts + weight_decay / 2 · ‖weights‖²,
  biases left out. Features are centred and divided by one number, so that
  their mean square is 1: weight_decay means the same for every encoder.
  """

  tau: float = 1.0  # Temperature of the targets, in units of reward.
  # 'mean': softmax(ÊR / τ); 'samples': mean over k of softmax(r_k / τ).
  target: str = 'mean'
  # Share of the category's mean reward in every reward, before the softmax
  # (the label enhancement by tags of the Zooter paper, arXiv 2311.08692).
  category_weight: float = 0.0
  head: str = 'linear'  # Or 'mlp'.
  hidden: int = 128  # Width of the mlp's layer.
  embedding: str = 'unit'  # Rows scaled to length 1, or 'raw'.
  learning_rate: float = 3e-3
  # About the shrinkage that β = 1 gives ERP on 2000 prompts of width 1024.
  weight_decay: float = 0.1
  epochs: int = 100
  batch: int = 256  # Prompts a step; 0 is all of them.
  seed: int = 0  # Of the start, the order of prompts and the validation part.
  # Epochs without a better validation loss before training stops; the best
  # epoch's weights are kept. 0: no validation, all prompts train to the end.
  patience: int = 10
  validation_frac: float = 0.1  # Of the training prompts.

  def __post_init__(self):
    for name, allowed in (
      ('target', ('mean', 'samples')),
      ('head', tuple(_HEADS)),
      ('embedding', ('unit', 'raw')),
    ):
      errors.check_choice(f'zooter.{name}', getattr(self, name), allowed)
    for name in ('tau', 'learning_rate'):
      value = getattr(self, name)
      if not (np.isfinite(value) and value > 0):
        raise errors.UserError(f'zooter.{name} must be > 0, got {value}.')
    if not (np.isfinite(self.weight_decay) and self.weight_decay >= 0):
      raise errors.UserError(
        f'zooter.weight_decay must be >= 0, got {self.weight_decay}.'
      )
    for name, least in (
      ('hidden', 1),
      ('epochs', 1),
      ('batch', 0),
      ('seed', 0),
      ('patience', 0),
    ):
      errors.check_least(f'zooter.{name}', getattr(self, name), least)
    if not 0 <= self.category_weight <= 1:
      raise errors.UserError(
        'zooter.category_weight must be from 0 to 1, got '
        f'{self.category_weight}.'
      )
    if not 0 < self.validation_frac < 1:
      raise errors.UserError(
        'zooter.validation_frac must be between 0 and 1, got '
        f'{self.validation_frac}: set zooter.patience=0 for no validation.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Zooter:
  """A fitted network.

  Attributes:
    tau: the temperature that it was trained with.
    embedding: 'unit' or 'raw', as in the config.
    mean_E: of the training features; subtracted.
    scale: their root mean square, one number; divided by.
    known_M: arms that had any reward to learn from.
    graph, params: of the head, whose outputs are the known arms.
  """

  tau: float
  embedding: str
  mean_E: np.ndarray
  scale: float
  known_M: np.ndarray
  graph: Any
  params: Any

  def score(self, emb_NE: np.ndarray) -> np.ndarray:
    """score_NM = τ · log p, centred over the known arms; others are NaN.

    In units of reward, so argmax(score − λ cost) routes (PAPER.md 15).
    Computed in float32, returned as float64. Raises UserError for embeddings
    that are not finite, or of another width.
    """
    x_NE = ridge.prepare_for(
      len(self.mean_E), 'Zooter was', emb_NE, self.embedding
    )
    x_NE = _scaled(x_NE, self.mean_E, self.scale)
    logit_NM = training.outputs(self.graph, self.params, x_NE)
    logit_NM = logit_NM.astype(np.float64)
    score_NM = np.full((len(x_NE), len(self.known_M)), np.nan)
    # log p is a logit less what its prompt's arms share: centring drops that.
    score_NM[:, self.known_M] = self.tau * (
      logit_NM - logit_NM.mean(axis=1, keepdims=True)
    )
    return score_NM


def save(path: epath.PathLike, zooter: Zooter) -> None:
  """Writes an orbax folder with all that `restore` needs."""
  checkpoint.save(path, arrays(zooter))


def restore(path: epath.PathLike) -> Zooter:
  """The network that `save` wrote; its scores are the same to the bit."""
  saved = checkpoint.load(path)
  up_EH = saved.get(f'{training.PREFIX}up.kernel')
  graph, params = _start(
    'linear' if up_EH is None else 'mlp',
    1 if up_EH is None else up_EH.shape[1],
    (len(saved['mean_E']), int(saved['known_M'].sum())),
    0,
  )
  return Zooter(
    tau=float(saved['tau']),
    embedding='unit' if saved['unit'] else 'raw',
    mean_E=saved['mean_E'],
    scale=float(saved['scale']),
    known_M=saved['known_M'],
    graph=graph,
    params=training.restored(params, saved),
  )


def arrays(zooter: Zooter) -> dict[str, np.ndarray]:
  """What a checkpoint holds, by name, as `checkpoint.content_digest` reads."""
  return {
    'tau': np.asarray(zooter.tau),
    'unit': np.asarray(zooter.embedding == 'unit'),
    'mean_E': zooter.mean_E,
    'scale': np.asarray(zooter.scale),
    'known_M': zooter.known_M,
  } | training.arrays(zooter.params)


def fit(
  emb_NE: np.ndarray,
  reward_NKM: np.ndarray,
  prompt_ids: Sequence[str],
  cfg: ZooterConfig,
  category_N: Sequence[str] = (),
) -> tuple[Zooter, dict[str, Any]]:
  """A network, and what to report: loss curves, the epoch kept, counts.

  Curves are mean KL, in nats, over the prompts that train and those that
  validate, after each epoch, without the penalty. The result is a function of
  the arguments alone on one kind of machine; an arm without a single reward
  changes nothing but its own column of scores, which is NaN.
  `category_N` is read for category_weight > 0 alone; the means of categories
  are over all these prompts, validation included.
  Raises UserError for fewer than two prompts with rewards of two arms, and as
  `ridge.prepare` does.
  """
  emb_NE = ridge.prepare(emb_NE, cfg.embedding)
  if cfg.category_weight and len(category_N) != len(emb_NE):
    raise errors.UserError(
      f'zooter.category_weight is {cfg.category_weight}, but there are '
      f'{len(category_N)} categories for {len(emb_NE)} prompts: give one each, '
      'or set it to 0.'
    )
  if not len(emb_NE) == len(reward_NKM) == len(prompt_ids):
    raise ValueError(
      f'{len(emb_NE)} embeddings, {len(reward_NKM)} rewards and '
      f'{len(prompt_ids)} ids must be of the same prompts.'
    )
  target_NM = soft_targets.soften(
    reward_NKM,
    tau=cfg.tau,
    average=cfg.target,
    category_weight=cfg.category_weight,
    category_N=category_N,
  )
  known_M = np.isfinite(target_NM).any(axis=0)
  usable_N = np.isfinite(target_NM).any(axis=1)
  if usable_N.sum() < 2:
    raise errors.UserError(
      f'{usable_N.sum()} training prompts have rewards of two arms or more, '
      'but Zooter compares arms and needs 2 such prompts: score more responses.'
    )
  target_NM = target_NM[usable_N][:, known_M].astype(np.float32)
  ids = [name for name, use in zip(prompt_ids, usable_N, strict=True) if use]
  train_N = np.ones(len(ids), bool)
  if cfg.patience:
    train_N = splits.train_mask(
      ids, [''] * len(ids), cfg.seed, 1 - cfg.validation_frac
    )
  mean_E = emb_NE[usable_N][train_N].mean(axis=0)
  scale = float(np.sqrt(((emb_NE[usable_N][train_N] - mean_E) ** 2).mean()))
  scale = scale or 1.0  # Equal prompts: nothing but the biases is learnt.
  x_NE = _scaled(emb_NE[usable_N], mean_E, scale)
  sides = {
    side: (jnp.asarray(x_NE[mask_N]), jnp.asarray(target_NM[mask_N]))
    for side, mask_N in (('train', train_N), ('validation', ~train_N))
    if mask_N.any()
  }
  shape = x_NE.shape[1], int(known_M.sum())
  graph, params = _start(cfg.head, cfg.hidden, shape, cfg.seed)
  trained = training.train(_loss, graph, params, sides, cfg)
  num_train = int(train_N.sum())
  _log.info(
    'Trained Zooter %d epochs on %d prompts, kept epoch %d: KL %.4f.',
    *(len(trained.curves['train']), num_train, trained.epoch, trained.loss),
  )
  zooter = Zooter(
    tau=cfg.tau,
    embedding=cfg.embedding,
    mean_E=mean_E,
    scale=scale,
    known_M=known_M,
    graph=graph,
    params=trained.params,
  )
  return zooter, {
    'curves': trained.curves,
    'epoch': trained.epoch,
    'prompts': num_train,
    'left_out': int((~usable_N).sum()),
  }


def _zeros(width: int, num_arms: int, rngs: nnx.Rngs) -> nnx.Linear:
  init = nnx.initializers.zeros_init()
  return nnx.Linear(width, num_arms, kernel_init=init, rngs=rngs)


def _start(
  head: str, hidden: int, shape: tuple[int, int], seed: int
) -> tuple[Any, Any]:
  """Graph and initial parameters; `shape` is features by arms."""
  width, num_arms = shape
  return nnx.split(_HEADS[head](width, hidden, num_arms, nnx.Rngs(seed)))


def _scaled(x_NE: np.ndarray, mean_E: np.ndarray, scale: float) -> np.ndarray:
  return ((x_NE - mean_E) / scale).astype(np.float32)


@functools.partial(jax.jit, static_argnames='graph')
def _loss(params, graph, decay, x_BE, target_BM):
  """Mean KL over prompts, each over its arms present, and the penalty."""
  present_BM = ~jnp.isnan(target_BM)
  logit_BM = training.apply(graph, params, x_BE)
  log_p_BM = jax.nn.log_softmax(logit_BM, where=present_BM)
  # Absent arms have log p = −inf and a target of 0: their product is no number.
  log_p_BM = jnp.where(present_BM, log_p_BM, 0.0)
  target_BM = jnp.where(present_BM, target_BM, 0.0)
  entropy_BM = jax.scipy.special.entr(target_BM)
  kl = -(entropy_BM + target_BM * log_p_BM).sum(axis=1).mean()
  return kl + training.penalty(params, decay)
