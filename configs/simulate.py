"""Simulated rewards shaped like the paper's: five arms, three reward models.

python -m launch.simulate --config=configs/simulate.py --workdir=DIR

--config=configs/simulate.py:oasst takes one of the reward models alone. What
get_sweep() varies are the assumptions that the answer hangs on most.
"""

import dataclasses

from erp_jax.core import config, errors
from launch import pipeline_config
from launch.sweeps import grid


def get_config(arg=''):
  base = pipeline_config.Simulate()
  if arg and arg not in base.simulation.rewards:
    raise errors.UserError(
      f'configs/simulate.py:{arg} is unknown; '
      f'{config.did_you_mean(arg, base.simulation.rewards)}'
    )
  rewards = (arg,) if arg else ()
  return config.as_config_dict(dataclasses.replace(base, rewards=rewards))


def get_sweep():
  """How steep the spectra are, how the fit is: lists of overrides."""
  return grid.product(
    grid.over('simulation.spectrum', (0.5, 1.0, 1.5)),
    grid.over('learning.ridge.selection', ('fixed', 'leave_one_out')),
  )
