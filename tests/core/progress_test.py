"""Progress in a log: a heartbeat with rate, slots, memory and time left."""

import logging
import time

import pytest

from erp_jax.core import events, progress


@pytest.fixture
def lines(caplog):
  """What was logged so far."""
  caplog.set_level(logging.INFO, logger='erp_jax')
  return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def clock(monkeypatch):
  """Seconds that pass when they are set."""
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def _line(work, idle=0.0):
  return progress._line(work.scalars(), idle)


def test_a_line_tells_what_was_done(clock, monkeypatch):
  memory = {'host_gib': 3.04}
  monkeypatch.setattr(events, 'usage', lambda: memory)
  work = progress._Work('sample a', 4000, 'tokens')
  clock[0] = 60.0
  assert _line(work) == 'sample a: 0 of 4000 tokens, 3.0 GiB'
  work.advance(300, 0, 6, 8)
  clock[0] = 100.0
  memory |= {'device_gib': 14.12, 'device_limit_gib': 79.1}
  # 3700 are left at 3 a second.
  assert _line(work) == (
    'sample a: 300 of 4000 tokens, 3 tokens/s, slots 75 % busy, 3.0 GiB, '
    'device 14.1 of 79.1 GiB, 20 min 33 s left'
  )
  # Of what is left, 700 will not be needed.
  work.advance(0, 700, 0, 0)
  assert _line(work, idle=40.0) == (
    'sample a: 300 of 3300 tokens, 3 tokens/s, none for 40 s, slots 75 % busy, '
    '3.0 GiB, device 14.1 of 79.1 GiB, 5 min 0 s left'
  )


def test_slow_work_has_a_rate_that_is_not_zero(clock, monkeypatch):
  monkeypatch.setattr(events, 'usage', dict)
  work = progress._Work('fit', 4, 'splits')
  clock[0] = 30.0
  work.advance(1, 0, 0, 0)
  assert _line(work) == 'fit: 1 of 4 splits, 2.0 per minute, 1 min 30 s left'


def test_a_stream_knows_no_end(clock, monkeypatch):
  monkeypatch.setattr(events, 'usage', dict)
  work = progress._Work('route', 0, 'prompts')
  clock[0] = 1.0
  work.advance(7, 0, 0, 0)
  assert _line(work) == 'route: 7 prompts, 7 prompts/s'


def test_the_end_is_told(clock, lines):
  with progress.track('fit', 4, 'splits') as advance:
    clock[0] = 30.0
    advance(1)
    clock[0] = 60.0
    advance(1)
  assert lines() == ['fit: 2 splits in 60.0 s (2.0 per minute)']


def test_the_heart_beats_though_nothing_is_done(lines, monkeypatch):
  monkeypatch.setattr(progress, '_BEAT_SECS', 0.01)
  until = time.monotonic() + 60
  with progress.track('sample', 100, 'tokens') as advance:
    while len(lines()) < 2:
      assert time.monotonic() < until
      time.sleep(0.01)
    assert all(x.startswith('sample: 0 of 100 tokens, none') for x in lines())
    advance(5, busy=1, slots=4)
    told = len(lines())
    while len(lines()) < told + 2:
      assert time.monotonic() < until
      time.sleep(0.01)
  assert lines()[-2].startswith('sample: 5 of 100 tokens, ')
  assert any('slots 25 % busy' in line for line in lines())
  told = len(lines())
  time.sleep(0.1)
  assert len(lines()) == told  # It has stopped.


def test_a_terminal_has_a_bar_and_no_lines(lines, monkeypatch, capsys):
  monkeypatch.setenv('FORCE_COLOR', '1')  # As a terminal to rich.
  monkeypatch.setattr(progress, '_BEAT_SECS', 0.01)
  with progress.track('sample', 100, 'tokens') as advance:
    advance(25)
    advance(25, skipped=50)
    time.sleep(0.1)
  assert not lines()
  assert '100%' in capsys.readouterr().err
