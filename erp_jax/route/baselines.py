"""Every policy's cost-regret curve on a split: ERP and what it must beat."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from erp_jax.core import errors
from erp_jax.route import curve as curve_lib
from erp_jax.route import path
from erp_jax.route import split as split_lib

HINDSIGHT = 'static_mixture_hindsight'


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveConfig:
  """How curves are made of predictions (PAPER.md 10 and 11)."""

  # 'exact': every breakpoint of the upper envelope; 'log_grid': the decisions
  # at 0 and at `num_prices` prices, evenly spaced in log λ over its range.
  prices: str = 'exact'
  num_prices: int = 50
  # `random` and `permuted` as expected values in 'closed_form', or one of their
  # 'draws': a random arm each, and one dealing of ERP's decisions.
  blind: str = 'closed_form'
  seed: int = 0  # Of the draws.

  def __post_init__(self):
    for name, allowed in (
      ('prices', ('exact', 'log_grid')),
      ('blind', ('closed_form', 'draws')),
    ):
      errors.check_choice(f'curve.{name}', getattr(self, name), allowed)
    if self.num_prices < 2 or self.seed < 0:
      raise errors.UserError(
        'curve.num_prices must be >= 2 and curve.seed >= 0, got '
        f'{self.num_prices} and {self.seed}.'
      )


def curves(
  split: split_lib.Split,
  cfg: CurveConfig = CurveConfig(),
  predictions: Mapping[str, np.ndarray] | None = None,
  calibrations: Mapping[str, np.ndarray] | None = None,
) -> dict[str, curve_lib.Curve]:
  """Curves by policy name.

  `erp`: (4.4) on the split's predictions. `same:<model>`: one point each.
  `static_mixture`: upper hull of the training means over cost; with _hindsight,
  of the test means. `random`: uniform over arms. `permuted`: ERP's decisions
  dealt to other prompts. `per_category`: the λ path over training category
  means, told the true category. Random ones are expected values, in closed
  form, unless the config says draws.

  Args:
    predictions: prediction_NM of the test prompts, by the name of a further
      policy; its decisions are argmax(prediction - λ cost) too.
    calibrations: predictions for other prompts by policy, on which its budgets
      are set; policies without set them on the test prompts.
  """
  complete_N = split.complete_N
  num = int(complete_N.sum())
  num_models = len(split.models)
  mean_NM = np.tile(split.train_mean_M, (num, 1))
  prediction_NM = split.prediction_NM[complete_N]
  after = path.trace(split.value_NM.mean(axis=0)[None], split.cost_M)
  result = {}
  for name, other_NM in {
    'erp': split.prediction_NM,
    **(predictions or {}),
  }.items():
    curve = by_prediction(split, other_NM)
    if cfg.prices == 'log_grid':
      prices = _log_prices(curve.path, cfg.num_prices)
      curve = _curve(split, path.thin(curve.path, prices), other_NM[complete_N])
    if name in (calibrations or {}):
      elsewhere = path.trace(calibrations[name], split.cost_M)
      curve = dataclasses.replace(curve, calibration=elsewhere)
    result[name] = curve

  def blind(lam_P, share_PM):
    return curve_lib.BlindPath(lam_P, share_PM @ split.cost_M, share_PM, num)

  for name, share_M in zip(split.models, np.eye(num_models), strict=True):
    result[f'same:{name}'] = _curve(
      split, blind(np.zeros(1), share_M[None]), mean_NM
    )
  result['static_mixture'] = static_mixture(split)
  result[HINDSIGHT] = _curve(split, blind(after.lam_P, after.share_PM), mean_NM)
  erp = result['erp'].path
  if cfg.blind == 'draws':
    rng = np.random.default_rng(cfg.seed)
    arm_N = rng.integers(num_models, size=num)
    random = path.trace(np.eye(num_models)[arm_N], np.zeros(num_models))
    random = dataclasses.replace(random, cost_P=random.share_PM @ split.cost_M)
    permuted = path.deal(erp, rng.permutation(num))
  else:
    random = blind(np.zeros(1), np.full((1, num_models), 1 / num_models))
    permuted = blind(erp.lam_P, erp.share_PM)
  result['random'] = _curve(split, random, mean_NM)
  result['permuted'] = _curve(split, permuted, prediction_NM)
  category_mean_NM = split.category_mean_NM()
  result['per_category'] = _curve(
    split, path.trace(category_mean_NM, split.cost_M), category_mean_NM
  )
  return result


def by_prediction(
  split: split_lib.Split, prediction_NM: np.ndarray
) -> curve_lib.Curve:
  """(4.4) on predictions for all test prompts, exactly."""
  prediction_NM = prediction_NM[split.complete_N]
  return _curve(split, path.trace(prediction_NM, split.cost_M), prediction_NM)


def static_mixture(split: split_lib.Split) -> curve_lib.Curve:
  """The upper hull of the training means over cost."""
  num = int(split.complete_N.sum())
  hull = path.trace(split.train_mean_M[None], split.cost_M)
  blind = curve_lib.BlindPath(hull.lam_P, hull.cost_P, hull.share_PM, num)
  return _curve(split, blind, np.tile(split.train_mean_M, (num, 1)))


def _log_prices(lam_path: path.LambdaPath, num: int) -> np.ndarray:
  """0, and `num` prices from the lowest to the highest breakpoint above 0."""
  lam_P = lam_path.lam_P[lam_path.lam_P > 0]
  if not len(lam_P):
    return np.zeros(1)
  return np.append(0.0, np.geomspace(lam_P[0], lam_P[-1], num))


def _curve(
  split: split_lib.Split,
  lam_path: path.LambdaPath | curve_lib.BlindPath,
  prediction_NM: np.ndarray,
) -> curve_lib.Curve:
  oracle = split.value_NM.max(axis=1).mean()
  return curve_lib.Curve(
    path=lam_path,
    predicted_P=lam_path.accumulate(prediction_NM),
    regret_P=oracle - lam_path.accumulate(split.value_NM),
    spent_P=lam_path.accumulate(split.paid_NM[split.complete_N]),
  )
