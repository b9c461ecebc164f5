"""The router's arithmetic: embeddings in, arms out, with NumPy alone."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from erp_jax.core import errors
from erp_jax.probe import ridge
from erp_jax.route import path


@dataclasses.dataclass(frozen=True)
class Decision:
  """What a policy decided for N prompts.

  Attributes:
    choice_N: index of the arm.
    cost_N: that arm's mean cost.
    reward_NM: predicted expected reward of every arm.
  """

  choice_N: np.ndarray
  cost_N: np.ndarray
  reward_NM: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
  """ERP (4.4) with what a budget needs.

  Attributes:
    arms: names.
    probe: one column per arm.
    cost_M: mean cost of each arm.
    best_arm: index of the best single arm, whose cost is budget 1.
    lam_P, cost_P: the λ path of the prompts that it was calibrated on.
  """

  arms: tuple[str, ...]
  probe: ridge.Probe
  cost_M: np.ndarray
  best_arm: int
  lam_P: np.ndarray
  cost_P: np.ndarray

  def decide(
    self,
    emb_NE: np.ndarray,
    *,
    budget: float | None = None,
    lam: float | None = None,
    prompt_ids: Sequence[str] = (),
  ) -> Decision:
    """Arms for prompts, at a price or within a budget: give exactly one.

    Args:
      emb_NE: embeddings, from the encoder that the probe was fitted on.
      budget: ceiling on the mean cost, as a share of the best single arm's.
        It is kept in expectation on prompts like those calibrated on.
      lam: price of a unit of cost, in reward.
      prompt_ids: a budget between two points of the path is a lottery, drawn
        from the hash of the prompt's id; without ids, of its embedding.

    Raises UserError for an infeasible budget, a negative price, and embeddings
    that are not finite or of another width.
    """
    if (budget is None) == (lam is None):
      raise errors.UserError('give either a budget or lam, and not both.')
    reward_NM = ridge.predict(self.probe, emb_NE)
    if lam is not None:
      if not (np.isfinite(lam) and lam >= 0):
        raise errors.UserError(f'lam is {lam}; give a price of 0 or more.')
      lam_N = np.full(len(reward_NM), float(lam))
    else:
      lam_N = self._budget_lam(budget, np.asarray(emb_NE), prompt_ids)
    choice_N = path.choose(reward_NM, self.cost_M, lam_N)
    return Decision(choice_N, self.cost_M[choice_N], reward_NM)

  def _budget_lam(
    self, budget: float, emb_NE: np.ndarray, prompt_ids: Sequence[str]
  ) -> np.ndarray:
    """The price for each prompt: one of two neighbouring points', by lot."""
    if not budget >= 0:
      raise errors.UserError(f'the budget is {budget}; give 0 or more.')
    mix = path.mix_at(self.cost_P, budget * self.cost_M[self.best_arm])
    # Decisions hold from one λ up to the next: the middle is out of reach of
    # rounding. The last point is the cheapest arm, whatever the prediction.
    lam_P = np.append((self.lam_P[:-1] + self.lam_P[1:]) / 2, np.inf)
    lam_P[0] = 0.0
    if not mix.next_frac:
      return np.full(len(emb_NE), lam_P[mix.point])
    names = [name.encode() for name in prompt_ids] or [
      np.ascontiguousarray(row, np.float32).tobytes() for row in emb_NE
    ]
    if len(names) != len(emb_NE):
      raise ValueError(f'{len(names)} prompt ids, {len(emb_NE)} embeddings.')
    draw_N = np.array([_uniform(name) for name in names])
    return np.where(
      draw_N < mix.next_frac, lam_P[mix.point + 1], lam_P[mix.point]
    )


def calibrate(
  probe: ridge.Probe,
  arms: Sequence[str],
  cost_M: np.ndarray,
  train_mean_M: np.ndarray,
  prediction_NM: np.ndarray,
) -> Policy:
  """A policy whose budgets hold on these (unlabelled) prompts' predictions."""
  cost_M = np.asarray(cost_M, np.float64)
  lam_path = path.trace(prediction_NM, cost_M)
  return Policy(
    arms=tuple(arms),
    probe=probe,
    cost_M=cost_M,
    best_arm=best_single(train_mean_M, cost_M),
    lam_P=lam_path.lam_P,
    cost_P=lam_path.cost_P,
  )


def best_single(train_mean_M: np.ndarray, cost_M: np.ndarray) -> int:
  """Arm of the highest training mean, ties to the cheaper one."""
  return int(
    path.choose(np.asarray(train_mean_M)[None], cost_M, np.zeros(1))[0]
  )


def _uniform(name: bytes) -> float:
  """A number in [0, 1) that this name always gets."""
  return int.from_bytes(hashlib.sha256(b'mix\n' + name).digest()[:6]) / 2**48
