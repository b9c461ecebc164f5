"""Sizes of every stage's work, or of one: configs/growth.py:sample.

python -m launch.growth --config=configs/growth.py --workdir=DIR
"""

from erp_jax.core import config, errors
from launch import growth_config


def get_config(arg=''):
  growth = growth_config.Growth()
  if arg:
    errors.check_choice('configs/growth.py:', arg, growth.stages)
    growth = growth_config.Growth(stages={arg: growth.stages[arg]})
  return config.as_config_dict(growth)
