"""The whole method at a size for two cores: SmolLM2-135M under three prompts.

make quickstart

At most 60 000 sampled tokens and 100 000 scored positions: BUILD.md has the
arithmetic.
"""

from erp_jax.core import config
from erp_jax.data import arms, prompts
from erp_jax.route import costs, replay
from erp_jax.route import stage as route
from erp_jax.sample import engine
from erp_jax.sample import stage as sample
from erp_jax.score import rewards
from launch import pipeline_config

_SMOLLM2 = 'package:smollm2-135m-instruct'


def get_config(arg=''):
  del arg
  return config.as_config_dict(
    pipeline_config.Pipeline(
      prompts=prompts.PromptConfig(path='quickstart', limit_per_category=30),
      arms={
        'terse': arms.Arm(
          model=_SMOLLM2,
          system_prompt='Answer with the shortest correct answer.',
        ),
        'steps': arms.Arm(
          model=_SMOLLM2,
          system_prompt='You are a careful teacher. Think step by step, follow '
          'every instruction in the question exactly, check the result, and '
          'then give the answer in one line.',
        ),
      },
      sample=sample.SampleConfig(
        k=4,
        max_new_tokens=24,
        dtype='float32',  # The fast one on CPU.
        shard_prompts=120,
        engine=engine.EngineConfig(
          slots=128, chunk_steps=4, prompt_buckets=(48, 64, 96, 128, 256)
        ),
      ),
      rewards={
        'verify': rewards.RewardConfig(kind='verify'),
        'relevance': rewards.RewardConfig(
          kind='relevance', model=_SMOLLM2, dtype='float32', max_responses=1
        ),
        'judge': rewards.RewardConfig(
          kind='judge', model=_SMOLLM2, dtype='float32', max_responses=1
        ),
      },
      route=route.RouteConfig(cost=costs.CostConfig(kind=costs.PARAMS_TOKENS)),
      replays={
        'paretobandit': replay.RecordedOutcomes(
          outcomes='package:paretobandit',
          title='three hosted models on 3609 benchmark prompts',
          models=(
            'meta-llama/llama-3.1-8b-instruct',
            'mistralai/mistral-large-2512',
            'google/gemini-2.5-pro',
          ),
        )
      },
    )
  )
