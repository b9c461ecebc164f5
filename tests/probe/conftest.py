"""Small inputs of probes: rewards drawn about a known expectation."""

import numpy as np
import pytest

from erp_jax.probe import records as records_lib


@pytest.fixture(scope='session')
def make_records():
  """Makes small `Records` with known ER; its arguments replace fields.

  120 prompts, 4 samples, 3 arms and categories, 2 reward models, all flags.
  """

  def make(**changes) -> records_lib.Records:
    rng = np.random.default_rng(0)
    category_N = np.array(['chat', 'code', 'math', 'code'] * 30)
    emb_NE = rng.normal(size=(120, 6))
    emb_NE[:, 0] += category_N == 'math'
    emb_NE *= 2 / np.linalg.norm(emb_NE, axis=1, keepdims=True)
    er_NM, reward_NKM = {}, {}
    for reward in ('judge', 'grm'):
      common_N = emb_NE @ rng.normal(size=6)
      own_NM = 0.4 * emb_NE @ rng.normal(size=(6, 3)) + [0.0, 0.5, 0.8]
      er_NM[reward] = common_N[:, None] + own_NM
      noise_NKM = 0.5 * rng.normal(size=(120, 4, 3))
      reward_NKM[reward] = er_NM[reward][:, None] + noise_NKM
    fields = {
      'name': 'made',
      'title': 'Made up',
      'origin': records_lib.SIMULATED,
      'prompt_ids': tuple(f'p{n:03d}' for n in range(120)),
      'category_N': category_N,
      'arms': ('llama31-8b', 'gemma2-9b', 'other'),
      'emb_NE': emb_NE,
      'reward_NKM': reward_NKM,
      'cost_NM': np.tile([8.0, 9.0, 30.0], (120, 1)),
      'cost_source': 'given',
      'cost_unit': 'billions of parameters',
      'flag_NKM': {
        flag: rng.random((120, 4, 3)) < share
        for flag, share in (('refusal', 0.1), ('empty', 0.02), ('cut', 0.2))
      },
      'er_NM': er_NM,
    }
    return records_lib.Records(**fields | changes)

  return make
