import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from erp_jax.core import resample
from erp_jax.probe import pairwise, ranking


@pytest.mark.parametrize('decimals', [1, 12])  # With tied scores, and without.
def test_draws_are_scikit_learns_with_sample_weights(decimals: int):
  rng = np.random.default_rng(decimals)
  label_N = rng.integers(3, size=80)  # 0: a loss, 1: a win, 2: a tie.
  score_N = np.round(label_N * 0.3 + rng.normal(size=80), decimals)
  ranked = ranking.rank(label_N == 1, label_N == 0, score_N)
  cfg = resample.BootstrapConfig(num_draws=100)
  (counts_QN,) = resample.draw_counts(80, cfg)
  auroc_Q = ranking.aurocs(ranked, counts_QN.T)
  untied_N = label_N < 2
  assert (len(set(score_N)) < 80) == (decimals == 1)
  for counts_N, auroc in zip(counts_QN, auroc_Q, strict=True):
    expected = sklearn_metrics.roc_auc_score(
      label_N[untied_N], score_N[untied_N], sample_weight=counts_N[untied_N]
    )
    assert auroc == pytest.approx(expected, abs=1e-12)


def test_prompts_with_both_wins_and_losses_tie_with_themselves():
  rng = np.random.default_rng(5)
  win_N, loss_N = rng.integers(5, size=(2, 50)).astype(float)
  score_N = np.round(rng.normal(size=50), 1)
  counts_NQ = rng.poisson(1.0, size=(50, 20)).astype(float)
  auroc_Q = ranking.aurocs(ranking.rank(win_N, loss_N, score_N), counts_NQ)
  for counts_N, auroc in zip(counts_NQ.T, auroc_Q, strict=True):
    assert auroc == pytest.approx(
      pairwise.weighted_auroc(counts_N * win_N, counts_N * loss_N, score_N)
    )


def test_a_draw_of_one_class_has_none():
  win_N = np.array([1.0, 0.0, 0.0])
  counts_NQ = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
  auroc_Q = ranking.aurocs(
    ranking.rank(win_N, 1 - win_N, np.array([0.5, 0.2, 0.7])), counts_NQ
  )
  np.testing.assert_array_equal(auroc_Q, [0.0, np.nan, np.nan])
  none = ranking.rank(win_N, 0 * win_N, win_N)
  assert np.isnan(ranking.aurocs(none, counts_NQ)).all()
