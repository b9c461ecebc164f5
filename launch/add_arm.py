"""One more arm for a run: its traffic, what it saves, experiments/add_arm-NAME.

python -m launch.add_arm --config=configs/quickstart.py --workdir=runs/mine \
  --arm=plain --model=package:smollm2-135m-instruct

samples, scores and fits that arm alone, with the config's settings. An arm that
was written into the config file needs --arm alone. Rewards made elsewhere:

  … --arm=hosted --rewards_table=FILE --reward=verify --cost=8

FILE is .parquet or .jsonl, with prompt_id and reward, maybe k (the number of
the response), and cost in each row where --cost is not given; costs are in the
units of config.route.cost. Without a run, --arm=MODEL with a config whose
replays have that model (configs/recorded.py:FOLDER) takes it as the newcomer to
the others. No file of another arm is touched.
"""

import math
import sys

from absl import flags
from rich import console

from erp_jax.report import newcomer, terminal
from launch import app, newcomers, pipeline_config

_ARM = flags.DEFINE_string('arm', None, 'Name of the newcomer.')
_MODEL = flags.DEFINE_string('model', '', 'Its checkpoint, as arms.NAME.model.')
_SYSTEM_PROMPT = flags.DEFINE_string('system_prompt', '', 'As in an arm.')
_NOMINAL_B = flags.DEFINE_float('nominal_b', 0.0, 'As in an arm.')
_TABLE = flags.DEFINE_string(
  'rewards_table', '', 'Rewards of its responses, made elsewhere.'
)
_REWARD = flags.DEFINE_string(
  'reward', '', 'The reward model of the config that the table is of.'
)
_COST = flags.DEFINE_float('cost', math.nan, "Of each of the table's answers.")


def main(cfg, workdir):
  how = newcomers.Source(
    model=_MODEL.value,
    system_prompt=_SYSTEM_PROMPT.value,
    nominal_b=_NOMINAL_B.value,
    table=_TABLE.value,
    reward=_REWARD.value,
    cost=_COST.value,
  )
  found = newcomers.find(cfg, workdir, _ARM.value, how)
  out = console.Console(width=None if sys.stdout.isatty() else 120)
  for metrics in newcomers.publish(cfg, workdir, _ARM.value, found).values():
    for reward in metrics['rewards']:
      for table in newcomer.tables(metrics, reward):
        out.print(terminal.of_table(table))


if __name__ == '__main__':
  flags.mark_flag_as_required('arm')
  app.run(main, pipeline_config.Pipeline)
