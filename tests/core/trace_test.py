"""Traces: of work alone, for so long, once."""

import gzip
import json
import time

import jax
import jax.numpy as jnp

from erp_jax.core import events, trace


def _names(file):
  found = json.loads(gzip.decompress(file.read_bytes()))['traceEvents']
  return ' '.join(event.get('name', '') for event in found)


def test_a_trace_begins_with_work_and_ends_after_its_time(tmp_path):
  x_NN = jnp.ones((64, 64))

  @jax.jit
  def compiled_before(x_NN):
    return x_NN @ x_NN + 1

  @jax.jit
  def traced_work(x_NN):
    return x_NN @ x_NN + 2

  jax.block_until_ready((compiled_before(x_NN), traced_work(x_NN)))
  files = lambda: list(tmp_path.rglob('*.trace.json.gz'))
  until = time.monotonic() + 60
  with events.handled([trace.Trace(tmp_path, 0.2)]):
    events.emit('start', {})
    events.emit('progress', {'done': 0})
    compiled_before(x_NN).block_until_ready()
    events.emit('progress', {'done': 1})
    while not files():  # Its time ends, though the work does not.
      assert time.monotonic() < until
      traced_work(x_NN).block_until_ready()
    events.emit('progress', {'done': 2})
  (file,) = files()
  assert 'traced_work' in _names(file)
  assert 'compiled_before' not in _names(file)


def test_work_that_ends_early_has_a_trace(tmp_path):
  with events.handled([trace.Trace(tmp_path, 600.0)]):
    events.emit('progress', {'done': 1})
    jnp.ones(3).block_until_ready()
  assert len(list(tmp_path.rglob('*.trace.json.gz'))) == 1


def test_a_trace_that_cannot_be_written_is_told_and_no_more(tmp_path, caplog):
  folder = tmp_path / 'a file'
  folder.write_text('')
  with events.handled([trace.Trace(folder, 600.0)]):
    events.emit('progress', {'done': 1})
    jnp.ones(3).block_until_ready()
  told = [r.getMessage() for r in caplog.records if r.name == trace.__name__]
  (said,) = told
  assert said.startswith(f'no trace in {folder}: ')


def test_without_work_there_is_none(tmp_path):
  with events.handled([trace.Trace(tmp_path, 600.0)]):
    events.emit('start', {})
  assert not list(tmp_path.iterdir())
