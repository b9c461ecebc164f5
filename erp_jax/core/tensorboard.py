"""Scalars of events for TensorBoard, with the package of an extra."""

import logging
import numbers
import pathlib

from erp_jax.core import errors, events, failures

_log = logging.getLogger(__name__)


class Scalars(logging.Handler):
  """Writes the numbers of `progress` and `usage` as TensorBoard reads them.

  Tags are 'sample_terse/rate' and 'usage/host_gib'; a step is a second.
  Raises UserError if tensorboardX is not installed.
  """

  def __init__(self, folder: pathlib.Path):
    super().__init__()
    try:
      from tensorboardX import event_file_writer, summary
      from tensorboardX.proto import event_pb2
    except ImportError as e:
      raise errors.UserError(
        f'runtime.tensorboard needs tensorboardX ({e}): pip install '
        "'erp_jax[tensorboard]', or leave it at False."
      ) from e
    self._event, self._scalar = event_pb2.Event, summary.scalar
    self._folder = folder
    with failures.writing(folder, 0):
      folder.mkdir(parents=True, exist_ok=True)
      # Not SummaryWriter: its thread dies of a full disk, and then it blocks.
      self._writer = event_file_writer.EventsWriter(str(folder / 'events'))
    self._begun = 0.0
    self._has_failed = False

  def emit(self, record: logging.LogRecord) -> None:
    """Adds the event's numbers; the first that can't be written are the last.

    That is told once.
    """
    event = events.as_dict(record)
    time = event.pop('time')
    self._begun = self._begun or time
    if self._has_failed or event['event'] not in ('progress', 'usage'):
      return
    group = event.get('what', 'usage').replace(' ', '_').replace('/', '_')
    step = round(time - self._begun)
    try:
      for name, value in event.items():
        if isinstance(value, numbers.Real):
          scalar = self._scalar(f'{group}/{name}', value)
          self._writer.write_event(
            self._event(wall_time=time, step=step, summary=scalar)
          )
      self._writer.flush()
    except OSError as e:
      _log.warning('no more scalars in %s: %s', self._folder, e)
      self._has_failed = True

  def close(self) -> None:
    super().close()
    if not self._has_failed:
      self._writer.close()
