"""What every binary shares: its flags, its start, and errors in one line."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import config_flags

from erp_jax.core import (
  buckets,
  errors,
  group,
  locks,
  preemption,
  process,
  runtime,
  watching,
)
from erp_jax.core import config as config_lib
from erp_jax.core import workdir as workdir_lib
from launch import parent, parsing

_log = logging.getLogger(__name__)

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Experiment: configs/NAME.py, or configs/NAME.py:ARG.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run: results, and what a restart resumes.'
)
_ALLOW_VERSION_CHANGE = flags.DEFINE_bool(
  'allow_version_change', False, 'Resume under other major package versions.'
)


def run(main: Callable, config_class: type) -> None:
  """Parses flags and runs `main(cfg, workdir)`; a UserError is one line.

  `config_class` is what --config becomes: a dataclass with a field `runtime`.
  """

  def start(cfg: Any) -> None:
    for name in ('hosts', 'replicas'):
      if getattr(cfg.runtime, name) > 1:
        raise errors.UserError(
          f'runtime.{name} is {getattr(cfg.runtime, name)}, but launch.'
          f'{_binary()} is for one process: leave it at 1 (launch.sample, '
          'launch.score and launch.embed are for more).'
        )
    _start(main, cfg)

  _run_in_workdir(start, config_class)


def run_shared(main: Callable, config_class: type) -> None:
  """As `run`, for a stage that groups of hosts do, and replicas with shares."""

  def start(cfg: Any) -> None:
    if parent.is_needed(cfg.runtime):
      sys.exit(parent.run_child(cfg.runtime))
    with parent.told() as joined:
      _start(main, cfg, joined)

  _run_in_workdir(start, config_class)


def _run_in_workdir(start: Callable, config_class: type) -> None:
  flags.mark_flag_as_required('workdir')
  _run(start, config_class, (_CONFIG, _WORKDIR, _ALLOW_VERSION_CHANGE))


def _start(main: Callable, cfg: Any, joined: Callable = lambda: None) -> None:
  """Runs `main` in the run's folder; `joined` hears that its group is there."""
  if not _WORKDIR.value:
    parsing.stop('--workdir is empty: name the folder of the run.')
  with preemption.handled(cfg.runtime.grace_secs):
    try:
      with runtime.started(cfg.runtime, joined) as compiles:
        workdir = _workdir(cfg.runtime)
        command = (f'launch.{_binary()}', *sys.argv[1:])
        with contextlib.ExitStack() as stack:
          if group.is_first():
            folder = workdir.path / 'processes'
            stack.enter_context(process.recorded(folder, command))
          else:  # The first tells how far they are.
            logging.getLogger('erp_jax').setLevel(logging.WARNING)
          watched = watching.watched(workdir, command, cfg.runtime, compiles)
          stack.enter_context(watched)
          main(cfg, workdir)
    except preemption.Preempted as e:
      _stop_at_once(e, preemption.EXIT_CODE)
    except KeyboardInterrupt:
      _stop_at_once('stopped; the same command goes on where this one was.')
  _log.info('%s', compiles)


def run_without_workdir(main: Callable, config_class: type) -> None:
  """As `run`, for what writes no results: `main(cfg)`, which starts JAX."""
  _run(main, config_class, (_CONFIG,))


def _run(main: Callable, config_class: type, shown: Sequence) -> None:
  flags.mark_flag_as_required('config')

  def start(argv: list[str]) -> None:
    if argv[1:]:
      raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    try:
      main(config_lib.build(config_class, _CONFIG.value.to_dict()))
    except errors.UserError as e:
      _stop_at_once(e)
    except buckets.client_errors() as e:
      _stop_at_once(
        f'the bucket of --workdir={_WORKDIR.value} failed ({errors.said(e)}): '
        'see to it and to your access; the same command then goes on.'
      )

  for flag in shown:  # By --help.
    flags.FLAGS.register_key_flag_for_module(
      sys.argv[0], flags.FLAGS[flag.name]
    )
  # Orbax tells the absl logger about every file.
  absl_logging.set_verbosity(absl_logging.WARNING)
  for name in ('erp_jax', 'launch', '__main__'):
    logging.getLogger(name).setLevel(logging.INFO)
  app.run(start, flags_parser=parsing.parse)


def _stop_at_once(message: object, code: int = 1) -> NoReturn:
  """As parsing.stop, without taking the process apart.

  XLA's client, when it is closed while its threads begin, now and then ends in
  abort() (1 of 14 runs that refused their config).
  """
  with contextlib.suppress(OSError):  # Nobody reads any more.
    sys.stderr.write(f'{sys.argv[0]}: error: {message}\n')
  logging.shutdown()
  group.leave_last()
  with contextlib.suppress(OSError):
    sys.stdout.flush()
    sys.stderr.flush()
  os._exit(code)


def _binary() -> str:
  """'sample' of 'launch/sample.py'."""
  return os.path.basename(sys.argv[0]).removesuffix('.py')


def _workdir(cfg: runtime.RuntimeConfig) -> workdir_lib.Workdir:
  buckets.check_client(_WORKDIR.value)
  path = epath.Path(_WORKDIR.value)
  if '://' not in _WORKDIR.value:
    path = path.resolve()
  return workdir_lib.Workdir(
    path,
    runtime.provenance(),
    _ALLOW_VERSION_CHANGE.value,
    locks.Share(cfg.replica, cfg.replicas),
  )


def only(names: list[str], available: dict, what: str) -> dict:
  """The entries of `available` that a flag names; all of them if none."""
  for name in names:
    if name not in available:
      raise errors.UserError(
        f'{what} {name!r} is not in the config; '
        f'{config_lib.did_you_mean(name, available)}'
      )
  return {n: available[n] for n in (names or available)}
