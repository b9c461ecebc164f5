"""One host's part of a group: the same command as a child, its end in words.

The runtime ends a process whose peers are missing or lost by abort() in C++,
where no Python runs any more.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import jax

from erp_jax.core import buckets, errors, preemption, runtime

_CHANNEL = 'ERP_GROUP_CHANNEL'  # To the parent: a file descriptor.
# What moves the data of CPUs and GPUs, and who keeps hosts together.
_COLLECTIVES = ('Gloo', 'NCCL', 'oordination service', 'oordinationService')
_JOINED, _LOST = b'j', b'l'


def is_needed(cfg: runtime.RuntimeConfig) -> bool:
  """Whether this process is to start the one that takes part in the group."""
  return cfg.hosts > 1 and _CHANNEL not in os.environ


def run_child(cfg: runtime.RuntimeConfig) -> int:
  """Runs this command again, in the group; its exit code.

  SIGTERM goes on to the child. preemption.EXIT_CODE if a host was lost.
  """
  ours, theirs = socket.socketpair()
  with subprocess.Popen(
    (sys.executable, *sys.orig_argv[1:]),
    env=os.environ | {_CHANNEL: str(theirs.fileno())},
    pass_fds=(theirs.fileno(),),
  ) as child:
    theirs.close()
    stopped = []

    def stop(number, _frame):
      stopped.append(number)
      child.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The child has it as well.
    code = child.wait()
  told = ours.recv(16)
  if code == -signal.SIGABRT and _JOINED not in told:
    sys.stderr.write(
      f'{sys.argv[0]}: error: not all of {cfg.hosts} hosts joined the group '
      f'within {cfg.join_secs:g} s: was this started on all {cfg.hosts} hosts? '
      '(--config.runtime.join_secs gives them longer.)\n'
    )
    return 1
  if code == -signal.SIGABRT or _LOST in told:
    sys.stderr.write(
      f'{sys.argv[0]}: error: lost a host of this group of {cfg.hosts}, whose '
      'log may say why, unless it was its own runtime that gave up, as is said '
      'above: the same command on all hosts goes on where it was.\n'
    )
    return preemption.EXIT_CODE
  if code < 0:
    name = signal.Signals(-code).name
    sys.stderr.write(
      f'{sys.argv[0]}: error: ended by {name}: the same command on all '
      f'{cfg.hosts} hosts goes on where it was.\n'
    )
    return preemption.EXIT_CODE if stopped else 128 - code
  return preemption.EXIT_CODE if stopped and code else code


@contextlib.contextmanager
def told() -> Iterator[Callable[[], None]]:
  """In a child, yields what tells its parent that the group is there.

  The child ends with its parent; and at once where something is raised, since
  Python's end of a process waits for the other hosts.
  """
  if _CHANNEL not in os.environ:
    yield lambda: None
    return
  channel = socket.socket(fileno=int(os.environ.pop(_CHANNEL)))
  threading.Thread(
    target=_end_with_parent, args=(channel,), daemon=True
  ).start()
  try:
    yield lambda: channel.send(_JOINED)
  finally:
    e = sys.exception()
    in_words = (errors.UserError, *buckets.client_errors())
    if isinstance(e, Exception) and not isinstance(e, in_words):
      traceback.print_exception(e)
      if _is_lost(e):
        channel.send(_LOST)
      os._exit(1)


def _end_with_parent(channel: socket.socket) -> None:
  with contextlib.suppress(ConnectionError):  # As what we sent was not read.
    channel.recv(1)  # Nothing is sent: it returns when the parent is gone.
  os._exit(1)


def _is_lost(e: Exception) -> bool:
  """Whether a collective failed for the want of a host."""
  told = isinstance(e, jax.errors.JaxRuntimeError)
  return told and any(name in f'{e}' for name in _COLLECTIVES)
