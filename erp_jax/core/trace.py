"""A trace by JAX's profiler of the first seconds of work."""

import logging
import pathlib
import threading

import jax

from erp_jax.core import errors, events

_log = logging.getLogger(__name__)


class Trace(logging.Handler):
  """Traces what runs from the first progress on, when programs are compiled.

  Args:
    folder: where TensorBoard's profile plugin and XProf look for it.
    secs: for how long; less if the process ends before.
  """

  def __init__(self, folder: pathlib.Path, secs: float):
    super().__init__()
    self._folder = folder
    self._secs = secs
    self._timer: threading.Timer | None = None
    self._stopping = threading.Lock()
    self._is_on = False

  def emit(self, record: logging.LogRecord) -> None:
    """Begins with the first event that tells of work done."""
    if self._timer or not events.as_dict(record).get('done'):
      return
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # It would slow down what it measures.
    jax.profiler.start_trace(self._folder, profiler_options=options)
    self._is_on = True
    self._timer = threading.Timer(self._secs, self._stop)
    self._timer.daemon = True
    self._timer.start()

  def close(self) -> None:
    if self._timer:
      self._timer.cancel()
    self._stop()
    super().close()

  def _stop(self) -> None:
    with self._stopping:
      if self._is_on:
        self._is_on = False
        try:
          jax.profiler.stop_trace()
        except (OSError, RuntimeError) as e:  # Such as of a full disk.
          _log.warning('no trace in %s: %s', self._folder, errors.said(e))
