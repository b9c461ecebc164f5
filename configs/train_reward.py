"""A linear Bradley-Terry reward model on MiniLM's vectors of preference pairs.

python -m launch.train_reward --config=configs/train_reward.py \
  --config.pairs.path=pairs.jsonl --workdir=runs/reward

On a decoder: --config.features.model=package:smollm2-135m-instruct
"""

from erp_jax.core import config
from erp_jax.score import preference, train_stage


def get_config(arg=''):
  del arg
  return config.as_config_dict(
    train_stage.TrainRewardConfig(
      pairs=preference.PairsConfig(path='pairs.jsonl')
    )
  )
