"""Every binary answers --help, and mistakes end in one line that names them."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest
import transformers

from erp_jax.core import config
from erp_jax.score import train_stage
from launch import benchmark_config, growth_config, pipeline_config

_ROOT = pathlib.Path(__file__).parents[2]
_BINARIES = sorted(
  file.stem
  for file in (_ROOT / 'launch').glob('*.py')
  if "if __name__ == '__main__'" in file.read_text()
)
# What binaries without an experiment's config show instead of it.
_OWN_FLAGS = {
  'benchmark': ('--config',),
  'build_dataset': ('--dataset', '--data_dir', '--path', '--files'),
  'convert': ('--from', '--to'),
  'memory': ('--chips', '--models', '--dtype', '--json'),
  'plan': ('--config', '--chip', '--response_tokens', '--shares', '--json'),
  'status': ('--workdir',),
  'sweep': ('--config', '--binary', '--workdir', '--list', '--run', '--index'),
  'verify': ('--workdir',),
  'route_prompts': ('--router', '--budget', '--lam', '--input', '--output'),
}
_CLASSES = {
  'benchmark': benchmark_config.Benchmark,
  'coverage': pipeline_config.Coverage,
  'growth': growth_config.Growth,
  'replay': pipeline_config.Replay,
  'simulate': pipeline_config.Simulate,
  'train_reward': train_stage.TrainRewardConfig,
}
_CONFIGS = sorted(file.stem for file in (_ROOT / 'configs').glob('[!_]*.py'))


def test_there_are_the_expected_binaries():
  assert set(_BINARIES) >= {
    *('sample', 'score', 'embed', 'fit', 'route', 'replay', 'report'),
    *('build_dataset', 'verify', 'pipeline', 'convert'),
    *('train_reward', 'simulate', 'sweep', 'status'),
  }


@pytest.mark.parametrize('binary', _BINARIES)
def test_help(binary, launch):
  done = launch(binary, '--help')
  assert done.returncode == 1  # absl's, for help.
  assert f'python -m launch.{binary}' in done.stdout
  for flag in _OWN_FLAGS.get(binary, ('--config', '--workdir')):
    assert flag in done.stdout


@pytest.mark.parametrize('name', _CONFIGS)
def test_configs_build_and_take_overrides(name):
  values = importlib.import_module(f'configs.{name}').get_config()
  cls = _CLASSES.get(name, pipeline_config.Pipeline)
  built = config.build(cls, values.to_dict())
  if 'runtime' in values:
    values.runtime.compilation_cache = not values.runtime.compilation_cache
  else:  # What measures leaves nothing to the compilation cache.
    values.rounds += 1
  changed = config.build(cls, values.to_dict())
  assert changed != built


def _last_line(done):
  assert done.returncode != 0
  assert 'Traceback' not in done.stderr, done.stderr
  return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
  'flag, expected',
  [
    ('--config.sample.kk=3', 'config.sample.kk is not a field'),
    ('--config.arms.ters.model=x', "did you mean 'terse'"),
    ('--config.fit.ridge.embedding=raw', 'embed.normalize=False'),
    ('--config.sample.engine.prompt_buckets=(9,3)', 'ascending'),
    ('--config=configs/none.py', 'there is no such file'),
    ('--workdir=', '--workdir is empty'),
    ('--config.sample.k=0', 'sample.k must be >= 1, got 0'),
    ('--config.sample.temperature=-1.0', 'sample.temperature must be >= 0'),
    ('--config.sample.dtype=int4', 'bfloat16, float32 or int8'),
    ('--config.prompts.path=nowhere.jsonl', 'nowhere.jsonl'),
    ('--config.arms.terse.model=org/unreachable', 'org/unreachable'),
    ('--config.arms.terse.model=/no/such/folder', '/no/such/folder'),
    ('--config.arms.terse.model=package:smollm', 'smollm'),
    ('--arms=tears', "did you mean 'terse'"),
    ('--config.rewards.judge.kind=jugde', 'jugde'),
    ('--config.rewards.judge.model=', 'needs a decoder'),
    ('--config.runtime.model=3', 'model=3 does not fit 1 devices'),
  ],
)
@pytest.mark.slow
def test_mistakes_are_one_line(flag, expected, tiny, launch, tmp_path):
  done = launch('sample', *tiny.flags(tmp_path), flag)
  assert expected in _last_line(done)


@pytest.mark.slow
def test_a_reward_model_is_no_arm(tiny, launch, tmp_path):
  model = transformers.LlamaForSequenceClassification.from_pretrained(
    tiny.decoder, num_labels=1
  )
  model.save_pretrained(tmp_path / 'reward')
  arm = f'--config.arms.terse.model={tmp_path / "reward"}'
  done = launch('sample', *tiny.flags(tmp_path / 'run'), arm)
  assert 'a reward model, which writes no text' in _last_line(done)


@pytest.mark.slow
def test_an_unknown_field_is_answered_with_the_nearest(tiny, launch, tmp_path):
  done = launch('sample', *tiny.flags(tmp_path), '--config.sample.max_tokens=3')
  assert "did you mean 'max_new_tokens'" in _last_line(done)


@pytest.mark.slow
def test_a_mistake_in_a_config_file_is_one_line(launch, tmp_path):
  file = tmp_path / 'wrong.py'
  file.write_text(
    'from erp_jax.sample import stage\n'
    'def get_config():\n'
    '  return stage.SampleConfig(k=0)\n'
  )
  three = tmp_path / 'three.py'
  three.write_text('def get_config():\n  return 3\n')
  done = launch('sample', '--config', str(three), f'--workdir={tmp_path}')
  assert 'must return a ConfigDict' in _last_line(done)
  done = launch('sample', f'--config={file}', f'--workdir={tmp_path}')
  assert 'sample.k must be >= 1, got 0' in _last_line(done)


@pytest.mark.slow
def test_a_prompt_longer_than_the_context(tiny, launch, tmp_path):
  prompts = tmp_path / 'prompts.jsonl'
  text = tiny.prompts.read_text().replace('math?', 'math' + ' x' * 600 + '?', 1)
  prompts.write_text(text)
  done = launch(
    'sample', *tiny.flags(tmp_path / 'run'), f'--config.prompts.path={prompts}'
  )
  assert "prompt 'math-00' has" in _last_line(done)


@pytest.mark.slow
@pytest.mark.parametrize(
  'flags, expected',
  [
    (['--models=small,lrage'], "'lrage'"),
    (['--models=small,large', '--costs=1'], 'cost'),
    (['--models=small,large', '--costs=1,-2'], '-2'),
    (['--models=small,large', '--costs=1,x'], 'must be numbers'),
    (['--models=small,large', '--category_column=sort'], 'sort'),
    (['--models=small,small'], 'small'),
  ],
)
def test_replay_mistakes_are_one_line(flags, expected, tiny, launch, tmp_path):
  done = launch(
    'replay',
    '--config=configs/replay.py',
    f'--workdir={tmp_path}',
    f'--outcomes={tiny.outcomes}',
    f'--config.embed.encoder={tiny.encoder}',
    '--config.embed.max_tokens=64',
    *flags,
  )
  assert expected in _last_line(done)


@pytest.mark.slow
def test_nobody_need_read_why_it_ends():
  program = 'from launch import app; app._stop_at_once("stopped", 75)'
  with subprocess.Popen(
    [sys.executable, '-c', program], cwd=_ROOT, stderr=subprocess.PIPE
  ) as process:
    process.stderr.close()
    assert process.wait(100) == 75


def test_a_full_disk_ends_in_one_line_and_loses_nothing(tiny, launch, tmp_path):
  """A file size limit of the shell stands in for a full disk."""
  limited = subprocess.run(
    [
      'bash',
      '-c',
      'trap "" XFSZ; ulimit -f 2; exec "$@"',
      '-',
      sys.executable,
      '-m',
      'launch.sample',
      *tiny.flags(tmp_path),
      '--config.runtime.compilation_cache=False',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    env=os.environ,
  )
  line = _last_line(limited)
  assert 'cannot write' in line and 'finished shards are kept' in line
  assert launch('sample', *tiny.flags(tmp_path)).returncode == 0
