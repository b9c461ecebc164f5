import pytest

from erp_jax.report import evaluation, verdict
from erp_jax.route import evaluate


def _load(inputs, name='replay'):
  path = inputs.write()
  return evaluation.load(
    path / ('replay' if name == 'replay' else f'routes/{name}'), name
  )


@pytest.mark.parametrize(
  ('value', 'half', 'mean', 'outcome'),
  [
    (-0.03, 0.02, -0.02, 'pays'),
    (0.03, 0.02, 0.02, 'does not pay'),
    (-0.03, 0.04, -0.02, 'can’t tell'),
    (0.03, 0.04, 0.02, 'can’t tell'),
    (-0.03, 0.02, 0.01, 'can’t tell'),  # One lucky split.
    (0.03, 0.02, -0.01, 'can’t tell'),
    (0.0, 0.0, 0.0, 'no difference'),
    (0.0, 0.0, -0.01, 'can’t tell'),
  ],
)
def test_outcome_follows_from_interval_and_splits(
  make_inputs, value, half, mean, outcome
):
  inputs = make_inputs()
  inputs.set_difference('replay', '0.5', value, half, mean)
  found = verdict.at_budget(_load(inputs), '0.5')
  assert found.outcome == outcome
  assert found.mean == pytest.approx(mean)


def test_routing_names_each_outcome_with_its_budgets(make_inputs):
  inputs = make_inputs()
  inputs.make_infeasible('replay', '0.25')
  inputs.set_difference('replay', '0.5', -0.03, 0.02, -0.03)
  inputs.set_difference('replay', '0.75', 0.03, 0.02, 0.03)
  inputs.set_difference('replay', '1.0', -0.03, 0.06, -0.03)
  found = _load(inputs)
  text = verdict.routing(found)
  assert text.startswith('Routing pays at a budget of 50 %; ')
  assert 'routing does not pay at a budget of 75 %' in text
  assert 'can’t tell whether routing pays at a budget of 100 %' in text
  assert ' 25 %' not in text
  assert verdict.at_budget(found, '0.25').outcome == 'infeasible'


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    (-0.03, 'Routing pays at every budget.'),
    (0.03, 'Routing does not pay at any budget'),
    (0.0, 'We can’t tell whether routing pays at any budget.'),
  ],
)
def test_routing_with_one_outcome(make_inputs, value, words):
  inputs = make_inputs()
  for budget in evaluate.BUDGETS:
    inputs.set_difference('replay', budget, value, 0.02, value)
  assert verdict.routing(_load(inputs)).startswith(words)


@pytest.mark.parametrize(
  ('lows', 'words'),
  [
    ((0.01, 0.02, 0.03), 'is above zero for every arm'),
    ((0.01, -0.02, -0.03), 'above zero for 1 of 3 arms'),
    ((-0.01, -0.02, -0.03), 'reaches zero or below for every arm'),
  ],
)
def test_predictability_counts_arms_above_zero(make_inputs, lows, words):
  inputs = make_inputs()
  for low, r2 in zip(
    lows, inputs.intervals['verify']['r2'].values(), strict=True
  ):
    r2['aggregate'] = {'mean': low + 0.05, 'lo': low, 'hi': low + 0.1}
  text = verdict.predictability(_load(inputs, 'verify'))
  assert words in text
  assert f'from {min(lows) + 0.05:.3f} to {max(lows) + 0.05:.3f}' in text
