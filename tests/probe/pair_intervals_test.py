"""Intervals of AUROC against scikit-learn on rows that are drawn one by one."""

import numpy as np
import pytest
from sklearn import metrics

from erp_jax.core import resample
from erp_jax.probe import pair_intervals, pairwise


def _data(num=60, size=3, seed=0):
  rng = np.random.default_rng(seed)
  emb_NE = rng.standard_normal((num, 4))
  er_NM = emb_NE @ rng.standard_normal((4, 3))
  reward_NKM = er_NM[:, None] + rng.standard_normal((num, size, 3))
  return emb_NE, np.round(reward_NKM), er_NM + rng.standard_normal((num, 3))


def _sklearn(label, reward_NKM, pair, score_N, count_N):
  """AUROC of single comparisons, each as often as its prompt is drawn."""
  i, j = pair
  if label == 'means':
    first, second = reward_NKM[:, :, i].mean(1), reward_NKM[:, :, j].mean(1)
    sign = np.sign(first - second)[:, None]
  elif label == 'matched':
    sign = np.sign(reward_NKM[:, :, i] - reward_NKM[:, :, j])
  else:
    sign = np.sign(reward_NKM[:, :, None, i] - reward_NKM[:, None, :, j])
    sign = sign.reshape(len(sign), -1)
  n, column = np.nonzero(sign)
  return metrics.roc_auc_score(
    sign[n, column], score_N[n], sample_weight=count_N[n]
  )


@pytest.mark.parametrize('label', pairwise.LABELS)
def test_intervals_are_percentiles_of_aurocs_of_drawn_prompts(label):
  emb_NE, reward_NKM, prediction_NM = _data()
  fitted = pairwise.fit(
    *(emb_NE, reward_NKM), pairwise.PairwiseConfig(label=label)
  )
  cfg = resample.BootstrapConfig(num_draws=100, seed=3)
  found = pair_intervals.bootstrap(
    fitted, emb_NE, reward_NKM, prediction_NM, cfg
  )
  counts_QN = np.concatenate([np.ones((1, 60)), *resample.draw_counts(60, cfg)])
  logit_NI = fitted.predict(emb_NE)
  values = {'erp': [], 'logistic': []}
  for index, (i, j) in enumerate(pairwise.arm_pairs(3)):
    margin_N = prediction_NM[:, i] - prediction_NM[:, j]
    for name, score_N in (('erp', margin_N), ('logistic', logit_NI[:, index])):
      values[name].append(
        [
          _sklearn(label, reward_NKM, (i, j), score_N, count_N)
          for count_N in counts_QN
        ]
      )
  values = {name: np.array(rows) for name, rows in values.items()}
  values['difference'] = values['logistic'] - values['erp']
  assert found.used_I.all()
  for name, value_IQ in values.items():
    expected = [*value_IQ, value_IQ.mean(axis=0)]
    leaves = [*found.by_pair[name], found.over_pairs[name]]
    for leaf, value_Q in zip(leaves, expected, strict=True):
      assert leaf['mean'] == pytest.approx(value_Q[0])
      # The same rule on the same draws: of logits, but for differences.
      rule = (
        resample.interval if name == 'difference' else (resample.share_interval)
      )
      assert leaf == pytest.approx(rule(value_Q[0], value_Q[1:]))
  assert np.ptp(values['difference'][:, 0]) > 0.01


def test_averages_are_over_pairs_on_which_both_are_defined():
  emb_NE, reward_NKM, prediction_NM = _data()
  train_NKM = reward_NKM.copy()
  train_NKM[:, :, 2] = reward_NKM.max() + 1  # Nobody else wins in training.
  fitted = pairwise.fit(emb_NE, train_NKM, pairwise.PairwiseConfig())
  cfg = resample.BootstrapConfig(num_draws=100)
  found = pair_intervals.bootstrap(
    fitted, emb_NE, reward_NKM, prediction_NM, cfg
  )
  assert found.used_I.tolist() == [True, False, False]
  assert found.over_pairs['erp'] == found.by_pair['erp'][0]
  assert found.by_pair['erp'][1]['mean'] > 0.5
  assert found.by_pair['logistic'][1] == resample.undefined()
  assert found.by_pair['difference'][1] == resample.undefined()


def test_without_untied_comparisons_nothing_is_defined():
  emb_NE, reward_NKM, prediction_NM = _data()
  fitted = pairwise.fit(emb_NE, reward_NKM, pairwise.PairwiseConfig())
  found = pair_intervals.bootstrap(
    *(fitted, emb_NE, np.zeros(reward_NKM.shape), prediction_NM),
    resample.BootstrapConfig(num_draws=100),
  )
  assert not found.used_I.any()
  assert found.over_pairs['erp'] == resample.undefined()
  assert found.by_pair['erp'] == [resample.undefined()] * 3
