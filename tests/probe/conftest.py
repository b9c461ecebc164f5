"""Small inputs of probes."""

import numpy as np
import pytest


@pytest.fixture
def make_flagged(make_records):
  """Makes `Records` with two prompts of one category to one of the others.

  All flags of responses are known.
  """
  rng = np.random.default_rng(0)
  fields = {
    'noise': 0.5,
    'length': 2.0,
    'arms': ('llama31-8b', 'gemma2-9b', 'other'),
    'rewards': ('judge', 'grm'),
    'categories': ('chat', 'code', 'math', 'code'),
    'flag_NKM': {
      flag: rng.random((120, 4, 3)) < share
      for flag, share in (('refusal', 0.1), ('empty', 0.02), ('cut', 0.2))
    },
  }
  return lambda **changes: make_records(**fields | changes)
