"""The verdict, in words that follow from the numbers."""

import dataclasses
import math

from erp_jax.report import evaluation as evaluation_lib
from erp_jax.report import words
from erp_jax.route import evaluate

PAYS = 'pays'
LOSES = 'does not pay'
UNCLEAR = 'can’t tell'
EQUAL = 'no difference'
INFEASIBLE = 'infeasible'
UNKNOWN = 'not measured'
_PAIR = f'{evaluation_lib.ERP}-{evaluation_lib.STATIC}'


@dataclasses.dataclass(frozen=True)
class BudgetVerdict:
  """ERP against the static mixture at one budget.

  Attributes:
    value, lo, hi: regret of ERP minus that of the static mixture on the first
      split (below 0: ERP is better), and its 95 % interval; NaN if unknown.
    mean: the same difference, mean over all splits.
  """

  budget: str
  outcome: str
  value: float
  lo: float
  hi: float
  mean: float


def at_budget(
  evaluation: evaluation_lib.Evaluation, budget: str
) -> BudgetVerdict:
  """Pays only if interval and mean over splits agree that regret falls."""
  value, lo, hi = evaluation.interval('paired', _PAIR, budget)
  erp, static = (
    evaluation.mean('regret_at_budget', policy, budget)
    for policy in (evaluation_lib.ERP, evaluation_lib.STATIC)
  )
  mean = erp - static
  if math.isnan(mean):
    known = evaluation_lib.ERP in evaluation.policies
    outcome = INFEASIBLE if known else UNKNOWN
  elif math.isnan(lo):
    outcome = UNCLEAR
  elif lo == hi == mean == 0:
    outcome = EQUAL
  elif hi < 0 and mean < 0:
    outcome = PAYS
  elif lo > 0 and mean > 0:
    outcome = LOSES
  else:
    outcome = UNCLEAR
  return BudgetVerdict(budget, outcome, value, lo, hi, mean)


def budgets(evaluation: evaluation_lib.Evaluation) -> list[BudgetVerdict]:
  """The verdict at every budget."""
  return [at_budget(evaluation, b) for b in evaluate.BUDGETS]


def routing(evaluation: evaluation_lib.Evaluation) -> str:
  """One sentence: whether routing pays, and at which budgets."""
  found = budgets(evaluation)
  if len(evaluation.models) < 2:
    return 'There is only one arm, so there is nothing to route between.'
  judged = [v for v in found if v.outcome not in (INFEASIBLE, UNKNOWN)]
  if not judged:
    return 'No budget was feasible, so whether routing pays is not known.'
  parts = []
  for outcome, said, every in (
    (PAYS, 'routing pays at {}', 'every budget'),
    (
      LOSES,
      'routing does not pay at {}: it loses to the mixture',
      'any budget',
    ),
    (EQUAL, 'routing makes no difference at {}', 'any budget'),
    (UNCLEAR, 'we can’t tell whether routing pays at {}', 'any budget'),
  ):
    where = [words.budget(v.budget) for v in judged if v.outcome == outcome]
    if len(where) == len(found):
      parts.append(said.format(every))
    elif where:
      noun = 'a budget' if len(where) == 1 else 'budgets'
      parts.append(said.format(f'{noun} of {words.join(where)}'))
  text = '; '.join(parts) + '.'
  return text[0].upper() + text[1:]


def predictability(evaluation: evaluation_lib.Evaluation) -> str:
  """One sentence on the aggregate R² of all arms, first split."""
  r2 = {
    model: evaluation.interval('r2', model, 'aggregate')
    for model in evaluation.models
  }
  known = {m: v for m, v in r2.items() if not math.isnan(v[0])}
  if not known:
    return 'R² is undefined for every arm: their test rewards do not vary.'
  values = [value for value, _, _ in known.values()]
  above = sum(lo > 0 for _, lo, _ in known.values())
  low, high = words.number(min(values)), words.number(max(values))
  span = f'R² is {low}' if len(values) == 1 else f'R² runs from {low} to {high}'
  if above == len(known):
    judged = (
      'is above zero for every arm: rewards are predictable to that extent'
    )
  elif above:
    judged = (
      f'is above zero for {above} of {len(known)} arms; for the others a guess '
      'of the average may be as good or better'
    )
  else:
    judged = (
      'reaches zero or below for every arm: a guess of the average may be as '
      'good or better'
    )
  missing = len(r2) - len(known)
  tail = f' ({missing} undefined)' if missing else ''
  return f'{span} over the arms{tail}; its 95 % interval {judged}.'
