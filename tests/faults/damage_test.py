"""Files that are damaged or missing: named, refused, and made again alone."""

import pathlib
import random
import shutil

import pytest

from erp_jax.core import audit
from tests import tiny as tiny_lib
from tests.faults import runs

pytestmark = pytest.mark.faults

_SHARD = 'part-00001-of-00003'


@pytest.fixture
def copy(finished, tmp_path):
  """A run of all stages, to be damaged."""
  return shutil.copytree(finished.workdir, tmp_path / 'copy')


def _flip(file: pathlib.Path, rng: random.Random) -> None:
  """One bit."""
  data = bytearray(file.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  file.write_bytes(data)


def _truncate(file: pathlib.Path, rng: random.Random) -> None:
  data = file.read_bytes()
  file.write_bytes(data[: rng.randrange(len(data))])


def _written(workdir: pathlib.Path) -> dict[str, int]:
  """When each file that is promised was written."""
  return {
    name: (workdir / name).stat().st_mtime_ns
    for name in tiny_lib.promised(workdir)
  }


def _make_again(tiny, finished, workdir) -> set[str]:
  """Runs what is left; the names of what was made for it.

  Of what is always made, metrics.json and routers, there is no word.
  """
  before = _written(workdir)
  done = runs.finish(tiny, workdir)
  assert runs.num_different(done.promised, finished.promised) == 0
  assert runs.wrong(workdir) == {}
  after = _written(workdir)
  return {
    name
    for name, when in after.items()
    if before.get(name) != when
    and not name.startswith(('metrics.json', 'router/'))
  }


def _delete(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink()


# What is damaged; what is made of it, and has to be made; the stage that reads
# it then; and what that says to delete.
_CASES = {
  'shard of responses': (
    f'responses/terse/{_SHARD}.parquet',
    'rewards/verify/terse',
    'score',
    [f'responses/terse/{_SHARD}{end}' for end in ('.parquet', '.json')],
  ),
  'shard of rewards': (
    f'rewards/relevance/steps/{_SHARD}.parquet',
    'probes/relevance/steps',
    'fit',
    [f'rewards/relevance/steps/{_SHARD}{end}' for end in ('.parquet', '.json')],
  ),
  'weights of a probe': (
    'probes/judge/terse/weights',
    'routes/judge',
    'route',
    ['probes/judge/terse'],
  ),
  'file of a route': (
    'routes/verify/metrics.json',
    'metrics.json',
    'report',
    ['routes/verify/metrics.json'],
  ),
}


@pytest.mark.parametrize(
  'case, damage',
  [
    ('shard of responses', _flip),
    ('shard of responses', _truncate),
    ('shard of rewards', _truncate),
    ('weights of a probe', _truncate),
    ('file of a route', _flip),
  ],
)
def test_what_is_damaged_is_named_refused_and_made_again_alone(
  case, damage, copy, tiny, launch, finished, seed, tally
):
  name, consequence, stage, fix = _CASES[case]
  file = copy / name
  if file.is_dir():  # Where the numbers are.
    inside = (path for path in file.rglob('*') if path.is_file())
    file = max(inside, key=lambda path: path.stat().st_size)
  damage(file, random.Random(f'{case} {seed}'))
  assert runs.wrong(copy) == {name: audit.DAMAGED}
  _delete(copy / consequence)
  done = launch(stage, *tiny.flags(copy))
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert f'{copy / name}' in last or f'{copy / fix[0]}' in last
  assert 'delete' in last
  for path in fix:
    _delete(copy / path)
  made = _make_again(tiny, finished, copy)
  ours = (name, consequence, str(pathlib.Path(fix[0]).parent))
  if name.endswith('.parquet'):
    ours = (name, consequence)
  assert name in made
  assert all(x.startswith(ours) for x in made), made
  what = {'_flip': 'flipped bit in a', '_truncate': 'truncated'}
  tally(f'{what[damage.__name__]} {case}')


@pytest.mark.parametrize('file', ['manifest.json', 'identity.json'])
def test_a_damaged_record_of_an_artefact_is_named(
  file, copy, tiny, launch, finished, seed, tally
):
  folder = 'rewards/judge/terse'
  _truncate(copy / folder / file, random.Random(f'{file} {seed}'))
  assert runs.wrong(copy) == {f'{folder}/{file}': audit.DAMAGED}
  done = launch('score', *tiny.flags(copy))
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert f'{copy / folder / file} is not JSON' in last
  assert f'delete the folder {copy / folder} and run again' in last
  _delete(copy / folder)
  made = _make_again(tiny, finished, copy)
  assert made == {f'{folder}/part-0000{i}-of-00003.parquet' for i in range(3)}
  tally(f'truncated {file}')


@pytest.mark.parametrize(
  'name, damage', [('router.json', _flip), ('router.safetensors', _truncate)]
)
def test_a_damaged_router_is_named(
  name, damage, copy, tiny, launch, finished, seed, tally
):
  damage(copy / 'router/verify' / name, random.Random(f'{name} {seed}'))
  assert runs.wrong(copy) == {'router/verify': audit.DAMAGED}
  done = launch('export_router', *tiny.flags(copy), '--rewards=verify')
  assert done.returncode == 0, done.stderr
  assert runs.wrong(copy) == {}
  assert runs.num_different(tiny_lib.promised(copy), finished.promised) == 0
  tally('damaged router')


def test_what_is_missing_is_made_again_alone(copy, tiny, finished, tally):
  """Shards, records, weights and files of every stage at once."""
  shards = {
    f'responses/terse/{_SHARD}.parquet',
    f'rewards/judge/terse/{_SHARD}.parquet',
    'embeddings/encoder/part-00000-of-00001.parquet',
  }
  records = {
    f'responses/steps/{_SHARD}.json',
    f'rewards/judge/steps/{_SHARD}.json',
  }
  others = {
    'probes/verify/terse/weights',
    'routes/verify/metrics.json',
    'replay/paretobandit/metrics.json',
  }
  missing = shards | records | others
  for name in missing:
    _delete(copy / name)
  assert runs.wrong(copy) == dict.fromkeys(missing, audit.MISSING)
  made = _make_again(tiny, finished, copy)
  assert {name for name in made if '/part-' in name} == shards | {
    name.replace('.json', '.parquet') for name in records
  }
  assert others <= made
  rest = [name for name in made if '/part-' not in name]
  assert {name.split('/')[1] for name in rest} == {'verify', 'paretobandit'}
  for what, names in (
    ('missing shard', shards),
    ('missing record of a shard', records),
    ('missing weights or file', others),
  ):
    for _ in names:
      tally(what)
