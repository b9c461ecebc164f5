"""Appendix A.1: four arms on MMLU-Pro, a right choice is worth 1, else 0.

python -m launch.sample --config=configs/mmlu_pro.py --workdir=DIR \
  --arms=qwen25-7b

K = 8 responses at T = 1; --config=configs/mmlu_pro.py:greedy draws one greedy
response instead. Prompts are the test split of the hub's TIGER-Lab/MMLU-Pro, or
of a file of it, or of a table of outcomes recorded on it (prompts.path); its 14
subjects are the categories. What the paper leaves open and is chosen here:
Qwen3 does not think (arms.qwen3-235b.thinking), a Qwen3 is its 235 nominal
billions, not the 22 active ones, and 2048 new tokens, the limit of the
benchmark's own local runs.
"""

from erp_jax.core import config, errors
from erp_jax.data import arms, published
from erp_jax.embed import embedder
from erp_jax.sample import stage as sample
from erp_jax.score import rewards
from launch import pipeline_config
from launch.sweeps import grid

_SAMPLES = {
  '': sample.SampleConfig(k=8, temperature=1.0, max_new_tokens=2048),
  'greedy': sample.SampleConfig(k=1, temperature=0.0, max_new_tokens=2048),
}


def get_config(arg=''):
  if arg not in _SAMPLES:
    raise errors.UserError(
      f'configs/mmlu_pro.py:{arg} is unknown: add :greedy or nothing.'
    )
  return config.as_config_dict(
    pipeline_config.Pipeline(
      prompts=published.mmlu_pro(),
      arms={
        'llama31-8b': arms.Arm(
          model='meta-llama/Llama-3.1-8B-Instruct', nominal_b=8.0
        ),
        'llama31-70b': arms.Arm(
          model='meta-llama/Llama-3.1-70B-Instruct', nominal_b=70.0
        ),
        'qwen25-7b': arms.Arm(model='Qwen/Qwen2.5-7B-Instruct', nominal_b=7.0),
        'qwen3-235b': arms.Arm(
          model='Qwen/Qwen3-235B-A22B',
          nominal_b=235.0,
          active_b=22.0,
          thinking='off',
        ),
      },
      sample=_SAMPLES[arg],
      rewards={'verify': rewards.RewardConfig(kind='verify')},
      embed=embedder.EmbedConfig(
        encoder='Alibaba-NLP/gte-large-en-v1.5', max_tokens=512
      ),
    )
  )


def get_sweep():
  """Greedy against T = 1 is the config's argument; here: E11's open points.

  Costs of experts by all or by active parameters (PAPER.md 17), and the ridge's
  penalty, as lists of overrides.
  """
  selection = 'experiments.common.ridge.selection'
  return grid.product(
    grid.over('route.cost.kind', ('params', 'active')),
    grid.over(selection, ('fixed', 'leave_one_out')),
  )
