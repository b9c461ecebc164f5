"""Costs of arms from their responses, against sums by hand."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import endpoint, errors, store
from erp_jax.data import arms
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


def _read(run, b=None, **kwargs):
  """Costs; `b` are fields of arm b."""
  cfg = costs.CostConfig(**kwargs)
  pool = {'a': arms.Arm(model='m'), 'b': arms.Arm(model='m', **(b or {}))}
  return costs.read(run, pool, ('q', 'p'), cfg)


def test_parameters_alone_are_the_default(run):
  np.testing.assert_allclose(_read(run), [[0.5, 2.0], [0.5, 2.0]])


def test_a_nominal_size_replaces_the_exact_count(run):
  np.testing.assert_allclose(_read(run, {'nominal_b': 7.0})[0], [0.5, 7.0])


def test_the_exact_count_can_be_asked_for(run):
  cost_NM = _read(run, {'nominal_b': 7.0}, kind=costs.EXACT)
  np.testing.assert_allclose(cost_NM, [[0.5, 2.0], [0.5, 2.0]])


def test_experts_can_cost_what_a_token_uses(run):
  pool = {'nominal_b': 235.0, 'active_b': 22.0}
  np.testing.assert_allclose(_read(run, pool, kind=costs.ACTIVE)[0], [0.5, 22])


def test_prices_times_tokens(run):
  prices = {'usd_per_mtok_prompt': 3.0, 'usd_per_mtok_response': 15.0}
  pool = {'b': arms.Arm(model='m', **prices)}
  cost_NM = costs.read(run, pool, ('q', 'p'), costs.CostConfig(kind=costs.USD))
  # Means over two answers of tokens read and written, by hand.
  expected = [(50 * 3 + 4 * 15) / 1e6, (40 * 3 + 7 * 15) / 1e6]
  np.testing.assert_allclose(cost_NM[:, 0], expected)


def test_dollars_need_prices(run):
  with pytest.raises(errors.UserError, match="arm 'a' has no prices"):
    _read(run, kind=costs.USD)


_SERVED = {'endpoint': endpoint.Endpoint(url='http://h/v1')}


@pytest.fixture
def served(tmp_path):
  """A run with one arm of a server, which counts no parameters."""

  def write(rows):
    schema = pa.schema(
      [
        ('prompt_id', pa.string()),
        ('prompt_tokens', pa.int32()),
        ('num_tokens', pa.int32()),
      ]
    )
    artifact = store.Artifact(epath.Path(tmp_path) / 'responses/a', {}, 1)
    with artifact.writer({'versions': {}}) as writer:
      writer.write_shard(0, pa.Table.from_pylist(rows, schema=schema))
      writer.finish({'served': {}})
    return epath.Path(tmp_path)

  return write


_ROW = {'prompt_id': 'p', 'prompt_tokens': 10, 'num_tokens': 3}


@pytest.mark.parametrize(
  'kind, fields, cost',
  [
    (costs.PARAMS, {'nominal_b': 70.0}, 70),
    (costs.ACTIVE, {'active_b': 22.0}, 22),
    (costs.ACTIVE, {'nominal_b': 70.0}, 70),
    (costs.PARAMS_TOKENS, {'nominal_b': 70.0}, 70 * (0.2 * 10 + 3)),
    (costs.USD, {'usd_per_mtok_response': 2.0}, 6e-6),
  ],
)
def test_costs_of_what_is_served(kind, fields, cost, served):
  pool = {'a': arms.Arm(model='m', **fields, **_SERVED)}
  cfg = costs.CostConfig(kind=kind)
  np.testing.assert_allclose(costs.read(served([_ROW]), pool, 'p', cfg), cost)


@pytest.mark.parametrize(
  'kind, fields',
  [
    (costs.PARAMS, {}),
    (costs.PARAMS, {'active_b': 22.0}),
    (costs.EXACT, {'nominal_b': 70.0}),
    (costs.ACTIVE, {}),
    (costs.PARAMS_TOKENS, {}),
  ],
)
def test_nobody_counts_what_is_served(kind, fields):
  pool = {'a': arms.Arm(model='m', **fields, **_SERVED)}
  with pytest.raises(errors.UserError, match=r'set it to .* arms\.a\.nominal'):
    costs.check_arms(pool, costs.CostConfig(kind=kind))


@pytest.mark.parametrize('column', ['prompt_tokens', 'num_tokens'])
def test_costs_by_tokens_need_them(column, served):
  pool = {'a': arms.Arm(model='m', nominal_b=70.0, **_SERVED)}
  run = served([_ROW, _ROW | {column: None}])
  with pytest.raises(errors.UserError, match="arm 'a' does not say how many"):
    costs.read(run, pool, 'p', costs.CostConfig(kind=costs.PARAMS_TOKENS))
  assert costs.read(run, pool, 'p', costs.CostConfig()) == 70


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
