import json

import numpy as np
import pyarrow.parquet as pq

from erp_jax.data import outcomes, paretobandit


def test_paretobandit_records_become_the_long_format(
  paretobandit_dir, tmp_path
):
  path = tmp_path / 'pareto.parquet'
  pq.write_table(paretobandit.long_table(paretobandit_dir), path)
  models = [
    'meta-llama/llama-3.1-8b-instruct',
    'mistralai/mistral-large-2512',
    'google/gemini-2.5-pro',
  ]
  table = outcomes.load(path, models)
  assert table.counts['prompts_complete'] == 1785 + 1824
  assert 'bbh' in table.category_N
  records = {}
  for name in ('val.jsonl', 'test_holdout.jsonl'):
    for line in (paretobandit_dir / name).read_text().split('\n')[:-1]:
      record = json.loads(line)
      records[record['prompt']] = record['arms']
  arms = [records[prompt] for prompt in table.prompts]
  for m, name in enumerate(models):
    np.testing.assert_array_equal(
      table.reward_NM[:, m], [arm[name]['reward'] for arm in arms]
    )
    np.testing.assert_array_equal(
      table.cost_NM[:, m], [arm[name]['cost'] for arm in arms]
    )
