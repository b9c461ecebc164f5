"""The terminal's tables of a simulation: how many prompts and samples."""

from collections.abc import Mapping
from typing import Any

from rich import table as rich_table

from erp_jax.core import resample
from erp_jax.report import terminal, words
from erp_jax.route import evaluate

_CRITERIA = {
  'regret': 'least regret',
  'r2': 'highest R²',
  'contrast_r2': '… of contrasts',
}


def tables(metrics: Mapping[str, Any]) -> list[rich_table.Table]:
  """For every reward model: the grid, what routing saves, the best cells.

  `metrics` are those of `route.simulation.run`.
  """
  counts = metrics['counts']
  over = (
    f'mean of {counts["training_sets"]} simulated training sets on '
    f'{words.count(counts["test_prompts"])} simulated test prompts; in '
    'brackets the standard error in the last digits'
  )
  shown: list[rich_table.Table] = []
  for name, found in metrics['rewards'].items():
    shown += [_grid(name, found, over), _saved(name, found, over)]
    if found['best']:
      shown.append(_best(name, found, over))
  return shown


def _table(title: str, *head: str, note: str = '') -> rich_table.Table:
  table = terminal.compact(title, note)
  for name in head:
    table.add_column(name, justify='right')
  return table


def _leaf(leaf: Mapping[str, float | None]) -> str:
  return words.uncertain(leaf['mean'], leaf['se'])


def _grid(name: str, found: Mapping[str, Any], over: str) -> rich_table.Table:
  table = _table(
    f'Simulated {name}: R², R² of contrasts, and true regret of ERP at budgets '
    f'(lower is better); {over}.',
    *('N × K', 'R²', 'contrasts'),
    *map(words.budget, evaluate.BUDGETS),
    note='mix: the static mixture, fitted in the last cell above; oracle: '
    'knows every prompt’s simulated expected rewards.',
  )
  for cell in found['cells']:
    table.add_row(
      _product(cell['prompts'], cell['samples']),
      *(_leaf(cell['r2']), _leaf(cell['contrast_r2'])),
      *(_leaf(cell['regret']['erp'][b]) for b in evaluate.BUDGETS),
    )
  table.add_section()
  last = found['cells'][-1]['regret']['static_mixture']
  table.add_row(*('mix', '', ''), *(_leaf(last[b]) for b in evaluate.BUDGETS))
  table.add_row(
    *('oracle', '', ''),
    *(
      words.uncertain(found['oracle_regret'][b], None) for b in evaluate.BUDGETS
    ),
  )
  return table


def _saved(name: str, found: Mapping[str, Any], over: str) -> rich_table.Table:
  table = _table(
    f'Simulated {name}: true regret that ERP saves against the static mixture '
    f'of the same training data; {over}.',
    *('N × K', *map(words.budget, evaluate.BUDGETS), 'no limit'),
  )
  for cell in found['cells']:
    table.add_row(
      _product(cell['prompts'], cell['samples']),
      *map(_leaf, cell['saved'].values()),
    )
  return table


def _best(name: str, found: Mapping[str, Any], over: str) -> rich_table.Table:
  table = _table(
    f'Simulated {name}: the best N × K for a fixed number of samples; regret '
    f'is the mean over the budgets; lead: over the second best; {over}.',
    *('samples', 'by', 'N × K', 'value', 'second', 'lead'),
    note='?: less than two standard errors.',
  )
  for total, best in found['best'].items():
    for by, row in best.items():
      table.add_row(
        words.count(int(total)) if by == 'regret' else '',
        _CRITERIA[by],
        _product(row['prompts'], row['samples']),
        _leaf(row),
        _product(*row['runner_up']),
        words.uncertain(row['lead'], row['lead_se'])
        + ('' if _is_sure(row) else ' ?'),
      )
  return table


def _is_sure(row: Mapping[str, Any]) -> bool:
  return resample.number(row['lead']) > 2 * resample.number(row['lead_se'])


def _product(num_prompts: int, num_samples: int) -> str:
  return f'{words.count(num_prompts)} × {num_samples}'
