"""Win labels against loops; regressions and AUROCs against scikit-learn."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn import linear_model, metrics

from erp_jax.core import errors
from erp_jax.probe import pairwise, ridge, scores


def _data(num=120, size=4, num_arms=3, width=5, seed=0):
  """Embeddings, and rewards of few values (so that they tie) with gaps."""
  rng = np.random.default_rng(seed)
  emb_NE = rng.standard_normal((num, width)) + 0.5
  mean_NM = emb_NE @ rng.standard_normal((width, num_arms)) / 2
  noise_NKM = rng.standard_normal((num, size, num_arms))
  reward_NKM = np.round(mean_NM[:, None] + 2 * noise_NKM)
  reward_NKM[rng.random(reward_NKM.shape) < 0.05] = np.nan
  reward_NKM[0, :, 1] = np.inf  # Not finite: as good as missing.
  return emb_NE, reward_NKM


def _rows(reward_NKM, pair, label):
  """(prompt, sign of the comparison, weight), one comparison after another."""
  rows = []
  for n, reward_KM in enumerate(reward_NKM):
    first_K, second_K = reward_KM[:, pair[0]], reward_KM[:, pair[1]]
    known = [part_K[np.isfinite(part_K)] for part_K in (first_K, second_K)]
    if label == 'matched':
      compared, weight = zip(first_K, second_K, strict=True), 1
    elif label == 'soft':
      compared = itertools.product(*known)
      weight = 1 / max(1, *(len(part_K) for part_K in known))
    elif all(len(part_K) for part_K in known):
      compared, weight = [[part_K.mean() for part_K in known]], 1
    else:
      compared = []
    rows += [
      (n, np.sign(a - b), weight)
      for a, b in compared
      if np.isfinite(a) and np.isfinite(b)
    ]
  return np.array(rows).T


_LABELS = ('matched', 'soft', 'means')


@pytest.mark.parametrize('label', _LABELS)
def test_wins_are_those_of_a_loop(label):
  _, reward_NKM = _data()
  wins = pairwise.count_wins(reward_NKM, label)
  shares = wins.tied_share()
  for index, pair in enumerate([(0, 1), (0, 2), (1, 2)]):
    n, sign, weight = _rows(reward_NKM, pair, label)
    for value, counts_NI in zip((1, -1, 0), wins, strict=True):
      hit = sign == value
      expected_N = np.bincount(n[hit].astype(int), weight[hit], 120)
      np.testing.assert_allclose(counts_NI[:, index], expected_N, atol=1e-12)
    expected = weight[sign == 0].sum() / weight.sum()
    np.testing.assert_allclose(shares[index], expected)
    assert label == 'means' or expected > 0.05


def test_labels_weigh_a_prompt_by_its_samples_or_once():
  rng = np.random.default_rng(0)
  reward_NKM = rng.standard_normal((7, 6, 2))
  for label, weight in (('matched', 6), ('soft', 6), ('means', 1)):
    total_NI = sum(pairwise.count_wins(reward_NKM, label))
    np.testing.assert_allclose(total_NI, weight)


@pytest.mark.parametrize('label', _LABELS)
@pytest.mark.parametrize('embedding', ['unit', 'raw'])
def test_regression_and_aurocs_are_those_of_scikit_learn(label, embedding):
  emb_NE, reward_NKM = _data()
  cfg = pairwise.PairwiseConfig(label=label, embedding=embedding, c=2.0)
  train_N = np.arange(120) < 70
  fitted = pairwise.fit(emb_NE[train_N], reward_NKM[train_N], cfg)
  prediction_NM = np.round(emb_NE[:, :3] * 4) / 4  # Margins tie, too.
  result = pairwise.compare(
    *(fitted, emb_NE[~train_N], reward_NKM[~train_N], prediction_NM[~train_N])
  )
  assert result.pairs == [(0, 1), (0, 2), (1, 2)]
  assert fitted.reasons == result.erp.reasons == ('', '', '')
  x_NE = ridge.prepare(emb_NE, embedding)
  for index, (i, j) in enumerate(result.pairs):
    n, sign, weight = _rows(reward_NKM[train_N], (i, j), label)
    n, used = n.astype(int), sign != 0
    sklearn = linear_model.LogisticRegression(C=2.0, tol=1e-12, max_iter=5000)
    sklearn.fit(x_NE[:70][n[used]], sign[used], weight[used])
    np.testing.assert_allclose(
      fitted.theta_EI[:, index], sklearn.coef_[0], atol=1e-5
    )
    np.testing.assert_allclose(
      fitted.bias_I[index], sklearn.intercept_[0], atol=1e-5
    )
    np.testing.assert_allclose(
      fitted.tied_share_I[index], weight[~used].sum() / weight.sum()
    )
    n, sign, weight = _rows(reward_NKM[70:], (i, j), label)
    n, used = n.astype(int), sign != 0
    judge = lambda score_N, n=n, sign=sign, weight=weight, used=used: (
      metrics.roc_auc_score(
        sign[used], score_N[n[used]], sample_weight=weight[used]
      )
    )
    margin_N = prediction_NM[70:, i] - prediction_NM[70:, j]
    share_N = 1 / (1 + np.exp(-margin_N))
    np.testing.assert_allclose(result.erp.value_I[index], judge(share_N))
    np.testing.assert_allclose(
      result.logistic.value_I[index],
      judge(sklearn.decision_function(x_NE[70:])),
      atol=2e-3,  # A pair of scores within 1e-5 may change order.
    )
    np.testing.assert_allclose(result.num_untied_I[index], weight[used].sum())
    np.testing.assert_allclose(
      result.tied_share_I[index], weight[~used].sum() / weight.sum()
    )


def test_a_rank_statistic_of_counts_is_that_of_single_rows():
  rng = np.random.default_rng(1)
  for _ in range(20):
    positive_N = rng.random(40) < 0.3
    score_N = rng.integers(0, 5, 40).astype(float)
    expected = scores.auroc(positive_N, score_N)
    found = pairwise.weighted_auroc(
      1.0 * positive_N, 1.0 * ~positive_N, score_N
    )
    assert found == pytest.approx(expected, abs=1e-14)
  assert np.isnan(
    pairwise.weighted_auroc(np.ones(3), np.zeros(3), np.arange(3))
  )


def test_cross_validation_picks_each_pairs_c_by_held_out_log_loss():
  emb_NE, reward_NKM = _data(num=90, size=2)
  reward_NKM[:, :, 1] = np.random.default_rng(7).standard_normal((90, 2))
  reward_NKM[:, :, 2] = reward_NKM[:, :, 0] - 2 * emb_NE[:, :1]
  cfg = pairwise.PairwiseConfig(
    penalty='cross_validated', cs=(0.01, 1.0, 30.0), folds=3, seed=4
  )
  fitted = pairwise.fit(emb_NE, reward_NKM, cfg)
  fold_N = np.random.default_rng(4).permutation(90) % 3
  x_NE = ridge.prepare(emb_NE, 'unit')
  chosen = []
  for pair in pairwise.arm_pairs(3):
    n, sign, _ = _rows(reward_NKM, pair, 'matched')
    n, sign = n[sign != 0].astype(int), sign[sign != 0]
    losses = []
    for c in cfg.cs:
      model = linear_model.LogisticRegression(C=c, tol=1e-10, max_iter=5000)
      loss = 0
      for fold in range(3):
        out = fold_N[n] == fold
        model.fit(x_NE[n[~out]], sign[~out])
        p = model.predict_proba(x_NE[n[out]])
        loss += metrics.log_loss(sign[out], p, normalize=False)
      losses.append(loss)
    chosen.append(cfg.cs[int(np.argmin(losses))])
  assert fitted.c_I.tolist() == chosen
  assert len(set(chosen)) > 1  # The pairs are not alike.
  fixed = pairwise.fit(
    *(emb_NE, reward_NKM),
    dataclasses.replace(cfg, penalty='fixed', c=chosen[0]),
  )
  np.testing.assert_allclose(fitted.theta_EI[:, 0], fixed.theta_EI[:, 0])


@pytest.mark.parametrize('penalty', ['fixed', 'cross_validated'])
def test_labels_fitted_together_are_as_fitted_alone(penalty):
  emb_NE, reward_NKM = _data(num=60)
  other_NKM = reward_NKM[:, :, :2][:, ::-1]
  cfg = pairwise.PairwiseConfig(penalty=penalty, cs=(0.1, 1.0))
  many = [(label, reward_NKM) for label in _LABELS] + [('soft', other_NKM)]
  together = pairwise.fit_wins(
    emb_NE,
    [(label, pairwise.count_wins(r_NKM, label)) for label, r_NKM in many],
    cfg,
  )
  for found, (label, r_NKM) in zip(together, many, strict=True):
    alone = pairwise.fit(
      *(emb_NE, r_NKM), dataclasses.replace(cfg, label=label)
    )
    np.testing.assert_allclose(found.theta_EI, alone.theta_EI, atol=1e-10)
    np.testing.assert_allclose(found.bias_I, alone.bias_I, atol=1e-10)
    np.testing.assert_array_equal(found.c_I, alone.c_I)
    np.testing.assert_allclose(found.tied_share_I, alone.tied_share_I)
    assert (found.reasons, found.label) == (alone.reasons, label)


def test_a_fold_without_both_classes_is_left_out():
  """Arm 1 wins once: the fold that holds that prompt cannot be predicted."""
  emb_NE, _ = _data(num=30)
  reward_NKM = np.tile([[[1.0, 0.0]]], (30, 1, 1))
  reward_NKM[3, 0] = [0.0, 1.0]
  cfg = pairwise.PairwiseConfig(penalty='cross_validated', folds=3)
  fitted = pairwise.fit(emb_NE, reward_NKM, cfg)
  assert fitted.reasons == ('',) and np.isfinite(fitted.theta_EI).all()
  assert fitted.c_I[0] in cfg.cs


def test_without_a_penalty_weights_are_the_likelihoods_or_undefined():
  emb_NE, reward_NKM = _data()
  reward_NKM[:, :, 2] = reward_NKM[:, :, 0] - np.sign(emb_NE[:, :1])
  cfg = pairwise.PairwiseConfig(penalty='none', embedding='raw')
  fitted = pairwise.fit(emb_NE, reward_NKM, cfg)
  assert fitted.c_I.tolist() == [np.inf] * 3
  assert fitted.reasons[0] == '' and 'separated' in fitted.reasons[1]
  n, sign, _ = _rows(reward_NKM, (0, 1), 'matched')
  sklearn = linear_model.LogisticRegression(C=np.inf, tol=1e-12, max_iter=5000)
  sklearn.fit(emb_NE[n[sign != 0].astype(int)], sign[sign != 0])
  np.testing.assert_allclose(fitted.theta_EI[:, 0], sklearn.coef_[0], atol=1e-5)
  assert np.isnan(fitted.theta_EI[:, 1]).all() and np.isnan(fitted.bias_I[1])
  result = pairwise.compare(fitted, emb_NE, reward_NKM, emb_NE[:, :3])
  assert np.isnan(result.logistic.value_I[1]) and result.erp.value_I[1] > 0
  assert result.logistic.reasons[1] == fitted.reasons[1]
  assert not any(result.erp.reasons)


def test_a_pair_of_one_class_has_no_auroc_and_the_reason():
  emb_NE, _ = _data(num=40)
  rng = np.random.default_rng(3)
  reward_NM = rng.standard_normal((40, 5))
  reward_NM[:, 1] = reward_NM[:, 0]  # Always equal.
  reward_NM[:, 2] = reward_NM[:, 0] + 1  # Always better.
  reward_NM[:, 4] = np.nan  # Never scored.
  cfg = pairwise.PairwiseConfig()
  fitted = pairwise.fit(emb_NE, reward_NM[:, None], cfg)
  reason = dict(zip(pairwise.arm_pairs(5), fitted.reasons, strict=True))
  assert reason[0, 1] == 'there is no untied training comparison'
  assert reason[0, 2] == 'the first arm wins no training comparison'
  assert reason[0, 3] == ''
  assert reason[0, 4] == 'there is no untied training comparison'
  tied = dict(zip(pairwise.arm_pairs(5), fitted.tied_share_I, strict=True))
  assert (tied[0, 1], tied[0, 2]) == (1, 0) and np.isnan(tied[0, 4])
  # On test arm 3 always wins, where both classes trained.
  test_NM = reward_NM + np.array([0, 0, 0, 99.0, 0])
  result = pairwise.compare(fitted, emb_NE, test_NM[:, None], emb_NE)
  index = result.pairs.index((0, 3))
  for auroc in (result.erp, result.logistic):
    assert auroc.reasons[index] == 'the first arm wins no test comparison'
    assert np.isnan(auroc.value_I).all() and all(auroc.reasons)
  assert result.logistic.reasons[0] == 'there is no untied training comparison'


def test_one_arm_has_no_pairs():
  emb_NE, reward_NKM = _data()
  one_NKM = reward_NKM[:, :, :1]
  fitted = pairwise.fit(emb_NE, one_NKM, pairwise.PairwiseConfig())
  result = pairwise.compare(fitted, emb_NE, one_NKM, emb_NE[:, :1])
  assert result.pairs == [] and result.erp.value_I.shape == (0,)


@pytest.mark.parametrize(
  'setting, expected',
  [
    ({'label': 'modes'}, "'modes'; allowed: matched, soft, means"),
    ({'penalty': 'l1'}, "'l1'; allowed: fixed, cross_validated, none"),
    ({'embedding': 'l2'}, "'l2'; allowed: unit, raw"),
    ({'c': 0.0}, 'c must be > 0, got 0.0'),
    ({'cs': ()}, 'at least one'),
    ({'cs': (1.0, 0.1)}, 'must ascend'),
    ({'folds': 2}, 'folds must be >= 3, got 2'),
    ({'seed': -1}, 'seed must be >= 0, got -1'),
    ({'splits': -1}, 'splits must be >= 0, got -1'),
    ({'margin': 0.5}, 'margin must be at least 0 and below 0.5, got 0.5'),
  ],
)
def test_settings_out_of_range_are_named(setting, expected):
  with pytest.raises(errors.UserError, match=expected):
    pairwise.PairwiseConfig(**setting)


def test_bad_input_is_refused_with_the_reason():
  emb_NE, reward_NKM = _data(num=4)
  cfg = pairwise.PairwiseConfig(penalty='cross_validated')
  with pytest.raises(errors.UserError, match='4 training prompts are fewer'):
    pairwise.fit(emb_NE, reward_NKM, cfg)
  fitted = pairwise.fit(emb_NE, reward_NKM, pairwise.PairwiseConfig())
  with pytest.raises(errors.UserError, match='3 wide, .* fitted on 5'):
    fitted.predict(emb_NE[:, :3])
