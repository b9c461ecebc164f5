"""A process group: several hosts that run one program, as one model replica.

The first host alone writes files and records. What the others might see
differently, such as files that are being written, it decides for all.
"""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from erp_jax.core import errors, preemption

_LAST_SECS = 2.0
_BLOCK = 4096  # Messages have a multiple of so many bytes: few programs.


def join(
  hosts: int,
  coordinator: str,
  host: int,
  join_secs: float,
  heartbeat_secs: float,
) -> None:
  """Makes this process one of a group; call it before the first computation.

  Without a coordinator, a cluster that JAX knows tells who takes part. Where
  a host is missing after `join_secs`, or is lost and not heard of for
  `heartbeat_secs`, the runtime ends this process by abort().
  Raises UserError if there is no such cluster.
  """
  # SIGTERM is `preemption`'s.
  jax.config.update('jax_enable_preemption_service', False)
  given = {}
  if coordinator:
    given = {
      'coordinator_address': coordinator,
      'num_processes': hosts,
      'process_id': host,
      'cluster_detection_method': 'deactivate',
    }
  try:
    jax.distributed.initialize(
      **given,
      initialization_timeout=math.ceil(join_secs),
      heartbeat_timeout_seconds=math.ceil(heartbeat_secs),
    )
  except (ValueError, RuntimeError) as e:
    raise errors.UserError(
      f'no group of {hosts} hosts is formed ({errors.said(e)}): where JAX '
      'knows no cluster, give each --config.runtime.coordinator=FIRST:PORT, '
      'the address of the first host, and its own --config.runtime.host, '
      f'0 to {hosts - 1}.'
    ) from e
  # On SLURM JAX leaves a process one GPU; ours has those of its host.
  jax.config.update('jax_cuda_visible_devices', 'all')
  jax.config.update('jax_rocm_visible_devices', 'all')


def is_joined() -> bool:
  """Whether this process is one of a group."""
  return jax.distributed.is_initialized()


def is_first() -> bool:
  """Whether this is the first host of its group, or there is no group."""
  return not is_joined() or jax.process_index() == 0


def leave_last() -> None:
  """Waits a moment on the first host: with its end the others are aborted."""
  if is_joined() and is_first():
    time.sleep(_LAST_SECS)


def check_alone(what: str) -> None:
  """UserError in a group, each host of which would ask the server of `what`."""
  if is_joined():
    raise errors.UserError(
      f'{what} is served elsewhere, and each host of a group would ask for its '
      'answers: leave runtime.hosts at 1 for it.'
    )


def of_first(decide: Callable[[], Any]) -> Any:
  """What `decide` gives on the first host, on all of them; a JSON-able value.

  All hosts call it in the same order, and wait. Raises the first host's
  UserError or Preempted on all.
  """
  if not is_joined():
    return decide()
  answer, error = {}, None
  if is_first():
    try:
      answer = {'value': decide()}
    except (errors.UserError, preemption.Preempted) as e:
      answer, error = {'error': f'{e}'}, e
      answer['preempted'] = isinstance(e, preemption.Preempted)
  answer = _broadcast(answer)
  if error:
    raise error
  if 'error' in answer:
    told = preemption.Preempted if answer['preempted'] else errors.UserError
    raise told(answer['error'])
  return answer['value']


def any_of(flag: bool) -> bool:
  """Whether the flag is set on any host; all call it in the same order."""
  if not is_joined():
    return flag
  return bool(multihost_utils.process_allgather(np.bool_(flag)).any())


def _broadcast(value: Any) -> Any:
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
  buffer = np.zeros(-(-size // _BLOCK) * _BLOCK, np.uint8)
  if is_first():
    buffer[:size] = data
  sent = multihost_utils.broadcast_one_to_all(buffer)
  return json.loads(sent[:size].tobytes())
