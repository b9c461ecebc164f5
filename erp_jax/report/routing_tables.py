"""The tables of routing: regret, differences, verdicts, bounds, benchmarks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from erp_jax.core import resample
from erp_jax.report import cells, words
from erp_jax.route import bootstrap, evaluate, routing
from erp_jax.route import split as split_lib

# Policies of the tables of differences and benchmarks, in their order.
COMPARED = bootstrap.COMPARED
AREA = 'area'
# Titles of columns.
_BUDGETS = [f'Budget {words.budget(b)}' for b in evaluate.BUDGETS]


@dataclasses.dataclass(frozen=True)
class Found:
  """One reward model's numbers: over splits, and of the first one.

  Leaves over splits are those of `resample.split_corrected`.
  """

  over_splits: Mapping[str, Any]
  first: Mapping[str, Any]
  oracle: Mapping[str, Any]
  refit: Mapping[str, Any]
  split: split_lib.Split
  num_splits: int


def budgets(
  prefix: str,
  found: Found,
  policies: Sequence[str],
  names: Mapping[str, str],
) -> cells.Table:
  rows = []
  for policy in policies:
    row = [cells.Cell(names[policy])]
    for b in evaluate.BUDGETS:
      leaf = found.over_splits['regret'][policy][b]
      spent = found.over_splits['spent'][policy][b]['mean']
      note = '' if spent is None else f'cost {words.cost(spent)}'
      if 0 < leaf['n_splits'] < found.num_splits:
        note += f'\nmet in {leaf["n_splits"]} of {found.num_splits} splits'
      row.append(cells.leaf(leaf, words.number, note))
    rows.append(row)
  return cells.Table(
    f'{prefix}-regret',
    'Regret at a budget (a share of the best single arm’s mean cost), in '
    f'reward units: mean of {found.num_splits} splits, split-corrected 95 % '
    'interval, and the cost that was really paid. A dash: infeasible.',
    ['Policy', *_BUDGETS],
    rows,
  )


def differences(
  prefix: str,
  found: Found,
  policies: Sequence[str],
  names: Mapping[str, str],
) -> cells.Table:
  """Every policy minus the static mixture, both kinds of interval."""
  rows = []
  for policy in policies:
    if policy == routing.STATIC or policy.startswith('same:'):
      continue
    row = [cells.Cell(names[policy])]
    for key in (*evaluate.BUDGETS, AREA):
      leaf = found.over_splits['minus_static'][policy][key]
      one = paired(found.first, policy, routing.STATIC, key)
      note = ''
      if one['mean'] is not None:
        note = (
          f'split 1: {words.difference(one["mean"])}\n'
          f'{words.interval(one["lo"], one["hi"], words.difference)}'
        )
      row.append(cells.leaf(leaf, words.difference, note))
    rows.append(row)
  return cells.Table(
    f'{prefix}-minus-static',
    'Regret minus that of the static mixture; below zero the policy is '
    f'better. Mean of {found.num_splits} splits with the split-corrected 95 % '
    'interval; below it the first split with a bootstrap over its test '
    'prompts. Area: mean over budgets from the cheapest arm’s cost to the best '
    'single arm’s.',
    ['Policy', *_BUDGETS, 'Area'],
    rows,
  )


def verdicts(
  prefix: str, found: Found, names: Mapping[str, str]
) -> cells.Table:
  """ERP, and its guarded form, against the others: the paper's claims."""
  rows = []
  for ours in (routing.ERP, routing.GUARDED):
    for other in COMPARED:
      if other == ours or other not in names or ours not in names:
        continue
      area = paired(found.first, ours, other, AREA)
      each = {b: paired(found.first, ours, other, b) for b in evaluate.BUDGETS}
      rows.append(
        [
          cells.Cell(names[ours]),
          cells.Cell(names[other]),
          cells.Cell(_verdict([area, *each.values()])),
          cells.leaf(area, words.difference),
          *(cells.Cell(_sign(each[b])) for b in evaluate.BUDGETS),
        ]
      )
  return cells.Table(
    f'{prefix}-verdicts',
    'Who has less regret, on the first split by a paired bootstrap. At a '
    'budget: “less” or “more” where the whole 95 % interval is on that side of '
    'zero, “can’t tell” where it holds zero. Contains: nowhere more, somewhere '
    'less.',
    ['Policy', 'Against', 'Verdict', 'Area, difference', *_BUDGETS],
    rows,
    labels=3,
  )


def _sign(leaf: Mapping[str, float | None]) -> str:
  if leaf['mean'] is None:
    return words.DASH
  if leaf['hi'] < 0:
    return 'less'
  return 'more' if leaf['lo'] > 0 else 'can’t tell'


def _verdict(leaves: Sequence[Mapping[str, float | None]]) -> str:
  signs = {_sign(leaf) for leaf in leaves} - {words.DASH}
  if not signs:
    return words.DASH
  if signs == {'can’t tell'}:
    return 'alike: can’t tell apart'
  if 'more' not in signs:
    return 'contains it'
  return 'is contained by it' if 'less' not in signs else 'they cross'


def refits(prefix: str, found: Found, names: Mapping[str, str]) -> cells.Table:
  """ERP and the mixture with training prompts drawn again too."""
  difference = f'{routing.ERP}-{routing.STATIC}'
  rows = [
    [cells.Cell(names[policy]), *map(cells.leaf, by_budget.values())]
    for policy, by_budget in found.refit['regret_at_budget'].items()
  ]
  rows.append(
    [
      cells.Cell('ERP minus mixture'),
      *(
        cells.leaf(leaf, words.difference)
        for leaf in found.refit['paired'][difference].values()
      ),
    ]
  )
  return cells.Table(
    f'{prefix}-refits',
    'The same for routers fitted like it: 95 % intervals over resampled '
    f'{found.refit["resampled"]}, with a new fit in each of '
    f'{found.refit["num_draws"]} draws. First split; regret, and below it the '
    'difference.',
    ['Policy', *_BUDGETS],
    rows,
  )


def oracle(prefix: str, found: Found, names: Mapping[str, str]) -> cells.Table:
  kinds = {
    'plug_in': 'against the best mean (plug-in, an upper bound)',
    'split_half': 'best arm chosen on other samples (a lower bound)',
    'shrunken': 'against the best shrunken mean',
    'true': 'against the true best (known here: simulated)',
  }
  rows = []
  for policy in COMPARED:
    for kind, label in kinds.items():
      by_budget = found.oracle.get(kind, {}).get(policy)
      if by_budget is None:
        continue
      row = [cells.Cell(names[policy]), cells.Cell(label)]
      for b in evaluate.BUDGETS:
        row.append(
          cells.leaf(by_budget.get(b, resample.undefined()), words.number)
        )
      rows.append(row)
  why = (
    f' Not available: {found.oracle["reason"]}.'
    if found.oracle['reason']
    else ''
  )
  return cells.Table(
    f'{prefix}-oracle',
    'Regret of the first split between two bounds: the best of noisy means is '
    'not the mean of the best arm. In expectation the truth is between plug-in '
    f'and split-half. 95 % intervals by bootstrap over prompts.{why}',
    ['Policy', 'Regret', *_BUDGETS],
    rows,
    labels=2,
  )


def benchmarks(
  prefix: str, found: Found, names: Mapping[str, str]
) -> cells.Table:
  columns = {
    'pgr50': ('PGR(50 %)', words.number),
    'apgr': ('APGR', words.number),
    'cpt50': ('CPT(50 %)', words.share),
    'cpt80': ('CPT(80 %)', words.share),
    'aiq': ('AIQ', words.number),
    'hypervolume': ('Hypervolume', words.cost),
  }
  areas = found.over_splits[AREA]
  rows = []
  for policy in COMPARED:
    if policy not in found.over_splits['benchmarks']:
      continue
    metrics = found.over_splits['benchmarks'][policy]
    row = [cells.Cell(names[policy])]
    for key, (_, write) in columns.items():
      row.append(cells.leaf(metrics.get(key, resample.undefined()), write))
    rows.append([*row, cells.leaf(areas[policy])])
  weak, strong = routing.weak_and_strong(found.split)
  models = found.split.models
  why = routing.why_no_calls(found.split)
  calls = why or f'weak {models[weak]}, strong {models[strong]}'
  return cells.Table(
    f'{prefix}-benchmarks',
    'Metrics of other benchmarks, mean of the splits with the split-corrected '
    f'interval. RouteLLM’s PGR, APGR and CPT are between two arms ({calls}); '
    'higher PGR and lower CPT are better. RouterBench’s AIQ: mean height of '
    'the hull of minus regret up to the best single arm’s cost. Hypervolume: '
    'down to the random arm’s regret at that cost, without lotteries between '
    'points. Area: mean regret over budgets up to that cost.',
    ['Policy', *(title for title, _ in columns.values()), 'Area'],
    rows,
  )


def paired(
  first: Mapping[str, Any], a: str, b: str, key: str
) -> dict[str, float | None]:
  """{mean, lo, hi} of a minus b, whichever way round it was taken."""
  table = first['paired_area'] if key == AREA else first['paired']
  for name, sign in ((f'{a}-{b}', 1), (f'{b}-{a}', -1)):
    if name in table:
      leaf = table[name] if key == AREA else table[name][key]
      if leaf['mean'] is None or sign == 1:
        return leaf
      return {'mean': -leaf['mean'], 'lo': -leaf['hi'], 'hi': -leaf['lo']}
  return resample.undefined()
