"""A mixture of experts: each token goes through the few that its router picks.

Rows are sorted by expert, so that each expert is one matmul over its own rows
(jax.lax.ragged_dot). On a mesh each device holds some of the experts and adds
what they give; the tokens are the same on all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from erp_jax.core import sharding
from erp_jax.models import int8


def mix(
  layer: dict[str, Any],
  x_BD: jax.Array,
  num_chosen: int,
  renormalize: bool,
  activation: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Weighted sum [B, D] of the outputs of each token's chosen experts.

  The weights are the float32 softmax over all experts, with `renormalize`
  divided by the sum over the chosen ones, and rounded to the dtype of x.
  """
  logits_BX = jnp.einsum('BD,DX->BX', x_BD, layer['router_LDX'])
  weight_BX = jax.nn.softmax(logits_BX.astype(jnp.float32), axis=-1)
  weight_BJ, expert_BJ = jax.lax.top_k(weight_BX, num_chosen)
  if renormalize:
    weight_BJ /= weight_BJ.sum(axis=-1, keepdims=True)
  weight_BJ = weight_BJ.astype(x_BD.dtype)
  matrices = [layer[k] for k in ('gate_LXDF', 'up_LXDF', 'down_LXFD')]
  mesh = jax.sharding.get_abstract_mesh()
  num_devices = mesh.shape.get(sharding.MODEL, 1)

  def local(matrices, x_BD, weight_BJ, expert_BJ):
    num_local = matrices[0].shape[0]
    first = jnp.int32(0)
    if num_devices > 1:
      first = jax.lax.axis_index(sharding.MODEL) * num_local
    out_BD = _mix_local(
      matrices, x_BD, weight_BJ, expert_BJ - first, activation
    )
    if num_devices > 1:
      out_BD = jax.lax.psum(out_BD, sharding.MODEL)
    return out_BD

  if num_devices > 1:
    whole = jax.P()
    local = jax.shard_map(
      local,
      in_specs=(jax.P(sharding.MODEL), whole, whole, whole),
      out_specs=whole,
      axis_names={sharding.MODEL},
    )
  return local(matrices, x_BD, weight_BJ, expert_BJ).astype(x_BD.dtype)


def _mix_local(matrices, x_BD, weight_BJ, expert_BJ, activation) -> jax.Array:
  """What the experts 0 … X-1 of `matrices` add, [B, D] in float32.

  Other experts' numbers in expert_BJ are outside that range and add nothing.
  """
  gate_XDF, up_XDF, down_XFD = matrices
  X, J = gate_XDF.shape[0], expert_BJ.shape[1]
  expert_N = expert_BJ.ravel()
  here_N = (expert_N >= 0) & (expert_N < X)
  order_N = jnp.argsort(jnp.where(here_N, expert_N, X), stable=True)
  expert_N = jnp.where(here_N, expert_N, 0)[order_N]
  rows_X = jnp.zeros(X, jnp.int32).at[expert_N].add(here_N[order_N])
  rows = lambda x_ND, w: _ragged(x_ND, w, rows_X, expert_N)
  x_ND = x_BD[order_N // J]
  h_NF = activation(rows(x_ND, gate_XDF)) * rows(x_ND, up_XDF)
  out_ND = rows(h_NF, down_XFD).astype(jnp.float32)
  # Rows of other experts are at the end, and undefined there.
  out_ND = jnp.where(here_N[order_N][:, None], out_ND, 0)
  out_BJD = out_ND[jnp.argsort(order_N)].reshape(*expert_BJ.shape, -1)
  return jnp.einsum('BJD,BJ->BD', out_BJD, weight_BJ.astype(jnp.float32))


def _ragged(x, w, rows_X, expert_N) -> jax.Array:
  """Each row of x times the matrix of its expert, in the dtype of x."""
  if not isinstance(w, int8.Int8):
    return jax.lax.ragged_dot(x, w, rows_X)
  out = jax.lax.ragged_dot(
    x, w.value.astype(x.dtype), rows_X, preferred_element_type=jnp.float32
  )
  return (out * w.scale[expert_N]).astype(x.dtype)
