"""Scalars of events for TensorBoard, with the package of an extra."""

import logging
import numbers
import pathlib

from erp_jax.core import errors, events


class Scalars(logging.Handler):
  """Writes the numbers of `progress` and `usage` as TensorBoard reads them.

  Tags are 'sample_terse/rate' and 'usage/host_gib'; a step is a second.
  Raises UserError if tensorboardX is not installed.
  """

  def __init__(self, folder: pathlib.Path):
    super().__init__()
    try:
      import tensorboardX
    except ImportError as e:
      raise errors.UserError(
        f'runtime.tensorboard needs tensorboardX ({e}): pip install '
        "'erp_jax[tensorboard]', or leave it at False."
      ) from e
    self._writer = tensorboardX.SummaryWriter(str(folder), flush_secs=5)
    self._begun = 0.0

  def emit(self, record: logging.LogRecord) -> None:
    """Adds the event's numbers, if it has any."""
    event = events.as_dict(record)
    time = event.pop('time')
    self._begun = self._begun or time
    if event['event'] not in ('progress', 'usage'):
      return
    group = event.get('what', 'usage').replace(' ', '_').replace('/', '_')
    for name, value in event.items():
      if isinstance(value, numbers.Real):
        self._writer.add_scalar(
          f'{group}/{name}', value, round(time - self._begun), time
        )

  def close(self) -> None:
    self._writer.close()
    super().close()
