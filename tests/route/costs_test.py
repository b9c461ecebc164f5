"""Costs of arms from their responses, against sums by hand."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.route import costs

_TOKENS = {
  'a': {'p': [(10, 3), (10, 5)], 'q': [(20, 1), (20, 1)]},
  'b': {'p': [(40, 7), (40, 7)], 'q': [(50, 0), (50, 8)]},
}


@pytest.fixture
def run(tmp_path):
  """A run with two arms of 0.5 and 2 billion parameters, K = 2."""
  for arm, by_prompt in _TOKENS.items():
    rows = [
      {'prompt_id': name, 'prompt_tokens': p, 'num_tokens': n}
      for name, pairs in by_prompt.items()
      for p, n in pairs
    ]
    folder = epath.Path(tmp_path) / 'responses' / arm
    artifact = store.Artifact(folder, {'arm': arm}, 1)
    with artifact.writer({'versions': {}}) as writer:
      writer.write_shard(0, pa.Table.from_pylist(rows))
      writer.finish({'num_parameters': {'a': 5e8, 'b': 2e9}[arm]})
  return epath.Path(tmp_path)


def _read(run, nominal_b=(0.0, 0.0), **kwargs):
  cfg = costs.CostConfig(**kwargs)
  return costs.read(run, ('a', 'b'), nominal_b, ('q', 'p'), cfg)


def test_parameters_alone_are_the_default(run):
  np.testing.assert_allclose(_read(run), [[0.5, 2.0], [0.5, 2.0]])


def test_a_nominal_size_replaces_the_exact_count(run):
  np.testing.assert_allclose(_read(run, (0.0, 7.0)), [[0.5, 7.0], [0.5, 7.0]])


@pytest.mark.parametrize('weight', [0.0, 0.25, 1.0])
def test_parameters_times_tokens(run, weight):
  got_NM = _read(run, kind=costs.PARAMS_TOKENS, prompt_token_weight=weight)
  expected_NM = [
    [
      size * np.mean([weight * p + n for p, n in _TOKENS[arm][prompt]])
      for arm, size in (('a', 0.5), ('b', 2.0))
    ]
    for prompt in ('q', 'p')
  ]
  np.testing.assert_allclose(got_NM, expected_NM)


@pytest.mark.parametrize(
  'fields', [{'kind': 'dollars'}, {'prompt_token_weight': -1.0}]
)
def test_config_mistakes(fields):
  with pytest.raises(errors.UserError, match=r'route\.cost\.'):
    costs.CostConfig(**fields)
