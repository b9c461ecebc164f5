"""How much of each chip's memory the checkpoints take, and what batch fits.

python -m launch.memory [--chips=H100,v5e] [--models=8B,gemma-2] [--json]
"""

import dataclasses
import json
import sys

from absl import app, flags
from rich import console
from rich import table as rich_table

from erp_jax.core import chips, errors
from erp_jax.models import catalog, memory
from launch import parsing

_CHIPS = flags.DEFINE_list('chips', list(chips.CHIPS), 'Kinds of chips.')
_MODELS = flags.DEFINE_list(
  'models', [], 'Only checkpoints whose names hold one of these.'
)
_DTYPE = flags.DEFINE_enum('dtype', 'bfloat16', memory.DTYPES, 'Of weights.')
_NUM_CHIPS = flags.DEFINE_integer(
  'num_chips', 0, 'That a model is spread over; 0: the fewest that hold it.'
)
_TOKENS = flags.DEFINE_integer(
  'tokens', 32768, 'Of cache, that the fewest chips must hold too.'
)
_JSON = flags.DEFINE_bool('json', False, 'One JSON object a line.')
_COLUMNS = (
  *('checkpoint', 'parameters', 'chips', 'weights\nGiB/chip'),
  *('cache\nKiB/token/chip', 'tokens\nthat fit', 'sequences\nof 2048'),
)


def main(argv):
  del argv
  models = [
    name
    for name in catalog.CATALOG
    if not _MODELS.value or any(part in name for part in _MODELS.value)
  ]
  fits = [_fit(model, chip) for model in models for chip in _CHIPS.value]
  if _JSON.value:
    rows = [json.dumps(dataclasses.asdict(fit)) for fit in fits]
    sys.stdout.write('\n'.join(rows) + '\n')
    return
  table = rich_table.Table(title=f'{_DTYPE.value} weights, bfloat16 cache')
  for i, column in enumerate(_COLUMNS):
    table.add_column(column, justify='right' if i else 'left')
  for fit in fits:
    table.add_row(*_cells(fit))
  console.Console(width=None if sys.stdout.isatty() else 120).print(table)


def _fit(model, chip):
  try:
    if _NUM_CHIPS.value:
      return memory.fit(model, chip, _NUM_CHIPS.value, _DTYPE.value)
    return memory.smallest(model, chip, _DTYPE.value, _TOKENS.value)
  except errors.UserError as e:
    parsing.stop(e)


def _cells(fit):
  chips = f'{fit.num_chips} × {fit.chip}'
  cells = [fit.model, f'{fit.num_parameters:,}', chips, f'{fit.weight_gib:.2f}']
  if not fit.fits:
    return [*cells, '', 'does not fit', '']
  if not fit.cache_kib:
    return [*cells, 'none', '', '']
  sequences = f'{fit.tokens // 2048:,}'
  return [*cells, f'{fit.cache_kib:.1f}', f'{fit.tokens:,}', sequences]


if __name__ == '__main__':
  app.run(main)
