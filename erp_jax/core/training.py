"""A small network: trained by Adam with a cosine of rates, applied, saved."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from erp_jax.core import sharding

PREFIX = 'head.'  # Of the names under which a network's arrays are saved.
_ROWS = 8192  # Read at once by `outputs`.


class Trained(NamedTuple):
  """What `train` ends with.

  Attributes:
    params: of the epoch kept.
    curves: {side: loss after each epoch}, without the penalty.
    epoch: the one kept, from 1.
    loss: its loss on the side that was watched.
  """

  params: Any
  curves: dict[str, list[float]]
  epoch: int
  loss: float


def train(
  loss: Callable[..., jax.Array],
  graph: Any,
  params: Any,
  sides: Mapping[str, tuple[jax.Array, ...]],
  cfg: Any,
) -> Trained:
  """Trains on sides['train'] and keeps the epoch best on sides['validation'].

  A side's arrays have one row an example; loss(params, graph, weight_decay,
  *rows) is jitted. `cfg` has learning_rate, weight_decay, epochs, batch
  (0: all), seed, and patience: epochs without a better validation loss before
  training stops, 0 for no validation and the last epoch.
  """
  num_train = len(sides['train'][0])
  size = min(cfg.batch or num_train, num_train)
  # What does not fill a batch waits for the next epoch's order.
  steps = num_train // size
  schedule = cfg.learning_rate, cfg.epochs * steps
  state = _optimizer(*schedule).init(params)
  curves: dict[str, list[float]] = {side: [] for side in sides}
  watched = curves['validation' if cfg.patience else 'train']
  best = params
  for epoch in range(cfg.epochs):
    order = np.random.default_rng([cfg.seed, epoch]).permutation(num_train)
    batches = order[: steps * size].reshape(steps, size)
    carry = params, state
    params, state = _epoch(
      loss, graph, schedule, cfg.weight_decay, carry, sides['train'], batches
    )
    for side, rows in sides.items():
      curves[side].append(float(loss(params, graph, 0.0, *rows)))
    if not cfg.patience or watched[-1] == min(watched):
      best = params
    if cfg.patience and epoch - int(np.argmin(watched)) >= cfg.patience:
      break
  kept = int(np.argmin(watched)) if cfg.patience else cfg.epochs - 1
  return Trained(best, curves, kept + 1, watched[kept])


def penalty(params: Any, decay: float) -> jax.Array:
  """decay / 2 · ‖weights‖², biases left out."""
  squares = [(w**2).sum() for w in jax.tree.leaves(params) if w.ndim == 2]
  return decay / 2 * sum(squares)


@functools.partial(jax.jit, static_argnames='graph')
def apply(graph: Any, params: Any, x: jax.Array) -> jax.Array:
  """The network's outputs."""
  with jax.default_matmul_precision('highest'):
    return nnx.merge(graph, params)(x)


def outputs(graph: Any, params: Any, x_NE: np.ndarray) -> np.ndarray:
  """The network's outputs on the host, computed some thousand rows at once."""
  parts = [
    sharding.fetch(apply(graph, params, part_BE))
    for part_BE in np.split(x_NE, range(_ROWS, len(x_NE), _ROWS))
  ]
  return np.concatenate(parts)


def arrays(params: Any) -> dict[str, np.ndarray]:
  """The parameters by name, as `restored` reads them."""
  flat, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))
  return {_name(path): np.asarray(value) for path, value in flat}


def restored(params: Any, saved: Mapping[str, np.ndarray]) -> Any:
  """Parameters of the shape of `params`, which `arrays` named in `saved`."""
  values = jax.tree_util.tree_map_with_path(
    lambda path, _: saved[_name(path)], nnx.to_pure_dict(params)
  )
  nnx.replace_by_pure_dict(params, values)
  return params


def _name(path: tuple[Any, ...]) -> str:
  return PREFIX + '.'.join(key.key for key in path)


def _optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
  return optax.adam(optax.cosine_decay_schedule(rate, num_steps))


@functools.partial(jax.jit, static_argnames=('loss', 'graph', 'schedule'))
def _epoch(loss, graph, schedule, decay, carry, rows, batches):
  """One step for each row of `batches`, indices of examples."""
  optimizer = _optimizer(*schedule)

  def step(carry, index_B):
    params, state = carry
    grads = jax.grad(loss)(
      params, graph, decay, *(array[index_B] for array in rows)
    )
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), None

  return jax.lax.scan(step, carry, batches)[0]
