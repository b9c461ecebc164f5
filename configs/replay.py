"""Replay of recorded outcomes: plain ERP (ridge, β = 1) on MiniLM embeddings.

python -m launch.replay --config=configs/replay.py --outcomes=FILE \
  --models=a,b,c --costs=8,70,9 --workdir=DIR
"""

from erp_jax.core import config
from launch import pipeline_config


def get_config(arg=''):
  del arg
  return config.as_config_dict(pipeline_config.Replay())
