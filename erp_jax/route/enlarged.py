"""Two pools on the same test prompts: what the newcomer of one changes."""

import math
from typing import Any

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import ridge as ridge_lib
from erp_jax.route import learning, newcomer, path

# Numbers of a budget, and what one is where it is undefined in a draw.
_NUMBERS = {
  'traffic': math.nan,
  'old': math.nan,
  'enlarged': math.nan,
  'change': math.nan,
  'old_cost': math.nan,
  'enlarged_cost': math.inf,
  'saved': -math.inf,
  'saved_frac': -math.inf,
}


def compare(
  known: newcomer.Setting,
  prediction_N: np.ndarray,
  cfg: resample.BootstrapConfig,
) -> dict[str, dict[str, Any]]:
  """What the newcomer changes, by budget of `learning.BUDGETS` and number.

  traffic: share of prompts that go to it. old, enlarged: regret at the budget,
  and change, the second minus the first: at equal cost. old_cost,
  enlarged_cost: the least cost at which each pool has the old one's regret,
  along its curve; saved and saved_frac: the first minus the second, and by the
  first. A curve may fall below that regret where it is cheaper than the budget,
  and so the old pool's is not simply its cost at the budget: a newcomer that
  gets no traffic saves exactly nothing.

  Each is {mean, lo, hi} with a bootstrap over test prompts, paired, for these
  two fitted routers: in every draw both curves are drawn again, their λ stay.
  All three are None for an infeasible budget. Where the enlarged pool never has
  as little regret, enlarged_cost and saved are undefined, or without that bound
  of the interval if it is so in too many draws; `reached` is the share of draws
  where it has.

  `prediction_N` is the newcomer's, for the test prompts.
  """
  pool_NM = ridge_lib.predict(known.pool, known.test_emb_NE)
  both = _Pools(known, pool_NM, np.column_stack([pool_NM, prediction_N]))
  once = both.values(np.ones((1, len(pool_NM))))
  draws: dict[tuple[str, str], list] = {key: [] for key in once}
  for counts_QN in resample.draw_counts(len(pool_NM), cfg):
    for key, value_Q in both.values(counts_QN).items():
      draws[key].append(value_Q)
  result: dict[str, dict[str, Any]] = {}
  for budget in learning.BUDGETS:
    found = {}
    for name, worst in _NUMBERS.items():
      key = budget, name
      if key not in once:
        found[name] = resample.undefined()
        continue
      found[name] = _interval(
        float(once[key][0]), np.concatenate(draws[key]), worst
      )
    needed = draws.get((budget, 'enlarged_cost'))
    found['reached'] = (
      float(np.isfinite(np.concatenate(needed)).mean()) if needed else None
    )
    result[budget] = found
  return result


def least_cost(
  cost_QP: np.ndarray, regret_QP: np.ndarray, target_Q: np.ndarray
) -> np.ndarray:
  """Least cost with no more regret than the target; NaN where there is none.

  Of points, dearest first, and lotteries between neighbours.
  """
  cost_QP, regret_QP = cost_QP[:, ::-1], regret_QP[:, ::-1]
  rows = np.arange(len(target_Q))
  # The target is often a point of the curve, up to rounding.
  slack = 1e-9 * np.abs(regret_QP).max() + 1e-12
  enough_QP = regret_QP <= target_Q[:, None] + slack
  first_Q = np.argmax(enough_QP, axis=1)
  before_Q = np.maximum(first_Q - 1, 0)
  drop_Q = regret_QP[rows, before_Q] - regret_QP[rows, first_Q]
  part_Q = np.ones(len(rows))
  np.divide(
    *(regret_QP[rows, before_Q] - target_Q, drop_Q),
    out=part_Q,
    where=drop_Q > 0,
  )
  part_Q = np.clip(part_Q, 0.0, 1.0)
  step_Q = cost_QP[rows, first_Q] - cost_QP[rows, before_Q]
  least_Q = cost_QP[rows, before_Q] + part_Q * step_Q
  return np.where(enough_QP.any(axis=1), least_Q, np.nan)


class _Pools:
  """Both λ paths, and what each test prompt adds at each budget."""

  def __init__(
    self, known: newcomer.Setting, old_NM: np.ndarray, enlarged_NM: np.ndarray
  ):
    self._known = known
    num_old = len(known.cost_M) - 1
    self._old = path.trace(old_NM, known.cost_M[:num_old])
    self._enlarged = path.trace(enlarged_NM, known.cost_M)
    value_NM = known.test_value_NM
    self._regret_NM = value_NM.max(axis=1, keepdims=True) - value_NM
    self._columns: dict[tuple[str, str], np.ndarray] = {}
    for name in learning.BUDGETS:
      budget = newcomer.budget_of(known, name)
      if not path.is_feasible(self._enlarged.cost_P, budget):
        continue
      share_NM = newcomer.share_at(self._enlarged, budget)
      self._columns[name, 'traffic'] = share_NM[:, -1]
      regret_N = (share_NM * self._regret_NM).sum(axis=1)
      self._columns[name, 'enlarged'] = regret_N
      if path.is_feasible(self._old.cost_P, budget):
        share_NM = newcomer.share_at(self._old, budget)
        old_N = (share_NM * self._regret_NM[:, :num_old]).sum(axis=1)
        self._columns[name, 'old'] = old_N
        self._columns[name, 'change'] = regret_N - old_N

  def values(self, counts_QN: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """value_Q by (budget, number) in draws of the test prompts."""
    columns = np.stack(list(self._columns.values()), axis=1)
    sums = counts_QN @ columns / counts_QN.sum(axis=1, keepdims=True)
    found = dict(zip(self._columns, sums.T, strict=True))
    along = {
      name: self._along(lam_path, counts_QN)
      for name, lam_path in (('old', self._old), ('enlarged', self._enlarged))
    }
    for budget in learning.BUDGETS:
      if (budget, 'old') not in found:
        continue
      target_Q = found[budget, 'old']
      old_Q = least_cost(*along['old'], target_Q)
      enlarged_Q = least_cost(*along['enlarged'], target_Q)
      found[budget, 'old_cost'] = old_Q
      found[budget, 'enlarged_cost'] = enlarged_Q
      found[budget, 'saved'] = old_Q - enlarged_Q
      frac_Q = np.full(len(old_Q), np.nan)
      np.divide(old_Q - enlarged_Q, old_Q, out=frac_Q, where=old_Q > 0)
      found[budget, 'saved_frac'] = frac_Q
    return found

  def _along(
    self, lam_path: path.LambdaPath, counts_QN: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """cost_QP and regret_QP at every point, means over the draws' prompts."""
    num_arms = lam_path.share_PM.shape[1]
    cost_NM = np.tile(self._known.cost_M[:num_arms], (counts_QN.shape[1], 1))
    return (
      _accumulate(lam_path, cost_NM, counts_QN),
      _accumulate(lam_path, self._regret_NM[:, :num_arms], counts_QN),
    )


def _accumulate(
  lam_path: path.LambdaPath, value_NM: np.ndarray, counts_QN: np.ndarray
) -> np.ndarray:
  """value_QP: as `path.LambdaPath.accumulate`, in draws of the prompts."""
  prompt = lam_path.event_prompt
  gain = (
    value_NM[prompt, lam_path.event_arm] - value_NM[prompt, lam_path.event_from]
  )
  total = np.zeros((len(counts_QN), len(prompt) + 1))
  np.cumsum(counts_QN[:, prompt] * gain, axis=1, out=total[:, 1:])
  rows = np.arange(len(lam_path.start_N))
  start_Q = counts_QN @ value_NM[rows, lam_path.start_N]
  sum_QP = start_Q[:, None] + total[:, lam_path.end_P]
  return sum_QP / counts_QN.sum(axis=1, keepdims=True)


def _interval(
  point: float, draws_Q: np.ndarray, worst: float
) -> dict[str, float | None]:
  """As `resample.interval`; an undefined draw counts as the worst."""
  if math.isnan(worst) or np.isfinite(draws_Q).all():
    return resample.interval(point, draws_Q)
  if not math.isfinite(point):
    return resample.undefined()
  tail = (1 - resample.LEVEL) / 2
  filled_Q = np.where(np.isfinite(draws_Q), draws_Q, worst)
  lo, hi = np.quantile(filled_Q, [tail, 1 - tail], method='inverted_cdf')
  lo, hi = resample.defined(lo), resample.defined(hi)
  return {'mean': point, 'lo': lo, 'hi': hi}
