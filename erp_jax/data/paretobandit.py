"""The records of the package paretobandit as a table of outcomes."""

import hashlib
import json

import pyarrow as pa
from etils import epath


def long_table(folder: epath.PathLike) -> pa.Table:
  """The records of PyPI `paretobandit` in the long format.

  Both files, `val.jsonl` and `test_holdout.jsonl`: 3609 prompts, 3 models, a
  judge's reward in [0, 1] and the dollars of each answer. `category` is the
  benchmark (`bbh` for all its tasks), `subset` the task.
  """
  rows = []
  for name in ('val.jsonl', 'test_holdout.jsonl'):
    with (epath.Path(folder) / name).open('r') as f:
      for line in f:
        record = json.loads(line)
        digest = hashlib.sha256(record['prompt'].encode()).hexdigest()
        for model, result in record['arms'].items():
          rows.append(
            {
              'prompt_id': f'{record["source"]}-{digest[:16]}',
              'prompt': record['prompt'],
              'category': record['source'].split('/')[0],
              'subset': record['source'],
              'model': model,
              'reward': result['reward'],
              'n_samples': 1,
              'reward_kind': 'judge01',
              'cost_usd': result['cost'],
            }
          )
  types = dict.fromkeys(rows[0], pa.string())
  types |= dict.fromkeys(('reward', 'cost_usd'), pa.float64()) | {
    'n_samples': pa.int16()
  }
  return pa.Table.from_pylist(rows, pa.schema(types))
