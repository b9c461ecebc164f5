"""The report reads what the route stage really writes."""

import numpy as np
import pytest

from erp_jax.core import errors, resample
from erp_jax.data import outcomes
from erp_jax.report import evaluation, figures, frontier, tables, verdict
from erp_jax.route import results

MODELS = ('small/one', 'big/two', 'big/three')
COSTS = np.array([1.0, 4.0, 9.0])
NUM_PROMPTS = 60


@pytest.fixture(scope='module')
def table():
  rng = np.random.default_rng(0)
  reward_NM = rng.normal(size=(NUM_PROMPTS, 3)) + [0.0, 0.3, 0.6]
  reward_NM[7, 1] = np.nan
  return outcomes.Outcomes(
    prompt_ids=tuple(f'p{n:02d}' for n in range(NUM_PROMPTS)),
    prompts=('?',) * NUM_PROMPTS,
    category_N=np.array(['a', 'b'])[np.arange(NUM_PROMPTS) % 2],
    models=MODELS,
    reward_NM=reward_NM,
    cost_NM=np.tile(COSTS, (NUM_PROMPTS, 1)),
    cost_source='given',
    reward_kind='made up',
    counts={'prompts': NUM_PROMPTS},
  )


@pytest.fixture(scope='module')
def split(table):
  rng = np.random.default_rng(1)
  prediction_NM = np.nan_to_num(table.reward_NM) / 2
  prediction_NM += rng.normal(size=prediction_NM.shape) / 3
  train_N = np.arange(NUM_PROMPTS) // 2 % 2 == 0
  return results.SplitResult(5, train_N, prediction_NM)


@pytest.fixture(scope='module')
def found(table, split, tmp_path_factory, write_evaluation):
  folder = tmp_path_factory.mktemp('replay')
  cfg = resample.BootstrapConfig(num_draws=100)
  write_evaluation(folder, results.files(table, 'coins', [split], cfg))
  return evaluation.load(folder, 'Records')


def test_predictions_and_costs_are_read(found, table, split):
  assert list(found.names.values()) == ['one', 'two', 'three']
  assert found.costs == dict(zip(MODELS, COSTS, strict=True))
  assert (found.cost_unit, found.seeds) == ('coins', [5])
  assert found.num_prompts('test') == (~split.train_N).sum() == 30
  of_two = found.predictions['arm'] == 'big/two'
  np.testing.assert_array_equal(
    found.predictions['reward'][of_two], table.reward_NM[:, 1]
  )


def test_numbers_are_those_of_the_split(found, table, split):
  test_N = ~split.train_N
  for m, model in enumerate(MODELS):
    known_N = test_N & np.isfinite(table.reward_NM[:, m])
    reward_N = table.reward_NM[known_N, m]
    error_N = reward_N - split.prediction_NM[known_N, m]
    r2 = 1 - (error_N**2).sum() / ((reward_N - reward_N.mean()) ** 2).sum()
    assert found.mean('r2', model, 'aggregate') == pytest.approx(r2)
    mean, lo, hi = found.interval('r2', model, 'aggregate')
    assert mean == pytest.approx(r2)
    assert lo < mean < hi
  complete_N = test_N & np.isfinite(table.reward_NM).all(axis=1)
  reward_NM = table.reward_NM[complete_N]
  best_N = reward_NM.max(axis=1)
  for m, model in enumerate(MODELS):
    cost, regret = found.point(f'same:{model}')
    assert cost == COSTS[m]
    assert regret == pytest.approx((best_N - reward_NM[:, m]).mean())
    shares = [found.win_share(c, model, 'true') for c in 'ab']
    category_N = table.category_N[complete_N]
    wins_N = reward_NM[:, m] == best_N
    expected = [wins_N[category_N == c].mean() for c in 'ab']
    np.testing.assert_allclose(shares, expected)
  assert found.point('random') == (
    pytest.approx(COSTS.mean()),
    pytest.approx((best_N - reward_NM.mean(axis=1)).mean()),
  )


def test_everything_can_be_shown(found):
  for make in (
    *(tables.budgets, tables.paired, tables.r2, tables.auroc, tables.wins),
  ):
    table = make(found)
    assert table.rows
    assert all(len(row) == len(table.head) for row in table.rows)
  drawn = frontier.draw(frontier.from_evaluation(found))
  for figure in (drawn, figures.predicted(found), figures.wins(found)):
    assert figures.png(figure).startswith(b'\x89PNG')
  assert verdict.routing(found).endswith('.')
  assert verdict.at_budget(found, '0.25').mean == pytest.approx(
    verdict.at_budget(found, '0.25').value, nan_ok=True
  )


@pytest.mark.parametrize(
  'name',
  ['metrics.json', 'intervals.json', 'predictions.parquet', 'about.json'],
)
def test_altered_results_are_not_shown(make_inputs, name):
  folder = make_inputs().write() / 'replay'
  data = bytearray((folder / name).read_bytes())
  data[len(data) // 2] ^= 1
  (folder / name).write_bytes(data)
  with pytest.raises(errors.UserError, match=f'replay/{name}.* corrupt'):
    evaluation.load(folder, 'Records')


def test_unfinished_results_are_not_shown(make_inputs):
  folder = make_inputs().write() / 'replay'
  (folder / 'manifest.json').unlink()
  with pytest.raises(errors.UserError, match='replay is not there or not comp'):
    evaluation.load(folder, 'Records')
