"""The simulation's binary: its numbers, their marks, and its mistakes."""

import json

import numpy as np
import pytest
import sklearn.metrics

from configs import simulate as config_file
from erp_jax.core import config, errors
from erp_jax.data import simulate
from erp_jax.probe import ridge
from erp_jax.report import words
from erp_jax.route import allocation, evaluate, learning, simulation
from launch import pipeline_config

_FLAGS = {
  'simulation.width': 24,
  'simulation.prompts_per_category': 15,
  'simulation.k': 4,
  'simulation.prompt_seed': 5,
  'test_prompts_per_category': 30,
  'learning.num_prompts': '(20,40)',
  'learning.num_samples': '(2,4)',
  'learning.repeats': 3,
}
_BETA_1 = ridge.RidgeConfig()


def _run(launch, workdir, **changes):
  return launch(
    'simulate',
    '--config=configs/simulate.py:grm',
    f'--workdir={workdir}',
    *(f'--config.{name}={value}' for name, value in (_FLAGS | changes).items()),
  )


@pytest.fixture(scope='module')
def done(launch, tmp_path_factory):
  """The folder of one run, and what it printed."""
  folder = tmp_path_factory.mktemp('simulate')
  result = _run(launch, folder)
  assert result.returncode == 0, result.stderr
  return folder, result.stdout


def _config():
  values = config_file.get_config('grm')
  for name, value in _FLAGS.items():
    if isinstance(value, str):
      value = tuple(map(int, value.strip('()').split(',')))
    values.update_from_flattened_dict({name: value})
  return config.build(pipeline_config.Simulate, values.to_dict())


def test_the_numbers_are_those_of_the_curves(done):
  """A fit by hand on one training set, and the means over all of them."""
  folder, _ = done
  metrics = json.loads((folder / 'metrics.json').read_text())
  assert metrics['simulated'] is True
  assert metrics['counts'] == {'test_prompts': 120, 'training_sets': 3}
  assert list(metrics['rewards']) == ['grm']
  found = metrics['rewards']['grm']
  cfg = _config()
  curve = simulation.draw_curves(cfg)['grm']
  assert [(c['prompts'], c['samples']) for c in found['cells']] == [
    *((20, 2), (20, 4), (40, 2), (40, 4))
  ]
  cell = found['cells'][1]
  for name, values_J in (
    ('r2', curve.r2_JNK[:, 0, 1]),
    ('contrast_r2', curve.contrast_r2_JNK[:, 0, 1]),
  ):
    np.testing.assert_allclose(cell[name]['mean'], values_J.mean())
    se = values_J.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(cell[name]['se'], se)
  for i, budget in enumerate(learning.BUDGETS):
    means = []
    for policy in learning.POLICIES:
      regret_J = curve.regret_JNKP[policy][:, 0, 1, i]
      means.append(cell['regret'][policy][budget]['mean'])
      if np.isnan(regret_J).any():  # Below the cheapest arm's cost.
        assert means[-1] is None and budget not in ('1.0', 'unlimited')
      else:
        np.testing.assert_allclose(means[-1], regret_J.mean())
    if None not in means:
      saved = cell['saved'][budget]['mean']
      np.testing.assert_allclose(saved, means[1] - means[0])
  # Against the truth of the test prompts that the config names.
  test = simulate.draw(
    _replace(cfg.simulation, prompts_per_category=30), rewards=('grm',)
  )
  truth_NM = test.er_NM('grm')
  regret_M = (truth_NM.max(axis=1, keepdims=True) - truth_NM).mean(axis=0)
  mixed = found['cells'][-1]['regret']['static_mixture']['unlimited']['mean']
  assert regret_M.min() - 1e-9 <= mixed <= regret_M.max()
  np.testing.assert_allclose(found['oracle_regret']['unlimited'], 0, atol=1e-12)
  best = found['best']['80']
  assert set(best) == set(allocation.CRITERIA)
  expected = allocation.best_allocation(curve, 80)
  assert best['regret']['prompts'] == expected.num_prompts
  np.testing.assert_allclose(best['regret']['mean'], expected.value)


def test_every_repeat_is_a_training_set_of_its_own():
  """Not an order of one: that would not matter to a cell that takes all."""
  values = config.as_plain(_config())
  values['learning']['num_prompts'] = (60,)
  cfg = config.build(pipeline_config.Simulate, values)
  curve = simulation.draw_curves(cfg)['grm']
  assert np.diff(np.sort(curve.r2_JNK[:, 0, 1])).min() > 1e-4
  train = simulate.draw(_replace(cfg.simulation, prompt_seed=7))
  test = simulate.draw(_replace(cfg.simulation, prompts_per_category=30))
  probe = ridge.fit(train.emb_NE, train.reward_NKM('grm').mean(1), _BETA_1)
  guess_NM = ridge.predict(probe, test.emb_NE)
  r2 = sklearn.metrics.r2_score(test.er_NM('grm'), guess_NM)
  # The second training set is that of the seed two after the test prompts'.
  np.testing.assert_allclose(curve.r2_JNK[1, 0, 1], r2)


def _replace(value, **changes):
  return type(value)(**(vars(value) | changes))


def test_everything_printed_says_simulated(done):
  _, printed = done
  titles = [line for line in printed.splitlines() if line.startswith('Sim')]
  assert [title.split()[:2] for title in titles] == [['Simulated', 'grm:']] * 3
  assert max(map(len, printed.splitlines())) <= 80
  assert '…' not in printed.replace('… of contrasts', '')  # Nothing is cut.
  for budget in evaluate.BUDGETS:
    assert f'{100 * float(budget):.0f} %' in printed


def test_a_finished_run_is_shown_again(done, launch):
  folder, printed = done
  before = (folder / 'metrics.json').stat().st_mtime_ns
  again = _run(launch, folder)
  assert again.returncode == 0 and again.stdout == printed
  assert (folder / 'metrics.json').stat().st_mtime_ns == before
  other = _run(launch, folder, **{'simulation.noise_spread': 0.1})
  assert other.returncode != 0 and 'noise_spread' in other.stderr


def test_the_same_seed_gives_the_same_bytes(done, launch, tmp_path):
  folder, _ = done
  for name, changes in (('same', {}), ('other', {'simulation.seed': 9})):
    assert _run(launch, tmp_path / name, **changes).returncode == 0
  expected = (folder / 'metrics.json').read_bytes()
  assert (tmp_path / 'same' / 'metrics.json').read_bytes() == expected
  assert (tmp_path / 'other' / 'metrics.json').read_bytes() != expected


@pytest.mark.parametrize(
  'flags, expected',
  [
    ({'learning.num_samples': '(2,8)'}, 'scored 4 samples'),
    ({'learning.num_prompts': '(20,61)'}, 'there are 60'),
    ({'rewards': "('grn',)"}, "did you mean 'grm'"),
    ({'test_prompts_per_category': 0}, 'test_prompts_per_category'),
    ({'simulation.rewards.grm.noise': -1.0}, 'noise must be >= 0'),
  ],
)
def test_mistakes_are_one_line(flags, expected, launch, tmp_path):
  done = _run(launch, tmp_path, **flags)
  assert done.returncode != 0
  assert 'Traceback' not in done.stderr
  assert expected in done.stderr.strip().splitlines()[-1]


def test_the_config_refuses_another_reward_model():
  assert config_file.get_config().rewards == ()
  with pytest.raises(errors.UserError, match='oasst'):
    config_file.get_config('oast')


@pytest.mark.parametrize(
  'mean, se, expected',
  [
    (0.41234, 0.0131, '0.412(13)'),
    (-0.0621, 0.12, '−0.062(120)'),
    (0.5, None, '0.500'),
    (None, None, '–'),
  ],
)
def test_uncertain_numbers(mean, se, expected):
  assert words.uncertain(mean, se) == expected
