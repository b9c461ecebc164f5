"""The points of a config's get_sweep(): lists them, or runs a binary on each.

python -m launch.sweep --config=configs/simulate.py --list
python -m launch.sweep --config=configs/simulate.py --binary=launch.simulate \
  --workdir=DIR --run [-- --config.seed=1]
python -m launch.sweep … --index=$SLURM_ARRAY_TASK_ID

Each point has a folder in --workdir, named after its overrides. What is done is
not done again; what failed, or was interrupted, is run again. What follows `--`
goes to every point. --inputs=RUN lets experiments read one run's rewards.
"""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging
from rich import console

from erp_jax.core import buckets, errors
from launch import parsing
from launch.sweeps import points, runner, table

_CONFIG = flags.DEFINE_string('config', None, 'configs/NAME.py[:ARG].')
_BINARY = flags.DEFINE_string('binary', '', 'Such as launch.sample.')
_WORKDIR = flags.DEFINE_string('workdir', '', "The points' folders lie there.")
_INPUTS = flags.DEFINE_string(
  'inputs', '', 'A run: points find its responses, rewards and embeddings.'
)
_LIST = flags.DEFINE_bool('list', False, 'Show each point and its state.')
_RUN = flags.DEFINE_bool('run', False, 'Run what is not done, in turn.')
_INDEX = flags.DEFINE_integer(
  'index', -1, 'Run this point: of a SLURM array, or a JobSet each.'
)


def main(argv):
  given = (bool(_BINARY.value), bool(_WORKDIR.value))
  if not all(given) and (any(given) or not _LIST.value):
    parsing.stop('give --binary and --workdir; only --list goes without both.')
  for flag in argv[1:]:
    if flag.lstrip('-').partition('=')[0] in ('config', 'workdir'):
      parsing.stop(f'{flag} after `--` is set for each point already.')
  if sum((_LIST.value, _RUN.value, _INDEX.present)) != 1:
    parsing.stop('choose one of --list, --run and --index=N.')
  workdir = _WORKDIR.value.rstrip('/')
  try:
    buckets.check_client(workdir)
    sweep = runner.Sweep(
      points.load(_CONFIG.value),
      *(_BINARY.value, _CONFIG.value, workdir, tuple(argv[1:])),
      _INPUTS.value,
    )
    code = 0
    if _RUN.value:
      code = runner.run_all(sweep)
    elif _INDEX.present:
      code = runner.run_index(sweep, _INDEX.value)
    if not _INDEX.present:
      wide = None if sys.stdout.isatty() else 140
      console.Console(width=wide).print(table.table(sweep))
  except (errors.UserError, *buckets.client_errors()) as e:
    parsing.stop(e)
  sys.exit(code)


if __name__ == '__main__':
  absl_logging.set_verbosity(absl_logging.WARNING)
  for name in ('erp_jax', 'launch'):
    logging.getLogger(name).setLevel(logging.INFO)
  flags.mark_flag_as_required('config')
  app.run(main)
