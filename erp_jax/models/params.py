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
from erp_jax.models import int8 as int8_lib
from erp_jax.models import streaming

AS_IS = -1


@dataclasses.dataclass(frozen=True)
class Param:
  """One weight, or one weight of every layer stacked along a leading axis.

  Weights of experts are stacked along a second one. A checkpoint holds linear
  layers as torch does, [out, in]; ours are [*in, *out] for `x @ w`. `in_axes`
  counts the axes after the stacked ones that are inputs: w_LDHW with in_axes=1
  is stored as [H·W, D], w_LHWD with in_axes=2 as [D, H·W], a bias b_LHW with
  in_axes=0 flat as [H·W]. AS_IS means the checkpoint has our shape.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]  # Logical; 'layers' and 'experts' first.
  name: str  # In the checkpoint; with '{layer}' and '{expert}' when stacked.
  in_axes: int = AS_IS
  mean: float = 0.0  # Of random values; 1 for the scale of a norm.
  std: float = 0.02  # Of random values.

  def __post_init__(self):
    assert len(self.shape) == len(self.axes), self
    assert ('layers' in self.axes) == ('{layer}' in self.name), self
    assert (self.num_stacked == 2) == ('{expert}' in self.name), self

  @property
  def num_stacked(self) -> int:
    """How many leading axes count tensors of the checkpoint."""
    if self.axes[:1] != ('layers',):
      return 0
    return 2 if self.axes[1:2] == ('experts',) else 1

  @property
  def layout(self) -> streaming.Layout:
    """Its axes by what they are."""
    lead = self.shape[: self.num_stacked]
    rest = self.shape[self.num_stacked :]
    if self.in_axes == AS_IS:
      return streaming.Layout(lead, rest[1:], rest[:1], as_is=True)
    return streaming.Layout(lead, rest[: self.in_axes], rest[self.in_axes :])

  @property
  def file_shape(self) -> tuple[int, ...]:
    """Shape of one tensor of the checkpoint."""
    _, inputs, outputs, as_is = self.layout
    if as_is:
      return outputs + inputs
    if not inputs:
      return (math.prod(outputs),)
    return (math.prod(outputs), math.prod(inputs))

  @property
  def is_matrix(self) -> bool:
    """Whether its memory grows with the mesh's model axis: what int8 is for."""
    large = any(axis in sharding.RULES for axis in self.axes)
    return large and len(self.file_shape) == 2

  def file_name(self, place: tuple[int, ...]) -> str:
    """Name of the tensor at a place of the stacked axes."""
    fields = zip(('layer', 'expert'), place, strict=False)
    return self.name.format(**dict(fields))

  def file_names(self) -> tuple[str, ...]:
    """Names of its tensors in the checkpoint, one for each stacked place."""
    return tuple(map(self.file_name, np.ndindex(*self.layout.lead)))


Axes = tuple[tuple[int, ...], tuple[str | None, ...]]  # Sizes, logical names.


def linear(
  name: str, num_layers: int, inputs: Axes, outputs: Axes, bias: bool = True
) -> dict[str, Param]:
  """w and b of a linear map; of every layer, if its name holds '{layer}'."""
  (in_sizes, in_axes), (out_sizes, out_axes) = inputs, outputs
  sizes, axes = _stacked(name, num_layers)
  w = Param(
    (*sizes, *in_sizes, *out_sizes),
    (*axes, *in_axes, *out_axes),
    f'{name}.weight',
    len(in_axes),
  )
  if not bias:
    return {'w': w}
  b = Param((*sizes, *out_sizes), (*axes, *out_axes), f'{name}.bias', 0)
  return {'w': w, 'b': b}


def layer_norm(name: str, num_layers: int, width: int) -> dict[str, Param]:
  """scale and bias of a norm; of every layer, if its name holds '{layer}'."""
  sizes, axes = _stacked(name, num_layers)
  place = (*sizes, width), (*axes, 'embed')
  return {
    'scale': Param(*place, f'{name}.weight', mean=1.0, std=0.1),
    'bias': Param(*place, f'{name}.bias', std=0.1),
  }


def _stacked(name: str, num_layers: int) -> Axes:
  return ((num_layers,), ('layers',)) if '{layer}' in name else ((), ())


def leaves(tree: Any) -> list[Param]:
  """All Params of the tree, in tree order."""
  return jax.tree.leaves(tree, is_leaf=_is_param)


def count(tree: Any) -> int:
  """Number of parameters; a tied head counts once."""
  return sum(math.prod(param.shape) for param in leaves(tree))


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """NamedShardings in place of the Params.

  Raises UserError if the mesh does not divide an axis that must lie on it.
  """
  check_mesh(tree, mesh)
  return _map(
    lambda param: jax.NamedSharding(
      mesh, sharding.spec(param.shape, param.axes, mesh)
    ),
    tree,
  )


def check_mesh(tree: Any, mesh: jax.sharding.Mesh) -> None:
  """Raises UserError, with the sizes that work, for a mesh that does not."""
  sizes = [x for p in leaves(tree) for x in zip(p.axes, p.shape, strict=True)]
  # Experts lie on the axis whole: what is inside of them does not.
  if any(axis == 'experts' for axis, _ in sizes):
    sizes = [(axis, size) for axis, size in sizes if axis != 'mlp']
  sharding.check(sizes, mesh)


def init(
  tree: Any, key: jax.Array, dtype: jax.typing.DTypeLike, int8: bool = False
) -> Any:
  """Random values around each Param's mean, for tests and dry runs.

  Norms and biases are random too: left at one and zero they hide bugs. A
  Param's values depend on its checkpoint name, not on its place in the tree.
  With `int8`, matrices become int8 as in `load`, one tensor at a time.
  """

  def draw(param):
    digest = hashlib.sha256(param.name.encode()).digest()
    word = int.from_bytes(digest[:4], 'big')
    own = jax.random.fold_in(key, word)
    if int8 and param.is_matrix:
      return _draw_int8(param, own, dtype)
    noise = jax.random.normal(own, param.shape)
    return (param.mean + param.std * noise).astype(dtype)

  return _map(draw, tree)


def load(
  tree: Any,
  tensors: Mapping[str, Any],
  dtype: jax.typing.DTypeLike,
  ignored: tuple[str, ...] = (),
  int8: bool = False,
) -> Any:
  """The tree with values of a checkpoint, on the mesh in force if there is one.

  Args:
    tree: pytree of Params.
    tensors: arrays or LazyTensors by their checkpoint name. Beyond the result,
      a few MiB of them are in memory at a time.
    dtype: of the result; casting rounds to nearest.
    ignored: names (with `*`) that the checkpoint may hold without use.
    int8: matrices become int8, and `dtype` is what they compute with.

  Raises UserError naming the tensors that are missing, misshapen or extra.
  """
  _check_names(tree, tensors, ignored)
  for param in leaves(tree):
    _check_shapes(param, tensors)
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    mesh = sharding.make_mesh(1, 1)
  return _map(
    lambda param, place: streaming.load(
      lambda at: tensors[param.file_name(at)],
      param.layout,
      place,
      dtype,
      int8 and param.is_matrix,
    ),
    tree,
    shardings(tree, mesh),
  )


def to_tensors(tree: Any, values: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (checkpoint name, tensor in the checkpoint's layout) of all values.

  The inverse of `load`: tests and exports use it.
  """
  flat = zip(leaves(tree), jax.tree.leaves(values), strict=True)
  for param, value in flat:
    host = np.asarray(jax.device_get(value))
    for place in np.ndindex(*param.layout.lead):
      part = host[place]
      if param.in_axes > 0:
        part = part.reshape(param.file_shape[::-1]).T
      shaped = np.array(part.reshape(param.file_shape), order='C')
      yield param.file_name(place), shaped


def _draw_int8(param: Param, key: jax.Array, dtype) -> int8_lib.Int8:
  lead, num_lead = param.layout.lead, len(param.layout.lead)
  in_axes = tuple(axis - num_lead for axis in param.layout.in_axes)

  def draw(key):
    noise = jax.random.normal(key, param.shape[num_lead:])
    return int8_lib.quantize(param.mean + param.std * noise, in_axes)

  keys = jax.random.split(key, math.prod(lead))
  value, scale = (
    x.reshape(*lead, *x.shape[1:]) for x in jax.lax.map(draw, keys)
  )
  return int8_lib.Int8(value, scale, jnp.dtype(dtype))


def _is_param(node: Any) -> bool:
  return isinstance(node, Param)


def _map(function, tree: Any, *rest: Any) -> Any:
  return jax.tree.map(function, tree, *rest, is_leaf=_is_param)


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


def _check_shapes(param: Param, tensors: Mapping[str, Any]) -> None:
  for name in param.file_names():
    if tensors[name].shape != param.file_shape:
      raise errors.UserError(
        f'tensor {name} has shape {list(tensors[name].shape)}, expected '
        f'{list(param.file_shape)}: the config is not the one of these weights.'
      )
