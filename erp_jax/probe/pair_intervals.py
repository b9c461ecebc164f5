"""How sure AUROCs of pairs are: paired bootstrap over test prompts."""

from typing import Any, NamedTuple

import numpy as np

from erp_jax.core import resample
from erp_jax.probe import pairwise, ranking

PREDICTORS = ('erp', 'logistic')
DIFFERENCE = 'difference'  # The regression's minus ERP's.


class Intervals(NamedTuple):
  """Intervals of one label and reward model, for these fitted predictors.

  Attributes:
    comparison: what they are of.
    by_pair: {mean, lo, hi} of each pair, by predictor and of DIFFERENCE.
    over_pairs: of their averages over the `used` pairs.
    used_I: pairs on which both predictors are defined.
  """

  comparison: pairwise.Comparison
  by_pair: dict[str, list[dict[str, Any]]]
  over_pairs: dict[str, dict[str, Any]]
  used_I: np.ndarray


def bootstrap(
  logistic: pairwise.Logistic,
  emb_NE: np.ndarray,
  reward_NKM: np.ndarray,
  prediction_NM: np.ndarray,
  cfg: resample.BootstrapConfig,
) -> Intervals:
  """`pairwise.compare` with 95 % intervals, test prompts drawn again.

  All prompts' samples go with them, and both predictors are judged on the same
  draws. Draws in which a pair is undefined are left out of its interval, and
  out of that of the average.
  """
  comparison = pairwise.compare(logistic, emb_NE, reward_NKM, prediction_NM)
  wins = pairwise.count_wins(reward_NKM, logistic.label)
  scores = dict(
    erp=pairwise.margins(prediction_NM), logistic=logistic.predict(emb_NE)
  )
  found = dict(erp=comparison.erp, logistic=comparison.logistic)
  rankings = {
    (name, index): ranking.rank(
      wins.win_NI[:, index],
      wins.loss_NI[:, index],
      np.nan_to_num(scores[name][:, index]),
    )
    for name in PREDICTORS
    for index in np.flatnonzero([not r for r in found[name].reasons])
  }
  num_pairs = len(comparison.pairs)
  draws = {name: [] for name in PREDICTORS}
  for counts_QN in resample.draw_counts(len(emb_NE), cfg):
    counts_NQ = np.ascontiguousarray(counts_QN.T)
    for name in PREDICTORS:
      value_QI = np.full((len(counts_QN), num_pairs), np.nan)
      for index in range(num_pairs):
        if (name, index) in rankings:
          value_QI[:, index] = ranking.aurocs(rankings[name, index], counts_NQ)
      draws[name].append(value_QI)
  point_I = {name: auroc.value_I for name, auroc in found.items()}
  value_QI = {name: np.concatenate(parts) for name, parts in draws.items()}
  for tree in (point_I, value_QI):
    tree[DIFFERENCE] = tree['logistic'] - tree['erp']
  used_I = np.isfinite(point_I[DIFFERENCE])
  leaf = {name: resample.share_interval for name in PREDICTORS}
  leaf[DIFFERENCE] = resample.interval
  return Intervals(
    comparison=comparison,
    by_pair={
      name: [
        leaf[name](point_I[name][index], value_QI[name][:, index])
        for index in range(num_pairs)
      ]
      for name in point_I
    },
    over_pairs={
      name: leaf[name](
        point_I[name][used_I].mean(), value_QI[name][:, used_I].mean(axis=1)
      )
      if used_I.any()
      else resample.undefined()
      for name in point_I
    },
    used_I=used_I,
  )
