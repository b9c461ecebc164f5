"""Hosts: processes of this machine, with two devices each in a group."""

import contextlib
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests import servers
from tests import tiny as tiny_lib

ROOT = pathlib.Path(__file__).parents[2]
_SECS = 240  # Nothing here may take longer.
# Compiling is most of the time; nothing here runs long enough to gain.
DEVICES = {
  'XLA_FLAGS': '--xla_force_host_platform_device_count=2 '
  '--xla_backend_optimization_level=0'
}


def coordinator() -> str:
  """An address that is free."""
  return f'localhost:{servers.free_port()}'


class Group:
  """Processes at work, each with a log and environment of its own."""

  def __init__(
    self,
    commands: Sequence[list[str]],
    logs: pathlib.Path,
    envs: Sequence[Mapping[str, str]] = (),
  ):
    logs.mkdir(parents=True, exist_ok=True)
    self.logs = [logs / f'host-{i}.log' for i in range(len(commands))]
    self.hosts = []
    envs = envs or [{}] * len(commands)
    for words, log, env in zip(commands, self.logs, envs, strict=True):
      with log.open('wb') as f:
        self.hosts.append(
          subprocess.Popen(
            words,
            cwd=ROOT,
            env=os.environ | env,
            stdout=f,
            stderr=f,
          )
        )

  def child(self, host: int) -> int:
    """The process that takes part for a host, which its parent started."""
    pid = self.hosts[host].pid
    file = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
    return int(file.read_text().split()[0])

  def wait_for(self, happened: Callable[[], bool]) -> None:
    """Returns once that is so; none of the hosts may end before."""
    until = time.monotonic() + _SECS
    while not happened():
      assert time.monotonic() < until, self.said()
      assert all(host.poll() is None for host in self.hosts), self.said()
      time.sleep(0.01)

  def codes(self) -> list[int]:
    """Exit codes, once all have ended."""
    return [host.wait(_SECS) for host in self.hosts]

  def said(self, host: int | None = None) -> str:
    """The log of a host, or all of them."""
    logs = self.logs if host is None else [self.logs[host]]
    return '\n'.join(log.read_text() for log in logs)

  def last_line(self, host: int) -> str:
    """The last that a host's log says."""
    return self.said(host).strip().splitlines()[-1]


@contextlib.contextmanager
def started(
  binary: str, flags: Sequence[str], logs: pathlib.Path, hosts: int = 2
) -> Iterator[Group]:
  """A group at work on a binary; what is left of it in the end is killed."""
  flags = [
    *(*flags, f'--config.runtime.hosts={hosts}'),
    *(f'--config.runtime.coordinator={coordinator()}',),
    '--config.runtime.heartbeat_secs=10',
  ]
  group = Group(
    [
      tiny_lib.command(binary, *flags, f'--config.runtime.host={i}')
      for i in range(hosts)
    ],
    logs,
    [DEVICES] * hosts,
  )
  try:
    yield group
  finally:
    for host in group.hosts:  # The child of each ends with it.
      host.kill()
      host.wait()
