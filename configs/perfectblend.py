"""The paper: five arms, K = 32 at T = 1, gte-large, cost = parameters alone.

python -m launch.sample --config=configs/perfectblend.py --workdir=DIR \
  --arms=llama31-8b

Prompts are 1000 per category of the hub's mlabonne/open-perfectblend: what a
user asks first in its column `conversations`, exact duplicates dropped, in the
category that erp_jax/data/published.py gives its column `source`. That table is
ours: the paper names four categories and no sources. One source mixes math,
code and logic and is left out. With `launch.build_dataset`, prompts.path is the
folder that it built. The arms need an accelerator (`python -m
launch.memory` says which), their licences accepted on the hub, and HF_TOKEN.
The reward models read as their authors': the first at most 512 tokens, GRM two
beginnings of text. gte-large reads prompts to its full length, as its authors'
example does.

python -m launch.routing --config=configs/perfectblend.py:simulated \
  --workdir=runs/paper

evaluates simulated rewards of the same shape, marked as such on every page: no
run, no accelerator, no network.
"""

from erp_jax.core import config, errors
from erp_jax.data import arms, published
from erp_jax.embed import embedder
from erp_jax.sample import stage as sample
from erp_jax.score import rewards
from launch import pipeline_config
from launch.sweeps import grid


def get_config(arg=''):
  if arg not in ('', 'simulated'):
    raise errors.UserError(
      f'configs/perfectblend.py:{arg} is unknown: add :simulated or nothing.'
    )
  return config.as_config_dict(
    pipeline_config.Pipeline(
      prompts=published.open_perfectblend(limit_per_category=1000),
      # Nominal billions, as in the names: exact counts make Gemma 1 "7B"
      # dearer than Llama "8B".
      arms={
        'llama31-8b': arms.Arm(
          model='meta-llama/Llama-3.1-8B-Instruct', nominal_b=8.0
        ),
        'llama31-70b': arms.Arm(
          model='meta-llama/Llama-3.1-70B-Instruct', nominal_b=70.0
        ),
        'gemma2-9b': arms.Arm(model='google/gemma-2-9b-it', nominal_b=9.0),
        'gemma2-27b': arms.Arm(model='google/gemma-2-27b-it', nominal_b=27.0),
        'gemma1-7b': arms.Arm(model='google/gemma-7b-it', nominal_b=7.0),
      },
      sample=sample.SampleConfig(k=32, temperature=1.0, max_new_tokens=1024),
      rewards={
        'oasst': _reward('OpenAssistant/reward-model-deberta-v3-large-v2'),
        'grm': _reward('Ray2333/GRM-Gemma-2B-rewardmodel-ft'),
        'internlm': _reward('internlm/internlm2-7b-reward'),
      },
      embed=embedder.EmbedConfig(
        encoder='Alibaba-NLP/gte-large-en-v1.5',
        max_tokens=8192,
        batch_tokens=16384,  # Sized for an accelerator.
      ),
      experiments=pipeline_config.Experiments(origin=arg or 'run'),
    )
  )


def get_sweep():
  """What PAPER.md 6 and 15 leave open, as lists of overrides.

  Each element is one run of the experiments on the same rewards.
  """
  common = 'experiments.common.ridge'
  zooter = 'experiments.routing.zooter'
  heads = ('linear', 'mlp')
  return grid.chain(
    grid.product(
      grid.over(f'{common}.loss', ('sum', 'mean')),
      grid.over(f'{common}.selection', ('fixed', 'leave_one_out')),
    ),
    grid.over(f'{common}.intercept', (False,)),
    # Without tau = 1 and a linear head, which the first point has.
    grid.product(
      grid.over(f'{zooter}.tau', (0.3,)), grid.over(f'{zooter}.head', heads)
    ),
    [[f'{zooter}.tau=1.0', f'{zooter}.head=mlp']],
    grid.product(
      grid.over(f'{zooter}.tau', (3.0,)), grid.over(f'{zooter}.head', heads)
    ),
  )


def _reward(model):
  return rewards.RewardConfig(
    kind='reward_model',
    model=model,
    batch_tokens=16384,  # Sized for an accelerator.
  )
