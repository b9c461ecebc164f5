"""SIGTERM finishes the shard that is being made, if it may, and stops."""

import os
import pathlib
import subprocess
import sys

import pytest
from etils import epath

from erp_jax.core import preemption, process, store

# Writes shards, one for each line that it reads; arguments are the folder, the
# time of grace, how many shards, and what is set in `preemption`.
_PROGRAM = """
import os, select, sys
import pyarrow as pa
from etils import epath
from erp_jax.core import preemption, process, store

def wait_for_a_line():
  # A signal just before a read would be heard after it.
  while not select.select([0], [], [], 0.05)[0]:
    pass
  assert os.read(0, 1)

folder, grace_secs, num_shards, *settings = sys.argv[1:]
for setting in settings:
  name, value = setting.split('=')
  setattr(preemption, name, float(value))
path = epath.Path(folder)
with preemption.handled(float(grace_secs)):
  try:
    with process.recorded(path / 'processes', ('launch.x',)):
      artifact = store.Artifact(path / 'a', {'k': 1}, int(num_shards))
      with artifact.writer({'versions': {}}) as writer:
        for i in writer.missing() or ['work without shards']:
          print('making', i, flush=True)
          wait_for_a_line()
          if num_shards != '0':
            writer.write_shard(i, pa.table({'x': [i]}))
        writer.finish()
      print('making none', flush=True)
      wait_for_a_line()
  except preemption.Preempted as e:
    print(e)
    sys.exit(preemption.EXIT_CODE)
"""


class _Started:
  """The program above, step by step."""

  def __init__(self, *args: object):
    self._process = subprocess.Popen(
      [sys.executable, '-c', _PROGRAM, *map(str, args)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.expect('making')

  def expect(self, word: str) -> None:
    assert self._process.stdout.readline().startswith(word)

  def go_on(self) -> None:
    self._process.stdin.write('\n')
    self._process.stdin.flush()

  def terminate(self) -> None:
    """SIGTERM while a shard is made; returns once it was heard."""
    self._process.terminate()
    assert 'SIGTERM: after' in self._process.stderr.readline()

  def stop_reading(self) -> None:
    self._process.stderr.close()

  def ended(self, code: int = preemption.EXIT_CODE) -> str:
    self._process.wait(60)  # Before its input is closed.
    out, err = self._process.communicate()
    assert self._process.returncode == code, err
    return out + (err or '')

  @property
  def pid(self) -> int:
    return self._process.pid


def _shards(folder: pathlib.Path) -> int:
  return len(list((folder / 'a').glob('part-*.json')))


def test_the_shard_that_is_being_made_is_finished_first(tmp_path):
  program = _Started(tmp_path, 100, 3)
  program.go_on()
  program.expect('making 1')
  program.terminate()
  program.go_on()
  said = program.ended()
  assert f'stopped by SIGTERM after 2 of 3 shards of {tmp_path}/a; ' in said
  assert 'making 2' not in said
  assert _shards(tmp_path) == 2
  (record,) = map(process.read, (tmp_path / 'processes').iterdir())
  assert (record.state, record.code) == (process.INTERRUPTED, 75)
  assert '2 of 3' in record.error
  assert not (tmp_path / 'a' / store.FAILURE).exists()
  again = _Started(tmp_path, 100, 3)
  for _ in range(2):
    again.go_on()
  again.ended(0)
  assert store.read_table(tmp_path / 'a')['x'].to_pylist() == [0, 1, 2]


def test_after_the_last_shard_the_artefact_is_finished(tmp_path):
  program = _Started(tmp_path, 100, 1)
  program.terminate()
  program.go_on()
  assert 'after 1 of 1 shards' in program.ended()
  assert store.Artifact(epath.Path(tmp_path) / 'a', {'k': 1}, 1).is_done()


def test_a_shard_that_takes_longer_is_left(tmp_path):
  program = _Started(tmp_path, 0.1, 3)
  program.terminate()
  assert 'after 0 of 3 shards' in program.ended()
  assert _shards(tmp_path) == 0


@pytest.mark.parametrize('num_shards, grace_secs', [(0, 100), (3, 0)])
def test_without_a_shard_or_grace_it_stops_there(
  tmp_path, num_shards, grace_secs
):
  program = _Started(tmp_path, grace_secs, num_shards)
  os.kill(program.pid, 15)
  assert 'stopped by SIGTERM' in program.ended()
  assert _shards(tmp_path) == 0


def test_between_artefacts_it_stops_there(tmp_path):
  program = _Started(tmp_path, 100, 1)
  program.go_on()
  program.expect('making none')
  os.kill(program.pid, 15)
  assert 'stopped by SIGTERM; the same command' in program.ended()


def test_a_second_one_stops_at_once(tmp_path):
  program = _Started(tmp_path, 100, 3, '_ECHO_SECS=0')
  program.terminate()
  os.kill(program.pid, 15)
  assert 'by a second SIGTERM' in program.ended()
  assert _shards(tmp_path) == 0
  (record,) = map(process.read, (tmp_path / 'processes').iterdir())
  assert record.state_now() == process.INTERRUPTED


def test_nobody_need_read_what_it_says(tmp_path):
  """As after `2>&1 | tee`, when a group is stopped."""
  program = _Started(tmp_path, 100, 3)
  program.stop_reading()
  os.kill(program.pid, 15)
  program.go_on()
  assert 'after 1 of 3 shards' in program.ended()
  assert _shards(tmp_path) == 1


def test_echoes_of_the_first_change_nothing(tmp_path):
  """As when a launcher signals a group whose parents pass it on."""
  program = _Started(tmp_path, 100, 3, '_ECHO_SECS=1000')
  program.terminate()
  os.kill(program.pid, 15)
  program.go_on()
  assert 'after 1 of 3 shards' in program.ended()


def test_a_process_on_its_way_out_is_let_go():
  program = (
    'import os, signal\n'
    'from erp_jax.core import preemption\n'
    'with preemption.handled(100):\n'
    '  pass\n'
    'os.kill(os.getpid(), signal.SIGTERM)\n'
  )
  assert subprocess.run([sys.executable, '-c', program]).returncode == 0


_LOST = """
import os, signal, time
from erp_jax.core import preemption

class Swallows:
  def __del__(self):
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10):
      pass

preemption._AGAIN_SECS = 0.1
with preemption.handled(100):
  try:
    Swallows()
    while True:
      time.sleep(60)
  except preemption.Preempted:
    os._exit(7)
"""


def test_what_a_destructor_swallows_comes_again():
  done = subprocess.run(
    [sys.executable, '-c', _LOST], capture_output=True, text=True
  )
  assert 'Preempted' in done.stderr  # Python's word of what it ignored.
  assert done.returncode == 7
