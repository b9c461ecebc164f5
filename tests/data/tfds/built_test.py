"""Data sets built by tfds hold what a plain loop reads out of the files."""

import collections
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import perfectblend as perfectblend_config
from erp_jax.core import config, errors
from erp_jax.data import prompts, published
from erp_jax.data.tfds import built

_MATH = 'meta-math/MetaMathQA'
_ORCA = 'HuggingFaceH4/orca-math-word-problems-200k'
_CHAT = 'mlabonne/ultrachat_200k_sft'
_CODE = 'theblackcat102/evol-codealpaca-v1'
_OUT = 'openbmb/UltraInteract_sft'


def _turns(*pairs):
  return [{'from': role, 'value': text} for role, text in pairs]


def _rows():
  """All that is odd, and what is not."""
  ask = lambda text: _turns(('human', text), ('gpt', 'a'), ('human', 'b'))
  rows = [
    (ask('one'), _MATH),
    (ask('two é\u2028\n'), _MATH),
    (ask('one'), _ORCA),  # Repeats, in another source.
    (ask('one '), _ORCA),  # Does not.
    (
      _turns(('system', 'Be brief.'), *(('human', 'three'), ('gpt', ''))),
      _CHAT,
    ),
    (_turns(('gpt', 'Hello'), ('human', 'four')), _CHAT),
    (_turns(('system', 'Be brief.'), ('gpt', 'Hello')), _CHAT),
    (_turns(('human', ' \n'), ('gpt', '?'), ('human', 'five')), _CHAT),
    (_turns(('human', None), ('gpt', '?')), _CODE),
    ([], _CODE),
    (ask('left out'), _OUT),
    (ask('left out'), _CODE),  # The first of its text that counts.
    (ask('x' * 100_000), _CODE),
    (ask('three'), _CHAT),
  ]
  return [{'conversations': turns, 'source': source} for turns, source in rows]


_KEPT = {
  'one': (_MATH, 'math'),
  'two é\u2028\n': (_MATH, 'math'),
  'one ': (_ORCA, 'math'),
  'three': (_CHAT, 'chat'),
  'four': (_CHAT, 'chat'),
  'left out': (_CODE, 'code'),
  'x' * 100_000: (_CODE, 'code'),
}


def _write(folder, rows):
  folder.mkdir(exist_ok=True)
  half = len(rows) // 2
  for i, part in enumerate((rows[:half], rows[half:])):
    pq.write_table(
      pa.Table.from_pylist(part), folder / f'train-0000{i}-of-00002.parquet'
    )
  return folder


def _perfectblend(path):
  """The config of that name, with this for its prompts."""
  fields = perfectblend_config.get_config().prompts.to_dict()
  fields |= {'path': str(path), 'files': '*.parquet', 'limit_per_category': 0}
  return config.build(prompts.PromptConfig, fields)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return _write(tmp_path_factory.mktemp('source'), _rows())


@pytest.fixture(scope='module')
def blend(source, tmp_path_factory):
  """The folder of the built data set."""
  data_dir = tmp_path_factory.mktemp('data')
  return pathlib.Path(built.build('open_perfectblend', data_dir, str(source)))


def test_what_is_read_is_what_was_asked_first(blend):
  assert [p.name for p in blend.iterdir() if 'array_record' in p.name] == [
    'open_perfectblend-train.array_record-00000-of-00001'
  ]
  found = prompts.select(_perfectblend(blend))
  expected = sorted(
    (hashlib.sha256(text.encode()).hexdigest()[:16], text, category, source)
    for text, (source, category) in _KEPT.items()
  )
  assert [
    (p.id, p.prompt, p.category, source)
    for p, source in zip(found.prompts, found.sources, strict=True)
  ] == expected
  assert all(p.checks == {} for p in found.prompts)


def test_every_row_is_accounted_for(blend):
  counts = prompts.select(_perfectblend(blend)).counts
  assert counts == built.counts(blend)
  none = {
    source: {'category': category, 'rows': 0, 'kept': 0}
    for source, category in published.SOURCES.items()
  }
  assert counts == none | {
    _MATH: {'category': 'math', 'rows': 2, 'kept': 2},
    _ORCA: {'category': 'math', 'rows': 2, 'kept': 1, 'duplicates': 1},
    _CHAT: {
      **{'category': 'chat', 'rows': 5, 'kept': 2, 'duplicates': 1},
      **{'no_user_turn': 1, 'empty_user_turn': 1},
    },
    _CODE: {
      **{'category': 'code', 'rows': 4, 'kept': 2},
      **{'no_user_turn': 1, 'empty_user_turn': 1},
    },
    _OUT: {'category': '', 'rows': 1, 'kept': 0, 'left_out': 1},
  }
  for count in counts.values():
    whys = [n for why, n in count.items() if why not in ('category', 'rows')]
    assert sum(whys) == count['rows']


def test_it_is_what_the_files_give_without_being_built(blend, source, tmp_path):
  direct, read = (prompts.select(_perfectblend(p)) for p in (source, blend))
  assert direct == read
  rows = [
    {
      'conversations': _turns(('human', f'{i}')),
      'source': (_MATH, _CHAT)[i % 2],
    }
    for i in range(80)
  ]
  many = _write(tmp_path / 'many', rows)
  folder = built.build('open_perfectblend', tmp_path, str(many))
  limit = {'limit_per_category': 7, 'seed': 3}
  direct, read = (
    prompts.select(
      published.open_perfectblend(path=str(path), files='*.parquet', **limit)
    )
    for path in (many, folder)
  )
  assert direct == read
  assert [c.get('over_limit', 0) for c in read.counts.values()].count(33) == 2
  assert len(read.prompts) == 14


_BUILD = """
import sys
from erp_jax.data.tfds import built
folder = built.build('open_perfectblend', sys.argv[1], sys.argv[2])
print(len(built.read(folder, built.prompts.made_by(
  built.published.open_perfectblend())).prompts))
print(sorted(set(sys.modules) & {'tensorflow', 'torch'}))
"""


def test_tensorflow_is_not_loaded_and_nothing_is_left(source, tmp_path):
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', _BUILD, tmp_path, source],
    env=os.environ | {'TMPDIR': str(temporary)},
    capture_output=True,
    text=True,
  )
  assert done.stdout.splitlines()[-2:] == ['7', '[]'], done.stderr
  assert list(temporary.iterdir()) == []


def test_an_unknown_source_ends_the_build_and_leaves_nothing(tmp_path):
  rows = _rows() + [_rows()[0] | {'source': 'meta-math/MetaMath'}] * 3
  source = _write(tmp_path / 'source', rows)
  with pytest.raises(errors.UserError) as e:
    built.build('open_perfectblend', tmp_path / 'data', str(source))
  assert str(e.value).startswith(
    f"{source} has the sources 'meta-math/MetaMath' (3 rows), which "
    'prompts.categories lacks'
  )
  assert not list((tmp_path / 'data').glob('**/*.json'))
  assert not list((tmp_path / 'data').glob('**/*array_record*'))


def test_a_file_where_the_folder_belongs_is_told(source, tmp_path, monkeypatch):
  file = tmp_path / 'a'
  file.touch()
  monkeypatch.setattr(
    built.OpenPerfectblend, 'download_and_prepare', lambda _: file.mkdir()
  )
  with pytest.raises(errors.UserError, match='a file is where a folder'):
    built.build('open_perfectblend', tmp_path, str(source))


def test_another_build_does_not_take_its_place(blend, source, tmp_path):
  times = {p.name: p.stat().st_mtime_ns for p in blend.iterdir()}
  again = shutil.copytree(source, tmp_path / 'copy')
  args = 'open_perfectblend', blend.parents[1]
  assert pathlib.Path(built.build(*args, str(again))) == blend
  assert {p.name: p.stat().st_mtime_ns for p in blend.iterdir()} == times
  other = _write(tmp_path / 'other', _rows()[:-1])
  with pytest.raises(
    errors.UserError,
    match=r'was built with files.train-0000.-of-00002.parquet = ".*set that ba',
  ):
    built.build(*args, str(other))
  cfg = _perfectblend(blend)
  fields = config.as_plain(cfg) | {'system': 'keep'}
  with pytest.raises(errors.UserError, match='with system = "drop", but it sh'):
    prompts.load(prompts.PromptConfig(**fields))
  with pytest.raises(errors.UserError, match="mean 'mmlu_pro'"):
    built.build('mmlupro', tmp_path)


@pytest.mark.parametrize('is_same', [True, False])
def test_of_two_builds_at_once_the_first_stays(
  source, tmp_path, monkeypatch, is_same
):
  other = source if is_same else _write(tmp_path / 'other', _rows()[:-1])
  select = prompts.select

  def last(cfg):
    monkeypatch.setattr(prompts, 'select', select)
    built.build('open_perfectblend', tmp_path, str(other))
    return select(cfg)

  monkeypatch.setattr(prompts, 'select', last)
  if is_same:
    folder = built.build('open_perfectblend', tmp_path, str(source))
    assert len(prompts.load(_perfectblend(folder))) == len(_KEPT)
  else:
    with pytest.raises(errors.UserError, match='was built with files.train'):
      built.build('open_perfectblend', tmp_path, str(source))
  assert len(list((tmp_path / 'open_perfectblend').iterdir())) == 1


def test_files_of_one_name_in_two_folders_both_count(tmp_path):
  rows = _rows()
  for folder, part in (('a', rows[:7]), ('b', rows[7:])):
    (tmp_path / 'in' / folder).mkdir(parents=True)
    table = pa.Table.from_pylist(part)
    pq.write_table(table, tmp_path / 'in' / folder / 'train.parquet')
  args = 'open_perfectblend', tmp_path, str(tmp_path / 'in')
  folder = built.build(*args)
  assert len(prompts.load(_perfectblend(folder))) == len(_KEPT)
  for name in ('a', 'b'):
    file = tmp_path / 'in' / name / 'train.parquet'
    data = file.read_bytes()
    pq.write_table(pa.Table.from_pylist(rows[6:8]), file)
    with pytest.raises(
      errors.UserError, match=f'was built with files.{name}/train.parquet = '
    ):
      built.build(*args)
    file.write_bytes(data)
  assert built.build(*args) == folder


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  'damage',
  [
    _flip,
    lambda path: path.write_bytes(path.read_bytes()[:-9]),
    lambda path: path.write_bytes(b''),
    lambda path: path.unlink(),
  ],
)
@pytest.mark.parametrize('kind', ['array_record', 'features', 'metadata'])
def test_damage_is_one_line(blend, tmp_path, damage, kind):
  folder = tmp_path / blend.parent.name / blend.name
  shutil.copytree(blend, folder)
  (path,) = [p for p in folder.iterdir() if kind in p.name]
  damage(path)
  with pytest.raises(errors.UserError) as e:
    prompts.load(_perfectblend(folder))
  assert '\n' not in str(e.value) and str(folder) in str(e.value)


def test_counts_that_were_altered_are_damage(blend, tmp_path):
  folder = tmp_path / blend.parent.name / blend.name
  shutil.copytree(blend, folder)
  text = (folder / 'metadata.json').read_text()
  (folder / 'metadata.json').write_text(text.replace('"kept": 1', '"kept": 3'))
  with pytest.raises(errors.UserError, match='is damaged'):
    prompts.load(_perfectblend(folder))


def test_a_folder_of_another_builder_is_refused(blend, tmp_path):
  folder = tmp_path / blend.parent.name / blend.name
  shutil.copytree(blend, folder)
  (folder / 'metadata.json').write_text('{}')
  with pytest.raises(errors.UserError, match='build_dataset` did not build'):
    prompts.load(_perfectblend(folder))


def test_real_prompts(shared_data, tmp_path):
  """As conversations of a source of their category, and as they are."""
  path = shared_data / 'prompts_blend.parquet'
  table = pq.read_table(path).to_pylist()
  source_of = {
    category: source for source, category in published.SOURCES.items()
  }
  rows = [
    {
      'conversations': _turns(
        *(('system', 'Be kind.'), ('human', row['prompt']), ('gpt', 'So.'))
      ),
      'source': source_of[row['category']],
    }
    for row in table
  ]
  source = _write(tmp_path / 'source', rows)
  folder = built.build('open_perfectblend', tmp_path, str(source))
  read = prompts.select(published.open_perfectblend(path=str(folder)))
  first = {}
  for row in table:
    first.setdefault(row['prompt'], row['category'])
  assert {p.prompt: p.category for p in read.prompts} == first
  assert len(read.prompts) == len(first) > 4000
  dropped = sum(c.get('duplicates', 0) for c in read.counts.values())
  assert dropped == len(table) - len(first)
  plain = prompts.load(
    prompts.PromptConfig(path=str(path), id_column='prompt_id')
  )
  assert len(plain) == len(table) == 4468
  assert collections.Counter(p.category for p in plain) == {
    'code': 663, 'math': 1500, 'instruction_following': 1500, 'chat': 805,
  }  # fmt: skip


def test_the_binary_downloads_from_a_hub(data_hub, tmp_path):
  _write(data_hub.folder, _rows())
  command = (
    *('-m', 'launch.build_dataset', '--dataset=open_perfectblend'),
    *(f'--data_dir={tmp_path / "data"}', '--path=hub:org/blend@main'),
  )
  for _ in range(2):  # The second time it is there.
    done = data_hub(*command)
    assert done.returncode == 0, done.stderr
    folder = done.stdout.splitlines()[-1]
    assert len(prompts.load(_perfectblend(folder))) == len(_KEPT)
    assert len(data_hub.sent) == 2
  assert (
    f'{_CHAT} (chat): 5 rows, 2 kept, 1 no_user_turn, 1 empty_user_turn, '
    '1 duplicates\n'
  ) in done.stdout
  assert f'{_OUT} (no category): 1 rows, 0 kept, 1 left_out\n' in done.stdout
  done = data_hub(*command, '--files=none*')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert "is 'none*', but no file of hub:org/blend" in done.stderr


def test_without_the_extra_the_command_is_said(blend, tmp_path):
  (tmp_path / 'tensorflow_datasets.py').write_text('raise ImportError("none")')
  program = (
    'import sys\n'
    'from erp_jax.core import errors\n'
    'from erp_jax.data import prompts\n'
    'try:\n'
    '  prompts.load(prompts.PromptConfig(path=sys.argv[1]))\n'
    'except errors.UserError as e:\n'
    '  print(e)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, blend],
    env=os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.getcwd()}'},
    capture_output=True,
    text=True,
  )
  assert done.stdout == (
    "tensorflow_datasets is not installed (none): pip install 'erp_jax[data]', "
    'or give the prompts as files.\n'
  ), done.stderr
  assert json.loads((blend / 'metadata.json').read_text())['erp_jax']
