"""An arm on a real server that is killed half-way; and where its key goes."""

import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest
from etils import epath

from erp_jax.core import endpoint, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.sample import stage
from tests import tiny as tiny_lib

_ROOT = pathlib.Path(__file__).parents[2]
_KEY = 'sk-hunter2-0123456789'
pytestmark = pytest.mark.slow


def _shards(folder: pathlib.Path) -> dict[str, tuple[int, bytes]]:
  """The files of finished shards: when they were written, and their bytes."""
  return {
    path.name: (path.stat().st_mtime_ns, path.read_bytes())
    for record in folder.glob('part-*.json')
    for path in (record, record.with_suffix('.parquet'))
  }


def _wait_for_shards(folder: pathlib.Path, num: int) -> None:
  for _ in range(600):
    if len(list(folder.glob('part-*.json'))) >= num:
      return
    time.sleep(0.1)
  raise AssertionError(f'{folder} never had {num} shards')


def _check_complete(folder: pathlib.Path, asked, k: int) -> None:
  rows = store.read_table(folder).to_pylist()
  want = [(prompt.id, j) for prompt in asked for j in range(k)]
  assert [(row['prompt_id'], row['k']) for row in rows] == want
  for row in rows:
    assert row['num_tokens'] >= 1 and row['prompt_tokens'] > 10
    assert row['finish_reason'] in ('stop', 'length')
    assert row['text'] or row['num_tokens'] == 1  # The stop alone.
  assert len({row['text'] for row in rows}) > len(asked)


def test_the_work_waits_for_a_server_that_is_killed_and_comes_back(
  tiny, llama, tmp_path
):
  server = llama()
  asked = prompts.load(prompts.PromptConfig(path=str(tiny.prompts)))
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  folder = tmp_path / 'responses' / 'a'
  arm = arms.Arm(
    model='smollm2',
    endpoint=endpoint.Endpoint(url=server.url, server='llama.cpp'),
  )
  found = {}

  def kill_and_restart():
    _wait_for_shards(folder, 1)
    server.kill()
    found.update(_shards(folder))
    time.sleep(1)
    server.start()

  helper = threading.Thread(target=kill_and_restart)
  helper.start()
  cfg = stage.SampleConfig(k=3, max_new_tokens=16, shard_prompts=2)
  stage.run(workdir, {'a': arm}, asked, cfg)
  helper.join()
  _check_complete(folder, asked, 3)
  assert 2 <= len(found) < 12
  assert found.items() <= _shards(folder).items()
  assert store.read_manifest(folder)['counts']['retries'] > 0


class _Sampler:
  """`launch.sample` of one arm; what all of its processes have said."""

  def __init__(self, tiny, workdir: pathlib.Path):
    self.said = b''
    self.processes: list[subprocess.Popen] = []
    self._flags = [
      *tiny.flags(workdir),
      '--arms=terse',
      '--config.arms.terse.model=smollm2',
      '--config.arms.terse.endpoint.server=llama.cpp',
      '--config.arms.terse.endpoint.key_env=OPENAI_API_KEY',
      '--config.arms.terse.endpoint.traffic.patience_secs=1.0',
      '--config.runtime.grace_secs=0.0',  # The loop is stopped where it is.
      '--config.sample.max_new_tokens=16',
      '--config.sample.shard_prompts=2',
    ]

  def start(self, url: str, key: str = _KEY) -> subprocess.Popen:
    flags = [*self._flags, f'--config.arms.terse.endpoint.url={url}']
    process = subprocess.Popen(
      tiny_lib.command('sample', *flags),
      cwd=_ROOT,
      env=os.environ | {'OPENAI_API_KEY': key},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
    )
    self.processes.append(process)
    return process

  def end(self, process: subprocess.Popen) -> tuple[int, str]:
    """Its exit code and last line."""
    said, _ = process.communicate(timeout=120)
    self.said += said
    return process.returncode, said.decode().splitlines()[-1]


@pytest.fixture
def sampler(tiny, tmp_path):
  """A sampler of tmp_path/run; what still runs at the end is killed."""
  made = _Sampler(tiny, tmp_path / 'run')
  yield made
  for process in made.processes:
    process.kill()
    process.wait()
    process.stdout.close()


def test_interruptions_lose_nothing_and_the_key_is_nowhere(
  sampler, tiny, llama, tmp_path
):
  """SIGTERM, a server that is gone, another port, and a key that is wrong."""
  workdir = tmp_path / 'run'
  folder = workdir / 'responses' / 'terse'
  server = llama(key=_KEY)

  process = sampler.start(server.url)
  _wait_for_shards(folder, 1)
  process.send_signal(signal.SIGTERM)
  code, line = sampler.end(process)
  assert code == 75 and 'stopped by SIGTERM' in line, line
  first = _shards(folder)
  assert 2 <= len(first) < 12

  process = sampler.start(server.url)
  _wait_for_shards(folder, len(first) // 2 + 1)
  server.kill()
  code, line = sampler.end(process)
  assert code == 1, line
  assert f'arms.terse: {server.url} has answered nothing for' in line
  assert 'finished shards are kept' in line
  second = _shards(folder)
  assert first.items() <= second.items() and len(second) < 12

  other = llama(key=_KEY)
  code, line = sampler.end(sampler.start(other.url, key='sk-wrong-hunter2'))
  assert code == 1 and 'put its key into $OPENAI_API_KEY' in line, line
  assert _shards(folder) == second

  code, line = sampler.end(sampler.start(other.url))
  assert code == 0, line
  assert second.items() <= _shards(folder).items()
  asked = prompts.load(prompts.PromptConfig(path=str(tiny.prompts)))
  _check_complete(folder, asked, 3)
  assert store.read_manifest(folder)['info']['served']['models'] == ['smollm2']

  assert b'hunter2' not in sampler.said and b'Traceback' not in sampler.said
  files = [path for path in workdir.rglob('*') if path.is_file()]
  assert len(files) > 14
  assert not [path for path in files if b'hunter2' in path.read_bytes()]


def test_a_run_of_what_is_served_goes_to_its_report(
  tiny, llama, launch, tmp_path
):
  """Every stage, then plan, status and verify, with an arm and its judge."""
  server = llama()
  served = {
    'arms.terse.model': 'smollm2',
    'arms.terse.endpoint.url': server.url,
    'arms.terse.endpoint.server': 'llama.cpp',
    'rewards.judge.kind': 'served_judge',
    'rewards.judge.model': 'smollm2',
    'rewards.judge.dtype': 'auto',
    'rewards.judge.endpoint.url': server.url,
  }
  flags = [
    *tiny.flags(tmp_path),
    *(f'--config.{name}={value}' for name, value in served.items()),
  ]
  done = launch('pipeline', *flags)
  assert done.returncode == 1
  line = done.stderr.splitlines()[-1]
  assert "arm 'terse' is served elsewhere, where nobody counts" in line
  assert not (tmp_path / 'responses').exists()
  flags.append('--config.arms.terse.nominal_b=0.135')
  done = launch('pipeline', *flags)
  assert done.returncode == 0, done.stderr
  page = (tmp_path / 'report' / 'report.html').read_text()
  assert 'smollm2' in page
  manifest = store.read_manifest(tmp_path / 'rewards' / 'judge' / 'terse')
  assert manifest['info']['self_scored']
  assert manifest['counts']['positions'] > 12 * 30
  other = store.read_manifest(tmp_path / 'rewards' / 'judge' / 'steps')
  assert not other['info']['self_scored']
  server.kill()  # Nobody asks it for what is done.
  for binary in ('pipeline', 'export_router'):
    again = launch(binary, *flags)
    assert again.returncode == 0, again.stderr
  for binary in ('verify', 'status'):
    looked = launch(binary, f'--workdir={tmp_path}')
    assert looked.returncode == 0, looked.stdout + looked.stderr
  plan = launch('plan', flags[0], '--chip=H100-1', *flags[2:])
  assert plan.returncode == 0, plan.stderr
  assert plan.stdout.count('served elsewhere, not counted') == 2
