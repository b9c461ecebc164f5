"""Policies are fitted with the settings of the config."""

import numpy as np

from erp_jax.probe import contrast, ridge
from erp_jax.route import guarded, routing

_TRAIN_N = np.arange(120) < 70


def test_the_guarded_policy_has_its_own_settings(make_records):
  records = make_records(rewards=('first',), noise=1.0)
  heavy = guarded.GuardedConfig(contrast=contrast.ContrastConfig(betas=(1e4,)))
  fit = lambda cfg: routing.predict(
    records, _TRAIN_N, 'erp_guarded', ridge.RidgeConfig(), cfg
  )['first']
  plain_NM = fit(routing.RoutingConfig())
  heavy_NM = fit(routing.RoutingConfig(guarded=heavy))
  assert np.ptp(heavy_NM, axis=0).max() < 0.1 < np.ptp(plain_NM, axis=0).max()
  expected = guarded.fit(
    records.emb_NE[_TRAIN_N],
    records.mean_NM('first')[_TRAIN_N],
    np.array([1.0, 9.0, 4.0]),
    heavy,
    records.category_N[_TRAIN_N],
  )
  np.testing.assert_allclose(heavy_NM, expected.predict(records.emb_NE))
