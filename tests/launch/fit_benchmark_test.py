import numpy as np
import pytest

from erp_jax.core import errors
from launch.benchmarks import fit, fit_ours, fit_peers

_WORK = fit.FitWork(width=32, num_targets=3, shard_rows=100)


@pytest.mark.parametrize('num', [20, 300])
def test_ours_and_the_peer_choose_the_same_penalties(num):
  part = fit.Part(_WORK, num)
  ours = fit_ours.prepare_path(part)().detail
  theirs = fit_peers.ridge_cv(part)().detail
  assert ours['penalties'] == theirs['penalties']
  np.testing.assert_allclose(
    ours['leave_one_out'], theirs['leave_one_out'], rtol=1e-6
  )
  assert len(ours['penalties']) == 3


def test_ours_and_the_peer_fit_the_same_weights():
  part = fit.Part(_WORK, 300)
  ours = fit_ours.prepare_one(part)()
  for prepare, rtol in (
    (fit_peers.ridge_float64, 1e-5),  # Ours scales float32 rows again.
    (fit_peers.ridge_float32, 1e-3),
  ):
    theirs = prepare(part)()
    assert ours.detail['theta'] == pytest.approx(theirs.detail['theta'], rtol)


def test_shards_are_all_fitted():
  done = fit_ours.prepare_stream(fit.Part(_WORK, 3))()
  assert done.count == 300
  assert done.flops == 2 * 300 * 35**2
  parts = [fit_ours.problem(_WORK, 100, i)[0] for i in range(3)]
  emb_NE = np.concatenate(parts).astype(np.float64)
  emb_NE -= emb_NE.mean(axis=0)
  condition = np.linalg.cond(emb_NE.T @ emb_NE + np.eye(32))
  assert done.detail['condition'] == pytest.approx(condition, rel=1e-4)


def test_each_size_is_a_contest():
  names = [contest.case for contest in fit.contests(fit.FitWork())]
  assert names == [
    'fit one 2000',
    'fit one 100000',
    'fit path 2000',
    'fit path 10000',
    'fit stream 8',
    'fit stream 32',
  ]
  with pytest.raises(errors.UserError, match='fit.one must be >= 1'):
    fit.FitWork(one=(0,))
