"""What the faults need: an undisturbed run, and a count of what was tried.

The count is printed at the end, from what the tests of this session did.
"""

import collections
import os
from collections.abc import Callable

import pytest

from tests.faults import runs
from tests.tiny import launch, start, tiny

__all__ = ['launch', 'start', 'tiny']

_SEED = int(os.environ.get('ERP_FAULT_SEED', '0'))


def pytest_report_header() -> str:
  """Shown where the session begins."""
  return f'moments of faults: ERP_FAULT_SEED={_SEED}'


@pytest.fixture(scope='session')
def seed() -> int:
  """What random moments and bytes are drawn from."""
  return _SEED


@pytest.fixture(scope='session')
def finished(tiny, tmp_path_factory) -> runs.Finished:
  """A run of all stages that nobody disturbed.

  Another goes before it, so that programs are compiled and times are typical;
  both must have left the same.
  """
  root = tmp_path_factory.mktemp('undisturbed')
  first = runs.finish(tiny, root / 'first')
  second = runs.finish(tiny, root / 'second')
  assert first.promised == second.promised
  return second


@pytest.fixture
def tally(request) -> Callable[..., None]:
  """Counts a fault, with the shards that it lost and the files it changed."""

  def count(fault: str, lost: int = 0, differ: int = 0) -> None:
    request.node.user_properties.append(('fault', (fault, lost, differ)))

  return count


def pytest_terminal_summary(terminalreporter) -> None:
  """The table of faults; tests that failed count as well."""
  rows = collections.defaultdict(lambda: [0, 0, 0])
  for reports in terminalreporter.stats.values():
    for report in reports:
      if getattr(report, 'when', '') != 'call':
        continue
      for name, value in report.user_properties:
        if name == 'fault':
          fault, *numbers = value
          for i, number in enumerate((1, *numbers)):
            rows[fault][i] += number
  if not rows:
    return
  terminalreporter.section('faults')
  line = '{:<60} {:>5} {:>11} {:>12}'.format
  terminalreporter.write_line(
    line('fault', 'tried', 'shards lost', 'other bytes')
  )
  for fault, numbers in sorted(rows.items()):
    terminalreporter.write_line(line(fault, *numbers))
