"""Weights declared once: shape, logical axes, name in the checkpoint, layout.

A network is a pytree of `Param`. Abstract shapes, shardings, random values,
the parameter count and the loading of a checkpoint all come from that tree.
"""

import dataclasses
import fnmatch
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import errors, sharding

AS_IS = -1


@dataclasses.dataclass(frozen=True)
class Param:
  """One weight, or one weight of every layer stacked along a leading axis.

  A checkpoint holds linear layers as torch does, [out, in]; ours are
  [*in, *out] for `x @ w`. `in_axes` counts the leading axes (after 'layers')
  that are inputs: w_LDHW with in_axes=1 is stored as [H·W, D], w_LHWD with
  in_axes=2 as [D, H·W], a bias b_LHW with in_axes=0 flat as [H·W]. AS_IS means
  the checkpoint has our shape.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]  # Logical axes; 'layers' first when stacked.
  name: str  # In the checkpoint; holds '{layer}' exactly when stacked.
  in_axes: int = AS_IS
  mean: float = 0.0  # Of random values; 1 for the scale of a norm.
  std: float = 0.02  # Of random values.

  def __post_init__(self):
    assert len(self.shape) == len(self.axes), self
    assert self.stacked == ('{layer}' in self.name), self

  @property
  def stacked(self) -> bool:
    return self.axes[:1] == ('layers',)

  @property
  def layer_shape(self) -> tuple[int, ...]:
    """Our shape without the layer axis."""
    return self.shape[1:] if self.stacked else self.shape

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape of one tensor of the checkpoint."""
    if self.in_axes == AS_IS:
      return self.layer_shape
    num_out = math.prod(self.layer_shape[self.in_axes :])
    if self.in_axes == 0:
      return (num_out,)
    return (num_out, math.prod(self.layer_shape[: self.in_axes]))

  def file_names(self) -> tuple[str, ...]:
    """Names of its tensors in the checkpoint, one per layer when stacked."""
    if not self.stacked:
      return (self.name,)
    return tuple(self.name.format(layer=i) for i in range(self.shape[0]))


def leaves(tree: Any) -> list[Param]:
  """All Params of the tree, in tree order."""
  return jax.tree.leaves(tree, is_leaf=_is_param)


def count(tree: Any) -> int:
  """Number of parameters; a tied head counts once."""
  return sum(math.prod(param.shape) for param in leaves(tree))


def abstract(tree: Any, dtype: jax.typing.DTypeLike) -> Any:
  """Shapes and dtypes in place of the Params."""
  return _map(lambda param: jax.ShapeDtypeStruct(param.shape, dtype), tree)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """NamedShardings in place of the Params.

  Raises UserError if a mesh axis does not divide the axis that lies on it.
  """
  return _map(lambda param: _sharding(param, mesh), tree)


def init(tree: Any, key: jax.Array, dtype: jax.typing.DTypeLike) -> Any:
  """Random values around each Param's mean, for tests and dry runs.

  Norms and biases are random too: left at one and zero they hide bugs. A
  Param's values depend on its checkpoint name, not on its place in the tree.
  """

  def draw(param):
    digest = hashlib.sha256(param.name.encode()).digest()
    word = int.from_bytes(digest[:4], 'big')
    noise = jax.random.normal(jax.random.fold_in(key, word), param.shape)
    return (param.mean + param.std * noise).astype(dtype)

  return _map(draw, tree)


def load(
  tree: Any,
  tensors: Mapping[str, np.ndarray],
  dtype: jax.typing.DTypeLike,
  ignored: tuple[str, ...] = (),
) -> Any:
  """The tree with values of a checkpoint, on the mesh in force if there is one.

  Args:
    tree: pytree of Params.
    tensors: reads a tensor by its checkpoint name; each is read once. Beyond
      the result, one stacked weight at most is held at a time.
    dtype: of the result; casting rounds to nearest.
    ignored: names (with `*`) that the checkpoint may hold without use.

  Raises UserError naming the tensors that are missing, misshapen or extra.
  """
  _check_names(tree, tensors, ignored)
  mesh = jax.sharding.get_mesh()

  def read(param):
    value = _read(param, tensors, dtype)
    if mesh.empty:
      return jnp.asarray(value)
    return jax.device_put(value, _sharding(param, mesh))

  return _map(read, tree)


def to_tensors(tree: Any, values: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (checkpoint name, tensor in the checkpoint's layout) of all values.

  The inverse of `load`: tests and exports use it.
  """
  flat = zip(leaves(tree), jax.tree.leaves(values), strict=True)
  for param, value in flat:
    host = np.asarray(jax.device_get(value))
    layers = host if param.stacked else host[None]
    for name, layer in zip(param.file_names(), layers, strict=True):
      if param.in_axes > 0:
        layer = layer.reshape(param.file_shape[::-1]).T
      yield name, np.array(layer.reshape(param.file_shape), order='C')


def _is_param(node: Any) -> bool:
  return isinstance(node, Param)


def _map(function, tree: Any) -> Any:
  return jax.tree.map(function, tree, is_leaf=_is_param)


def _sharding(param: Param, mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  spec = sharding.spec(*param.axes)
  for size, axis, mesh_axis in zip(param.shape, param.axes, spec, strict=True):
    if mesh_axis is not None and size % mesh.shape[mesh_axis]:
      raise errors.UserError(
        f'mesh axis {mesh_axis!r} has {mesh.shape[mesh_axis]} devices, which '
        f'does not divide {axis}={size} of {param.name}: choose a size that '
        'does, or 1.'
      )
  return jax.NamedSharding(mesh, spec)


def _check_names(
  tree: Any, tensors: Mapping[str, np.ndarray], ignored: tuple[str, ...]
):
  wanted = [name for param in leaves(tree) for name in param.file_names()]
  assert len(set(wanted)) == len(wanted), 'a tensor is declared twice'
  missing = [name for name in wanted if name not in tensors]
  unused = set(tensors) - set(wanted)
  extra = sorted(
    name
    for name in unused
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)
  )
  if missing:
    raise errors.UserError(
      f'the checkpoint lacks {_some(missing)}; without use it holds '
      f'{_some(sorted(unused))}: its config is not the one of these weights.'
    )
  if extra:
    raise errors.UserError(
      f'the checkpoint holds {_some(extra)}, which this network does not use: '
      'its config or architecture is not the one of these weights.'
    )


def _some(names: list[str]) -> str:
  if not names:
    return 'nothing'
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return ', '.join(names[:3]) + more


def _read(
  param: Param,
  tensors: Mapping[str, np.ndarray],
  dtype: jax.typing.DTypeLike,
) -> np.ndarray:
  value = np.empty(param.shape, jnp.dtype(dtype))
  layers = value if param.stacked else value[None]
  for i, name in enumerate(param.file_names()):
    tensor = tensors[name]
    if tensor.shape != param.file_shape:
      raise errors.UserError(
        f'tensor {name} has shape {list(tensor.shape)}, expected '
        f'{list(param.file_shape)}: the config is not the one of these weights.'
      )
    if param.in_axes > 0:
      tensor = tensor.T
    layers[i] = tensor.reshape(param.layer_shape)
  return value
