"""A plan as rows of a table, or as one JSON object."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import table as rich_table

from launch.plans import inputs as inputs_lib
from launch.plans import machine as machine_lib
from launch.plans import stages

_COLUMNS = (
  *('stage', 'of', 'chips', 'tokens', 'PFLOP', 'limit', 'share', 'time'),
  *('on disk', ''),
)
_SCALES = ((3600, 'h'), (60, 'min'), (1, 's'), (1e-3, 'ms'))
_SIZES = ((2**30, 'GiB'), (2**20, 'MiB'), (2**10, 'KiB'), (1, 'B'))


def summary(
  rows: Sequence[stages.Row],
  machine: machine_lib.Machine,
  inputs: inputs_lib.Inputs,
) -> dict[str, Any]:
  """All of it: seconds, and hours of the whole machine in `total`."""
  hours = sum(row.secs for row in rows) / 3600
  return {
    'machine': dataclasses.asdict(machine),
    'num_prompts': inputs.num_prompts,
    'response_tokens': inputs.response_tokens,
    'rows': [dataclasses.asdict(row) for row in rows],
    'total': {
      'hours': hours,
      'device_hours': hours * machine.num_chips,
      'tokens': sum(row.tokens for row in rows),
      'flops': sum(row.flops for row in rows),
      'bytes': sum(row.bytes for row in rows),
      'left_out': [
        f'{row.stage} {row.name}: {row.note}' for row in rows if not row.fits
      ],
    },
  }


def table(
  rows: Sequence[stages.Row],
  machine: machine_lib.Machine,
  inputs: inputs_lib.Inputs,
) -> rich_table.Table:
  """A row for each of the plan's, and their sum."""
  made = rich_table.Table(
    caption='\n'.join(_said(machine, inputs)), caption_justify='left'
  )
  for i, column in enumerate(_COLUMNS):
    left = i < 2 or not column
    made.add_column(column, justify='left' if left else 'right')
  for row in rows:
    made.add_row(*_cells(row, machine))
  total = summary(rows, machine, inputs)['total']
  made.add_section()
  hours = f'{total["device_hours"]:.3g} device-hours'
  made.add_row(
    *('all', '', f'{machine.num_chips} × {machine.kind}'),
    *(_count(total['tokens']), f'{total["flops"] / 1e15:.3g}', '', ''),
    *(_scaled(total['hours'] * 3600, _SCALES), _scaled(total['bytes'], _SIZES)),
    hours + (', without what does not fit' if total['left_out'] else ''),
  )
  return made


def _cells(row: stages.Row, machine) -> list[str]:
  cells = [row.stage, row.name]
  if not row.network:
    cells += ['', '', '']
  else:
    spread = f'{row.copies} × {row.chips}' if row.fits else '—'
    cells += [spread, _count(row.tokens), f'{row.flops / 1e15:.3g}']
  if row.secs:
    limit, secs = (_scaled(x, _SCALES) for x in (row.limit_secs, row.secs))
    cells += [limit, f'{row.share:.0%}', secs]
  else:
    cells += ['', '', '—']
  return [*cells, _scaled(row.bytes, _SIZES), row.note]


def _said(machine, inputs) -> list[str]:
  """What was assumed."""
  rates = ', '.join(
    f'{dtype} {rate / 1e12:.3g} TFLOP/s'
    for dtype, rate in machine.flops.items()
    if dtype != inputs_lib.HOST_DTYPE
  )
  prompt = f'{inputs.assumed_tokens:g} tokens'
  if inputs.prompts:
    prompt = f'as many tokens as counted, or {prompt} without a tokenizer here'
  return [
    f'{inputs.num_prompts:,} prompts of {prompt}; responses of '
    f'{inputs.response_tokens:g} tokens{inputs.at_most}.',
    f'One {machine.kind}: {rates}, {machine.bytes / 1e9:.0f} GB/s '
    f'({machine.source}).',
    'chips: copies of the network × what each is spread over. Loading, '
    'compiling, routes, replays and the report are not counted.',
  ]


def _scaled(value: float, units) -> str:
  """In the largest unit of which there is one."""
  size, unit = next((u for u in units if value >= u[0]), units[-1])
  return f'{value / size:.3g} {unit}'


def _count(value: float) -> str:
  return f'{value / 1e6:,.3g} M'
