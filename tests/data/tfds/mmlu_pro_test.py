"""MMLU-Pro built by tfds holds the questions of its files."""

import pyarrow as pa
import pyarrow.parquet as pq

from configs import mmlu_pro as mmlu_pro_config
from erp_jax.core import config
from erp_jax.data import prompts, published
from erp_jax.data.tfds import built


def test_questions_of_mmlu_pro(tmp_path):
  rows = [
    {
      'question_id': i,
      'question': f'Which is {i}?',
      'options': ['one', 'N/A', 'two é', 'three'],
      'answer': 'B',
      'answer_index': 2,
      'category': 'law' if i % 2 else 'math',
    }
    for i in range(9)
  ]
  source = tmp_path / 'source'
  source.mkdir()
  for i, part in enumerate((rows[:5], rows[5:])):
    pq.write_table(pa.Table.from_pylist(part), source / f'test-{i}.parquet')
  folder = built.build('mmlu_pro', tmp_path, str(source), 'test-*')
  values = mmlu_pro_config.get_config().prompts
  values.path = str(folder)
  found = prompts.select(config.build(prompts.PromptConfig, values.to_dict()))
  assert [p.id for p in found.prompts] == [f'mmlupro/{i}' for i in range(9)]
  assert found.prompts[3].prompt.startswith(
    'Which is 3?\n(A) one\n(B) two é\n(C) three\n\n'
  )
  assert found.prompts[3].category == 'law'
  assert found.prompts[3].checks == {
    'kind': 'choice', 'answer': 'B', 'choices': 3,
  }  # fmt: skip


def test_all_real_questions(shared_data, tmp_path):
  path = str(shared_data / 'mmlu_pro.parquet')
  folder = built.build('mmlu_pro', tmp_path, path)
  read = prompts.select(published.mmlu_pro(path=str(folder)))
  assert read == prompts.select(published.mmlu_pro(path=path))
  assert len(read.prompts) == 12032
