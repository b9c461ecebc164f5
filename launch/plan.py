"""Hours, chips and bytes of each stage of a config, before anything is run.

python -m launch.plan --config=configs/perfectblend.py --chip=v5e-16 [--json]
python -m launch.plan --config=configs/quickstart.py --chip=cpu
"""

import json
import sys

import jax
from absl import flags
from rich import console

from launch import app, pipeline_config
from launch.plans import inputs as inputs_lib
from launch.plans import machine as machine_lib
from launch.plans import stages, table

_CHIP = flags.DEFINE_string(
  'chip', '', 'cpu, measured right here, or KIND-COUNT chips: v5e-16, H100-8.'
)
_NUM_PROMPTS = flags.DEFINE_integer(
  'num_prompts', 0, 'Prompts; 0: as many as the config takes.', lower_bound=0
)
_PROMPT_TOKENS = flags.DEFINE_float(
  'prompt_tokens',
  0,
  'Mean of a prompt; 0: counted where prompts and tokenizer are here, else '
  f'{inputs_lib.PROMPT_TOKENS}.',
  lower_bound=0,
)
_RESPONSE_TOKENS = flags.DEFINE_float(
  'response_tokens',
  0,
  'Mean of a response; 0: sample.max_new_tokens, which is the most.',
  lower_bound=0,
)
_SHARES = flags.DEFINE_list(
  'shares', [], 'Of the limit, as you measured them: sample=0.4,embed=0.5.'
)
_JSON = flags.DEFINE_bool('json', False, 'One JSON object.')


def main(cfg):
  jax.config.update('jax_platforms', 'cpu')  # Nothing else is needed.
  machine = machine_lib.find(_CHIP.value, _SHARES.value)
  inputs = inputs_lib.gather(
    cfg, _NUM_PROMPTS.value, _PROMPT_TOKENS.value, _RESPONSE_TOKENS.value
  )
  rows = stages.rows(cfg, machine, inputs)
  if _JSON.value:
    made = table.summary(rows, machine, inputs)
    sys.stdout.write(json.dumps(made) + '\n')
    return
  out = console.Console(width=None if sys.stdout.isatty() else 160)
  out.print(table.table(rows, machine, inputs))


if __name__ == '__main__':
  app.run_without_workdir(main, pipeline_config.Pipeline)
