"""Progress in a log: rate, time left, and work that was spared."""

import logging

from erp_jax.core import progress


def test_lines_tell_what_was_done(caplog, monkeypatch):
  monkeypatch.setattr(progress, '_LOG_EVERY_SECS', 0.0)
  caplog.set_level(logging.INFO, logger='erp_jax')
  with progress.track('sample', 100, 'tokens') as advance:
    advance(10)
    advance(5, skipped=40)
    advance(0, skipped=20)
    advance(25)
  lines = [record.getMessage() for record in caplog.records]
  assert lines[0].startswith('sample: 10 of 100 tokens')
  assert lines[1].startswith('sample: 15 of 60 tokens')
  assert lines[3].startswith('sample: 40 of 40 tokens')
  assert lines[3].endswith(' 0 s left')
  assert lines[-1].startswith('sample: 40 tokens in')


def test_lines_of_a_stream_know_no_end(caplog, monkeypatch):
  monkeypatch.setattr(progress, '_LOG_EVERY_SECS', 0.0)
  caplog.set_level(logging.INFO, logger='erp_jax')
  with progress.track('route', 0, 'prompts') as advance:
    advance(3)
    advance(4)
  lines = [record.getMessage() for record in caplog.records]
  assert lines[1].startswith('route: 7 prompts, ')
  assert 'left' not in lines[1]


def test_slow_work_has_a_rate_that_is_not_zero(caplog, monkeypatch):
  times = iter([0.0, 30.0, 60.0, 60.0])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(times))
  caplog.set_level(logging.INFO, logger='erp_jax')
  with progress.track('fit', 4, 'splits') as advance:
    advance(1)
    advance(1)
  lines = [record.getMessage() for record in caplog.records]
  assert lines[0] == 'fit: 1 of 4 splits, 2.0 per minute, 90 s left'
  assert lines[-1] == 'fit: 2 splits in 60.0 s (2.0 per minute)'
