"""Coverage of 95 % intervals on test sets of 250 and 2000 simulated prompts.

python -m launch.coverage --config=configs/coverage.py --workdir=DIR

The population is shaped like the paper's under one reward model, with narrow
embeddings; --config=configs/coverage.py:grm takes another reward model.
"""

import dataclasses

from erp_jax.core import config
from launch import pipeline_config


def get_config(arg=''):
  base = pipeline_config.Coverage()
  changes = {'reward': arg} if arg else {}
  return config.as_config_dict(dataclasses.replace(base, **changes))
