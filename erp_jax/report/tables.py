"""The tables of an evaluation: rows of cells, whatever shows them."""

import math

from erp_jax.report import cells, verdict, words
from erp_jax.report import evaluation as evaluation_lib
from erp_jax.route import evaluate

Cell, Table = cells.Cell, cells.Table


def _over(evaluation: evaluation_lib.Evaluation) -> str:
  """What a number without an interval is over."""
  if evaluation.num_splits == 1:
    return 'one random split'
  return f'mean of {evaluation.num_splits} random splits'


def budgets(evaluation: evaluation_lib.Evaluation) -> Table:
  """Policy × budget: regret, its interval, and the realised cost.

  The regret is the mean over splits, its interval that of the first split.
  """
  regret = {
    (policy, b): evaluation.mean('regret_at_budget', policy, b)
    for policy in evaluation.policies
    for b in evaluate.BUDGETS
  }
  best = {
    b: min(
      (
        regret[policy, b]
        for policy in evaluation.policies
        if policy != evaluation_lib.ORACLE and not math.isnan(regret[policy, b])
      ),
      default=math.nan,
    )
    for b in evaluate.BUDGETS
  }
  which = 'split 1: ' if evaluation.num_splits > 1 else ''
  rows = []
  for policy in evaluation.policies:
    row = [Cell(words.policy(policy, evaluation.names))]
    for b in evaluate.BUDGETS:
      value = regret[policy, b]
      if math.isnan(value):
        row.append(Cell(words.DASH))
        continue
      cost = evaluation.mean('cost_at_budget', policy, b)
      note = f'cost {words.cost(cost)}'
      _, lo, hi = evaluation.interval('regret_at_budget', policy, b)
      if interval := words.interval(lo, hi):
        note = f'{which}{interval}\n{note}'
      met = evaluation.splits_with('regret_at_budget', policy, b)
      if met < evaluation.num_splits:
        note += f'\nmet in {met} of {evaluation.num_splits} splits'
      row.append(
        Cell(
          words.number(value),
          note,
          strong=policy != evaluation_lib.ORACLE
          and words.number(value) == words.number(best[b]),
        )
      )
    rows.append(row)
  return Table(
    'budgets',
    'Regret at a budget, in reward units, and the cost that was really paid '
    f'({evaluation.cost_unit}); {_over(evaluation)}, and below it the 95 % '
    f'interval{" of the first split" if which else ""}. Bold: the lowest of a '
    'budget without the oracle, which is no test.',
    ['Policy', *(f'Budget {words.budget(b)}' for b in evaluate.BUDGETS)],
    rows,
  )


def paired(evaluation: evaluation_lib.Evaluation) -> Table:
  """ERP minus static mixture at each budget, with the verdict."""
  many = evaluation.num_splits > 1
  head = ['Budget', 'Does routing pay?', 'Difference', '95 % interval']
  rows = [
    [
      Cell(words.budget(v.budget)),
      Cell(v.outcome),
      Cell(words.difference(v.value)),
      Cell(words.interval(v.lo, v.hi, words.difference) or words.DASH),
      *([Cell(words.difference(v.mean))] if many else []),
    ]
    for v in verdict.budgets(evaluation)
  ]
  return Table(
    'paired',
    'Regret of the router minus regret of the static mixture on the first '
    'split, in reward units; below zero the router is better.',
    head + ([f'Mean of {evaluation.num_splits} splits'] if many else []),
    rows,
    labels=2,
  )


def r2(evaluation: evaluation_lib.Evaluation) -> Table:
  """R² of each arm, all prompts and by category, with intervals."""
  models = evaluation.models
  rows = []
  if evaluation.num_splits > 1:
    means = [evaluation.mean('r2', model, 'aggregate') for model in models]
    rows.append(
      [
        Cell(f'all prompts, mean of {evaluation.num_splits} splits'),
        *(Cell(words.number(mean)) for mean in means),
      ]
    )
  keys = {'all prompts': ('aggregate',)}
  keys |= {c: ('by_category', c) for c in evaluation.categories}
  for label, key in keys.items():
    row = [Cell(label)]
    for model in models:
      value, lo, hi = evaluation.interval('r2', model, *key)
      row.append(Cell(words.number(value), words.interval(lo, hi)))
    rows.append(row)
  return Table(
    'r2',
    'R²: the share of the reward’s variance over test prompts that the '
    'prediction explains, for each arm. With its 95 % interval: the first '
    'split.',
    ['Prompts', *(evaluation.names[model] for model in models)],
    rows,
  )


def auroc(evaluation: evaluation_lib.Evaluation) -> Table:
  """How well the difference of predictions ranks wins, per pair of arms."""
  rows = []
  for pair in evaluation.metrics['auroc']:
    a, b = (evaluation.names[model] for model in pair.split('|'))
    rows.append(
      [
        Cell(f'{a} or {b}'),
        Cell(words.number(evaluation.mean('auroc', pair, 'erp'))),
        Cell(words.share(evaluation.mean('auroc', pair, 'tied_share'))),
      ]
    )
  return Table(
    'auroc',
    'Which of two arms wins on a prompt: 0.5 is a coin, 1 is always right. '
    'Ties are left out; their share is in the last '
    f'column. {_over(evaluation).capitalize()}.',
    ['Pair', 'AUROC', 'Tied'],
    rows,
  )


def wins(evaluation: evaluation_lib.Evaluation) -> Table:
  """True and predicted win share of each arm in each category."""
  rows = [
    [
      Cell(category),
      Cell(kind),
      *(
        Cell(words.share(evaluation.win_share(category, model, kind)))
        for model in evaluation.models
      ),
    ]
    for category in evaluation.categories
    for kind in ('true', 'predicted')
  ]
  return Table(
    'wins',
    'Share of test prompts on which each arm is best; ties are shared out. '
    f'{_over(evaluation).capitalize()}.',
    ['Category', 'Shares'] + [evaluation.names[m] for m in evaluation.models],
    rows,
    labels=2,
  )
