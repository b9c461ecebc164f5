"""The terminal's tables of how often intervals hold the truth."""

from collections.abc import Mapping
from typing import Any

from rich import table as rich_table
from rich import text as rich_text

from erp_jax.report import terminal, words
from erp_jax.route import coverage

_NOTE = (
  'Per cent of intervals, in brackets the Monte-Carlo standard error in the '
  'last digit. used: by evaluations (percentiles, for AUROC reflected as '
  'logits), against the population’s value at the same budget, and at the same '
  'λ; plain: percentiles, at the same budget, as basic and BCa. width: of those'
  ' used.'
)


def tables(content: Mapping[str, Any]) -> list[rich_table.Table]:
  """One for every size of test sets, of `route.coverage.run`'s content."""
  return [
    _table(content, int(size), found)
    for size, found in content['sizes'].items()
  ]


def _table(
  content: Mapping[str, Any], size: int, found: Mapping[str, Any]
) -> rich_table.Table:
  table = terminal.compact(
    'Simulated: how often 95 % intervals hold the truth; '
    f'{words.count(content["sets"])} simulated test sets of '
    f'{words.count(size)} prompts, budget {words.budget(content["budget"])}.',
    _NOTE,
  )
  table.add_column('statistic', min_width=len('regret ERP − mixture'))
  for head in ('used', '… λ', 'plain', 'basic', 'BCa', 'width'):
    table.add_column(head, justify='right', no_wrap=True)
  for key, by_method in found.items():
    used = by_method[coverage.methods(key)[0]]
    others = (coverage.PERCENTILE, coverage.BASIC, coverage.BCA)
    table.add_row(
      rich_text.Text(_label(key)),
      _per_cent(used[coverage.BUDGET]),
      _per_cent(used[coverage.PRICES]),
      *(_per_cent(by_method[method][coverage.BUDGET]) for method in others),
      words.number(used['width']),
    )
  return table


def _label(key: str) -> str:
  """'area ERP − mixture' for 'area:erp-static_mixture'."""
  what, of = key.split(':')
  if what == 'r2':
    return f'R² {of}'
  if what == 'auroc':
    return f'AUROC {of.replace("|", " | ")}'
  shown = {coverage.ERP: 'ERP', coverage.STATIC: 'mixture'}
  return f'{what} ' + ' − '.join(shown[policy] for policy in of.split('-'))


def _per_cent(leaf: Mapping[str, float]) -> str:
  """'94.8(5)' for a share of .948 with a standard error of .005."""
  return f'{100 * leaf["share"]:.1f}({1000 * leaf["error"]:.0f})'
