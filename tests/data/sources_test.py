"""Sources get categories by a table, repeated texts go, rows are counted."""

import collections
import io
import json

import pyarrow.parquet as pq
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import prompt_record, prompts

_TABLE = {'gsm': 'math', 'aqua': 'math', 'chat': 'talk', 'spam': ''}


def _rows():
  """Of each source some, in turn; every fifth repeats the text before it."""
  names = ['gsm', 'aqua', 'chat', 'chat', 'spam']
  return [
    {
      'id': f'p{i:02d}',
      'prompt': f'text {i - (i % 10 == 3)}',
      'category': names[i % 5],
    }
    for i in range(40)
  ]


def _config(tmp_path, rows=None, **fields):
  path = tmp_path / 'rows.jsonl'
  rows = _rows() if rows is None else rows
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return prompts.PromptConfig(path=str(path), **fields)


def test_the_table_gives_categories_and_leaves_out(tmp_path):
  found = prompts.select(_config(tmp_path, categories=_TABLE))
  assert len(found.prompts) == 32
  for prompt, source in zip(found.prompts, found.sources, strict=True):
    row = _rows()[int(prompt.id[1:])]
    assert (prompt.prompt, source) == (row['prompt'], row['category'])
    assert prompt.category == _TABLE[source]
  assert found.counts == {
    'aqua': {'category': 'math', 'rows': 8, 'kept': 8},
    'chat': {'category': 'talk', 'rows': 16, 'kept': 16},
    'gsm': {'category': 'math', 'rows': 8, 'kept': 8},
    'spam': {'category': '', 'rows': 8, 'kept': 0, 'left_out': 8},
  }
  plain = prompts.select(_config(tmp_path))
  assert {p.category for p in plain.prompts} == set(_TABLE)
  assert {c['rows'] - c['kept'] for c in plain.counts.values()} == {0}


def test_a_source_that_the_table_lacks_is_refused(tmp_path):
  table = {'gsm': 'math', 'aqau': 'math', 'chat': 'talk'}
  with pytest.raises(errors.UserError) as e:
    prompts.load(_config(tmp_path, categories=table))
  assert str(e.value).endswith(
    "rows.jsonl has the sources 'aqua' (8 rows), 'spam' (8 rows), which "
    "prompts.categories lacks: give each a category there, or '' to leave it "
    "out; did you mean 'aqau'? allowed: aqau, chat, gsm."
  )


def test_a_source_of_the_table_without_rows_is_counted(tmp_path):
  found = prompts.select(_config(tmp_path, categories=_TABLE | {'new': 'math'}))
  assert found.counts['new'] == {'category': 'math', 'rows': 0, 'kept': 0}


def test_repeated_texts_are_kept_or_dropped(tmp_path):
  kept = prompts.select(_config(tmp_path))
  assert len(kept.prompts) == 40
  found = prompts.select(_config(tmp_path, duplicates='drop'))
  assert [p.id for p in found.prompts] == [
    f'p{i:02d}' for i in range(40) if i % 10 != 3
  ]
  assert found.counts['chat']['duplicates'] == 4
  assert collections.Counter(found.sources)['chat'] == 12
  # Without ids a repeated text is refused unless it is dropped.
  rows = [{k: row[k] for k in ('prompt', 'category')} for row in _rows()]
  with pytest.raises(
    errors.UserError, match="set prompts.duplicates to 'drop'"
  ):
    prompts.load(_config(tmp_path, rows))
  assert len(prompts.load(_config(tmp_path, rows, duplicates='drop'))) == 36


def test_a_text_of_a_source_left_out_is_no_first_one(tmp_path):
  rows = [{'id': 'x', 'prompt': 'text 0', 'category': 'spam'}, *_rows()]
  found = prompts.select(
    _config(tmp_path, rows, categories=_TABLE, duplicates='drop')
  )
  assert 'p00' in [p.id for p in found.prompts]
  assert found.counts['spam'] == {
    'category': '', 'rows': 9, 'kept': 0, 'left_out': 9,
  }  # fmt: skip


def test_an_id_with_another_text_is_refused_all_the_same(tmp_path):
  rows = _rows()
  rows[7]['id'] = 'p06'
  with pytest.raises(
    errors.UserError, match="line 8 repeats the prompt id 'p0"
  ):
    prompts.load(_config(tmp_path, rows, duplicates='drop'))
  rows[7]['prompt'] = rows[6]['prompt']  # The same row twice.
  assert len(prompts.load(_config(tmp_path, rows, duplicates='drop'))) == 35


def test_every_row_is_accounted_for(tmp_path):
  found = prompts.select(
    _config(
      tmp_path, categories=_TABLE, duplicates='drop', limit_per_category=5
    )
  )
  for source, count in found.counts.items():
    why = {k: n for k, n in count.items() if k not in ('category', 'rows')}
    assert sum(why.values()) == count['rows'] == (16 if source == 'chat' else 8)
  assert found.counts['chat']['over_limit'] == 16 - 4 - 5
  kept = collections.Counter(found.sources)
  assert kept['gsm'] + kept['aqua'] == kept['chat'] == 5
  assert all(found.counts[s]['kept'] == kept[s] for s in _TABLE)


def test_the_run_keeps_ids_and_counts(tmp_path):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path / 'run'), {'versions': {}})
  for fields in ({}, {'categories': _TABLE, 'duplicates': 'drop'}):
    cfg = _config(tmp_path, **fields)
    found = prompts.select(cfg)
    for _ in range(2):  # The second time it is there.
      prompt_record.write(workdir, cfg, found)
    folder = workdir.path / prompt_record.FOLDER
    manifest = store.read_manifest(folder)
    assert manifest['info']['sources'] == found.counts
    data = store.read_file(folder, prompt_record.FILE)
    table = pq.read_table(io.BytesIO(data)).to_pydict()
    assert table['prompt_id'] == [p.id for p in found.prompts]
    assert table['category'] == [p.category for p in found.prompts]
    assert table['source'] == list(found.sources)


def test_counts_alone_are_written_anew(tmp_path):
  """A row more that is dropped: the prompts are the same, the counts not."""
  workdir = workdir_lib.Workdir(epath.Path(tmp_path / 'run'), {'versions': {}})
  rows = _rows()
  for again in (0, 1):
    cfg = _config(tmp_path, [*rows, *rows[:again]], duplicates='drop')
    prompt_record.write(workdir, cfg, prompts.select(cfg))
    manifest = store.read_manifest(workdir.path / prompt_record.FOLDER)
    counts = manifest['info']['sources']['gsm']
    assert counts.get('duplicates', 0) == again


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    ({'categories': {'a': ' b'}}, "gives 'a' the category ' b', but must"),
    ({'categories': {'a': ' '}}, "gives 'a' the category ' '"),
    (
      {'duplicates': 'refuse'},
      "duplicates is 'refuse', but must be keep or dr",
    ),
    ({'system': 'first'}, "system is 'first', but must be keep or drop"),
    ({'system': 'keep'}, 'only rows of format conversations have system turns'),
    ({'format': 'chat'}, "format is 'chat', but must be one of rows, mmlu_pro"),
  ],
)
def test_bad_config(fields, match):
  with pytest.raises(errors.UserError, match=match):
    prompts.PromptConfig(**fields)
