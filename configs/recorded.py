"""Recorded outcomes of real models through every experiment.

python -m launch.routing --config=configs/recorded.py:FOLDER --workdir=DIR

FOLDER has zeroeval.parquet, mmlu_pro.parquet and routellm.parquet, tables of
recorded outcomes with a row per prompt and model. Without it, the records that
come with a package: configs/recorded.py. Costs are billions of parameters as in
the models' names where a table has none; for RouteLLM's, dollars a token.
"""

from erp_jax.core import config
from erp_jax.embed import embedder
from erp_jax.route import replay
from launch import pipeline_config
from launch.sweeps import grid

_PER_TOKEN = 'USD per million tokens'
_RECORDED = replay.RecordedOutcomes
_MMLU_4 = {
  'llama-3.1-8b-instruct': 8.0,
  'llama-3.1-70b-instruct': 70.0,
  'qwen1.5-7b-chat': 7.0,
  'qwen1.5-110b-base': 110.0,
}
# With the first four others, by name, that were asked all questions and have
# one size in their names.
_MMLU_8 = _MMLU_4 | {
  'gemma-7b-base': 7.0,
  'llama-3-70b-base': 70.0,
  'mathstral-7b': 7.0,
  'mistral-7b-instruct-v0.2': 7.0,
}
# Dollars per million tokens, as in RouteLLM's paper (arXiv 2406.18665).
_ROUTELLM = {'Mixtral-8x7B-Instruct-v0.1': 0.24, 'gpt-4-1106-preview': 24.7}


def get_config(arg=''):
  replays = {
    'paretobandit': _RECORDED(
      outcomes='package:paretobandit',
      title='ParetoBandit: three hosted models, a judge’s reward',
      models=(
        'meta-llama/llama-3.1-8b-instruct',
        'mistralai/mistral-large-2512',
        'google/gemini-2.5-pro',
      ),
    )
  }
  if arg:
    replays |= _tables(arg.rstrip('/'))
  return config.as_config_dict(
    pipeline_config.Pipeline(
      experiments=pipeline_config.Experiments(origin='recorded'),
      replays=replays,
      embed=embedder.EmbedConfig(max_tokens=128),
    )
  )


def get_sweep():
  """The ridge's switches of PAPER.md 6, as lists of overrides."""
  ridge = 'experiments.common.ridge'
  return grid.product(
    grid.over(f'{ridge}.selection', ('fixed', 'leave_one_out')),
    grid.over(f'{ridge}.loss', ('sum', 'mean')),
  )


def _tables(folder):
  sized = lambda pool: {'models': tuple(pool), 'costs': tuple(pool.values())}
  return {
    'zeroeval': _RECORDED(
      outcomes=f'{folder}/zeroeval.parquet',
      title='ZeroEval: four of the paper’s models on maths and code',
      category_column='subset',
      **sized(
        {
          'Meta-Llama-3.1-8B-Instruct': 8.0,
          'Meta-Llama-3.1-70B-Instruct': 70.0,
          'gemma-2-9b-it': 9.0,
          'gemma-2-27b-it': 27.0,
        }
      ),
    ),
    'mmlu-pro-4': _RECORDED(
      outcomes=f'{folder}/mmlu_pro.parquet',
      title='MMLU-Pro: four models, right or not',
      **sized(_MMLU_4),
    ),
    'mmlu-pro-8': _RECORDED(
      outcomes=f'{folder}/mmlu_pro.parquet',
      title='MMLU-Pro: eight models, right or not',
      **sized(_MMLU_8),
    ),
    'routellm-mmlu': _RECORDED(
      outcomes=f'{folder}/routellm.parquet',
      title='RouteLLM, MMLU: a strong and a weak model, right or not',
      category_column='subset',
      categories=('mmlu',),
      cost_unit=_PER_TOKEN,
      **sized(_ROUTELLM),
    ),
    'routellm-gsm8k': _RECORDED(
      outcomes=f'{folder}/routellm.parquet',
      title='RouteLLM, GSM8K: a strong and a weak model, right or not',
      categories=('gsm8k',),
      cost_unit=_PER_TOKEN,
      **sized(_ROUTELLM),
    ),
  }
