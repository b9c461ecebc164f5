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
