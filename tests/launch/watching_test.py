"""A run of the tiny pipeline, seen by those who watch it."""

import gzip
import json

import pytest

from erp_jax.core import events, store


@pytest.fixture(scope='module')
def sampled(tiny, launch, tmp_path_factory):
  """The folder of a sampled run with all that can be asked for."""
  workdir = tmp_path_factory.mktemp('watched')
  done = launch(
    *('sample', *tiny.flags(workdir)),
    *('--config.runtime.tensorboard=True', '--config.runtime.profile=60'),
  )
  assert done.returncode == 0, done.stderr
  return workdir


def _events(workdir):
  (file,) = (workdir / 'events').iterdir()
  return events.read(file)


def test_events_tell_what_the_files_do(sampled):
  found = _events(sampled)
  kinds = [event['event'] for event in found]
  assert kinds[0] == 'start' and kinds[-1] == 'exit'
  assert found[0]['command'][0] == 'launch.sample'
  assert found[0]['machine']['devices'] and found[0]['versions']['jax']
  for arm in ('terse', 'steps'):
    folder = sampled / 'responses' / arm
    shards = [
      e for e in found if e['event'] == 'shard' and e['artifact'] == str(folder)
    ]
    counts = store.read_manifest(folder)['counts']
    assert len(shards) == 3
    for name in ('tokens', 'slot_steps'):
      assert sum(e['counts'][name] for e in shards) == counts[name]
    told = [e for e in found if e.get('what') == f'sample {arm}']
    assert told[0]['done'] > 0 and 0 < told[-1]['slots_busy'] <= 1
    assert told[-1]['done'] == told[-1]['total'] == counts['tokens']
  usage = found[-2]
  assert usage['programs'] > 0 and usage['compile_secs'] > 0
  assert usage['host_gib'] > 0.1


def test_a_trace_shows_our_programs(sampled):
  (trace,) = (sampled / 'profile').rglob('*.trace.json.gz')
  names = {
    event.get('name', '')
    for event in json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  }
  assert any('step' in name for name in names), sorted(names)[:50]
  assert len(list((sampled / 'profile').rglob('*.xplane.pb'))) == 1


def test_a_finished_run_with_all_of_it_is_whole(sampled, launch):
  done = launch('verify', f'--workdir={sampled}')
  assert done.returncode == 0, done.stdout
  assert 'events' in done.stdout and 'extra' not in done.stdout


def test_without_the_flags_there_are_events_alone(
  tiny, launch, tmp_path, sampled
):
  done = launch('sample', *tiny.flags(tmp_path), '--arms=terse')
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'events').is_dir()
  assert not (tmp_path / 'tensorboard').exists()
  assert not (tmp_path / 'profile').exists()
  read = lambda workdir: store.read_table(workdir / 'responses' / 'terse')
  assert read(tmp_path) == read(sampled)
