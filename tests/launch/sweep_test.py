"""Sweeps: points, their names, states that survive kills, what is skipped."""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from erp_jax.core import errors, preemption, process
from launch.sweeps import grid, points, runner, table
from tests import tiny as tiny_lib

_ROOT = pathlib.Path(__file__).parents[2]
# A binary that does as its flags say, and notes each run in its folder.
_BINARY = """
import os, pathlib, sys, time
flags = dict(a.lstrip('-').partition('=')[::2] for a in sys.argv[1:])
folder = pathlib.Path(flags['workdir'])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / 'runs', 'a') as f:
  f.write(' '.join(sys.argv[1:]) + '\\n')
time.sleep(float(flags.get('secs', 0)))
sys.exit(int(flags.get('config.code', 0)))
"""
_FIT = ('--binary=launch.fit', '--workdir=w')
_CONFIG = """
from launch.sweeps import grid
def get_sweep():
  return grid.product(
    grid.over('a.code', {codes}), grid.over('b.name', ('x', 'y'))
  )
"""


def test_products_zips_and_chains_are_plain_lists():
  a = grid.over('f.a', (1, 2))
  b = grid.over('f.b', ('x', 'y'))
  assert a == [['f.a=1'], ['f.a=2']]
  assert grid.product(a, b) == [
    [f'f.a={i}', f'f.b={j}'] for i, j in itertools.product((1, 2), 'xy')
  ]
  assert grid.zipped(a, b) == [['f.a=1', 'f.b=x'], ['f.a=2', 'f.b=y']]
  assert grid.chain(grid.zipped(a, b), a) == [
    *(['f.a=1', 'f.b=x'], ['f.a=2', 'f.b=y'], ['f.a=1'], ['f.a=2'])
  ]
  assert grid.product() == [[]]
  assert json.loads(json.dumps(grid.product(a, b))) == grid.product(a, b)


def test_sweeps_that_make_no_sense_are_refused():
  with pytest.raises(errors.UserError, match=r'\[2, 1\] points'):
    grid.zipped(grid.over('a', (1, 2)), grid.over('b', (1,)))
  with pytest.raises(errors.UserError, match='sets a field twice'):
    grid.product(grid.over('a', (1, 2)), grid.over('a', (3,)))
  with pytest.raises(errors.UserError, match="lists of 'field=value'"):
    points.named([['a=1'], 'b=2'])
  with pytest.raises(errors.UserError, match='points 0 and 2 .* are the same'):
    points.named([['a=1'], ['a=2'], ['a=1']])
  with pytest.raises(errors.UserError, match=r"over\('a', 'ridge'\) would sw"):
    grid.over('a', 'ridge')
  for sweep in (None, [], {'a': 1}, 'a=1', iter([['a=1']])):
    with pytest.raises(
      errors.UserError, match=r'get_sweep\(\) returns .* list'
    ):
      points.named(sweep)


def test_a_name_is_readable_unique_and_a_folder_anywhere():
  names = [
    points.name(overrides)
    for overrides in (
      [], ['a.k=8'], ['b.k=8'], ['a.k=8', 'b.k=8'], ['x=a/b:c d'],
      ['x=' + 'y' * 300], ['x=' + 'y' * 301],
    )
  ]  # fmt: skip
  assert len(set(names)) == len(names)
  assert names[1].startswith('k=8-') and names[3].startswith('k=8,k=8-')
  assert names[4].startswith('x=a_b_c_d-')
  for name in names:
    assert len(name) <= 110 and not set(name) & set('/: \\')
  # It does not depend on where the point stands.
  found = points.named([['z=1'], ['a.k=8']])
  assert found[1].name == names[1] and found[1].index == 1


@pytest.fixture
def make(tmp_path, monkeypatch):
  """Makes a sweep over four points of the binary above."""
  (tmp_path / 'fake.py').write_text(_BINARY)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  for name in runner._RANKS:
    monkeypatch.delenv(name, raising=False)
  config = tmp_path / 'swept.py'

  def sweep(codes=(0, 1), extra=(), **kwargs):
    # `config.code` is what the binary ends with.
    config.write_text(_CONFIG.format(codes=codes).replace('a.code', 'code'))
    loaded = points.load(str(config))
    workdir = str(tmp_path / 'runs')
    return runner.Sweep(loaded, 'fake', str(config), workdir, extra, **kwargs)

  return sweep


def _runs(sweep, index):
  file = pathlib.Path(sweep.workdir) / sweep.points[index].name / 'runs'
  return file.read_text().splitlines() if file.exists() else []


def _states(sweep):
  return [sweep.state(point) for point in sweep.points]


def test_what_is_done_is_skipped_and_what_failed_is_run_again(make):
  sweep = make(codes=(0, 3), extra=('--extra=1',))
  assert _states(sweep) == ['pending'] * 4
  assert runner.run_all(sweep) == 1
  assert _states(sweep) == ['done', 'done', 'failed', 'failed']
  assert [sweep.record(p).code for p in sweep.points] == [0, 0, 3, 3]
  assert runner.run_all(sweep) == 1
  assert [len(_runs(sweep, i)) for i in range(4)] == [1, 1, 2, 2]
  folder = f'{sweep.workdir}/{sweep.points[1].name}'
  assert _runs(sweep, 1) == [
    f'--config={sweep.config} --workdir={folder} --extra=1 '
    '--config.code=0 --config.b.name=y'
  ]


def test_another_binary_or_other_flags_are_another_run(make):
  sweep = make(codes=(0,))
  assert runner.run_all(sweep) == 0
  again = dataclasses.replace(sweep, extra=('--arms=b',))
  assert _states(again) == ['pending'] * 2
  other = dataclasses.replace(sweep, binary='launch.other')
  assert _states(other) == ['pending'] * 2
  assert _states(sweep) == ['done'] * 2


def test_points_are_found_again_from_anywhere(make, tmp_path, monkeypatch):
  sweep = make(codes=(0,), extra=('--x=1',))
  assert runner.run_all(sweep) == 0
  monkeypatch.chdir(tmp_path)
  assert _states(dataclasses.replace(sweep, workdir='runs')) == ['done'] * 2
  told = lambda sweep: str(table.table(sweep).renderables[1])
  assert told(sweep).endswith('points of ' + sweep.config + ': 2 done')
  other = dataclasses.replace(sweep, extra=())
  assert '2 pending; 2 of them were begun with another config' in told(other)


def test_a_point_that_is_added_runs_no_other_again(make):
  assert runner.run_all(make(codes=(0,))) == 0
  more = make(codes=(1, 0))
  assert _states(more) == ['pending', 'pending', 'done', 'done']


def test_an_index_runs_its_point_alone(make):
  sweep = make(codes=(0, 5))
  assert runner.run_index(sweep, 3) == 5
  assert runner.run_index(sweep, 0) == 0
  assert runner.run_index(sweep, 0) == 0
  assert [len(_runs(sweep, i)) for i in range(4)] == [1, 0, 0, 1]
  for index in (-1, 4):
    with pytest.raises(errors.UserError, match='4 points, from 0 to 3'):
      runner.run_index(sweep, index)


def _until(condition):
  until = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < until
    time.sleep(0.02)


def _program(sweep, *flags):
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'launch.sweep', f'--config={sweep.config}'),
      *('--binary=fake', f'--workdir={sweep.workdir}', *flags),
      *(['--', *sweep.extra] if sweep.extra else []),
    ],
    cwd=_ROOT,
    env=os.environ | {'PYTHONPATH': os.environ['PYTHONPATH']},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )


@pytest.mark.slow
def test_killed_sweeps_leave_true_states(make):
  """kill -9 of the sweep lets its point go on; of that too, it was cut off."""
  sweep = make(codes=(0,), extra=('--secs=60',))
  first = sweep.points[0]
  with _program(sweep, '--run') as parent:
    _until(lambda: sweep.state(first) == 'running' and _runs(sweep, 0))
    child = sweep.record(first).pid
    parent.kill()
    parent.wait()
    assert sweep.state(first) == 'running'
    # Another sweep leaves it alone, and --index refuses it.
    with pytest.raises(errors.UserError, match=f'by process {child}'):
      runner.run_index(sweep, 0)
    os.kill(child, signal.SIGKILL)
  _until(lambda: sweep.state(first) == 'interrupted')
  quick = dataclasses.replace(sweep, extra=())
  record = process.read(sweep.state_file(first))
  process.write(
    sweep.state_file(first),
    dataclasses.replace(record, command=quick.command(first)),
  )
  assert quick.state(first) == 'interrupted'
  assert runner.run_index(quick, 0) == 0
  assert quick.state(first) == 'done' and len(_runs(sweep, 0)) == 2


def test_a_point_that_was_preempted_is_run_again(make):
  """Whoever told it so will tell the sweep, or has forgotten to."""
  sweep = make(codes=(preemption.EXIT_CODE,))
  assert runner.run_all(sweep) == preemption.EXIT_CODE
  assert _states(sweep) == ['interrupted', 'pending']
  assert runner.run_index(sweep, 1) == preemption.EXIT_CODE
  assert _states(sweep) == ['interrupted', 'interrupted']


@pytest.mark.slow
def test_sigterm_goes_on_to_the_point_and_ends_the_sweep(make):
  sweep = make(codes=(0,), extra=('--secs=60',))
  with _program(sweep, '--run') as parent:
    _until(
      lambda: _runs(sweep, 0) and sweep.state(sweep.points[0]) == 'running'
    )
    child = sweep.record(sweep.points[0]).pid
    parent.terminate()
    shown = parent.communicate()[0]
  assert parent.returncode == preemption.EXIT_CODE
  assert not process.start_ticks(child)
  assert _states(sweep) == ['interrupted', 'pending']
  assert '1 interrupted, 1 pending' in shown


def test_a_state_of_another_host_stops_no_array_element(make):
  sweep = make(codes=(0,))
  point = sweep.points[0]
  record = process.begun(sweep.command(point), os.getpid())
  away = dataclasses.replace(record, host='elsewhere')
  process.write(sweep.state_file(point), away)
  assert sweep.state(point) == 'running'
  runner.run_all(sweep)
  assert _runs(sweep, 0) == []  # Somebody else's.
  assert runner.run_index(sweep, 0) == 0
  assert sweep.state(point) == 'done'


def test_of_a_group_the_first_host_writes_the_state(make, monkeypatch):
  sweep = make(codes=(0,))
  monkeypatch.setenv('SLURM_PROCID', '1')
  assert runner.run_index(sweep, 0) == 0
  assert _states(sweep) == ['pending'] * 2 and len(_runs(sweep, 0)) == 1
  with pytest.raises(errors.UserError, match='by --index=N'):
    runner.run_all(sweep)
  monkeypatch.setenv('SLURM_PROCID', '0')
  assert runner.run_index(sweep, 0) == 0
  assert _states(sweep) == ['done', 'pending'] and len(_runs(sweep, 0)) == 2


def test_a_point_is_the_same_at_other_addresses(make):
  sweep = make(codes=(0,))
  at = lambda host, port: dataclasses.replace(
    sweep,
    extra=(
      f'--config.runtime.host={host}',
      f'--config.runtime.coordinator=10.0.0.{port}:8476',
    ),
  )
  assert runner.run_index(at(0, 1), 0) == 0
  assert _states(at(1, 1)) == _states(at(0, 2)) == ['done', 'pending']
  assert not at(1, 2).is_other(sweep.points[0])


def test_points_read_the_artefacts_of_a_run(make, tmp_path):
  run = tmp_path / 'run'
  (run / 'rewards' / 'judge').mkdir(parents=True)
  sweep = make(codes=(0,), inputs=str(run))
  assert runner.run_all(sweep) == 0
  for point in sweep.points:
    link = pathlib.Path(sweep.workdir) / point.name / 'rewards'
    assert link.resolve() == run / 'rewards'
    assert not (link.parent / 'probes').exists()
  assert runner.run_index(dataclasses.replace(sweep, extra=('--x=1',)), 0) == 0
  other = tmp_path / 'other'
  (other / 'rewards').mkdir(parents=True)
  (other / 'embeddings').mkdir()
  # Also for a point that is done.
  with pytest.raises(
    errors.UserError, match=f'rewards, not of --inputs={other}'
  ):
    runner.run_all(dataclasses.replace(sweep, inputs=str(other)))
  for inputs, expected in (
    (str(tmp_path), 'has none of responses'),
    ('gs://bucket/run', 'a bucket has no links'),
  ):
    wrong = dataclasses.replace(sweep, inputs=inputs, extra=('--x=2',))
    with pytest.raises(errors.UserError, match=expected):
      runner.run_index(wrong, 0)


def test_the_table_has_a_row_a_point(make):
  sweep = make(codes=(0, 7))
  runner.run_index(sweep, 0)
  runner.run_index(sweep, 2)
  made, total = table.table(sweep).renderables
  columns = [[str(cell) for cell in column.cells] for column in made.columns]
  assert columns[0] == ['0', '1', '2', '3']
  assert columns[1] == ['done', 'pending', 'failed (7)', 'pending']
  assert columns[4][3] == 'code=7\nb.name=y'
  assert columns[5] == [point.name for point in sweep.points]
  assert str(total).endswith('1 done, 1 failed, 2 pending')


@pytest.mark.slow
@pytest.mark.parametrize(
  'flags, expected',
  [
    (['--config=configs/none.py', '--list'], 'there is no such file'),
    (['--config=configs/quickstart.py', '--list'], 'has no get_sweep()'),
    (['--run'], '--binary and --workdir'),
    (['--list', '--workdir=w'], 'only --list goes without both'),
    (['--list', '--run', *_FIT], 'choose one of'),
    (
      ['--run', *_FIT, '--', '--workdir=x'],
      '--workdir=x after `--` is set for',
    ),
    (['--index=6', *_FIT], 'the sweep has 6 points, from 0 to 5'),
  ],
)
def test_mistakes_are_one_line(flags, expected, launch):
  if not flags[0].startswith('--config'):
    flags = ['--config=configs/simulate.py', *flags]
  done = launch('sweep', *flags)
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert expected in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_sweep_of_simulations_runs_and_is_listed(launch, tmp_path):
  """A real binary: one point alone, as in an array, and then the status."""
  flags = [
    *('--config=configs/simulate.py:grm', '--binary=launch.simulate'),
    f'--workdir={tmp_path}',
  ]
  small = tiny_lib.SIMULATION.items()
  extra = ['--', *(f'--config.{name}={value}' for name, value in small)]
  done = launch('sweep', *flags, '--index=1', *extra)
  assert done.returncode == 0, done.stderr
  (metrics,) = tmp_path.rglob('metrics.json')
  assert metrics.parent.name.startswith('spectrum=0.5,selection=leave_one_out-')
  listed = launch('sweep', *flags, '--list', *extra)
  assert listed.returncode == 0 and '1 done, 5 pending' in listed.stdout
  told = launch('status', f'--workdir={tmp_path}')
  assert told.returncode == 0 and '1 done' in told.stdout
  wrong = launch('sweep', *flags, '--index=2', *extra, '--config.beta=1')
  assert wrong.returncode == 1 and 'config.beta is not a field' in wrong.stderr
  told = launch('status', f'--workdir={tmp_path}')
  assert told.returncode == 1 and '1 failed' in told.stdout
