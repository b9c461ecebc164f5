"""How far a run or a sweep is: done, running, failed; rates and time left.

python -m launch.status --workdir=DIR_OR_BUCKET

Reads what stages have written, on any machine that sees it, and writes nothing.
Ends with 1 if something is damaged, or has failed and was not done since.
"""

import sys

from absl import app, flags
from rich import console

from erp_jax.core import buckets, errors
from erp_jax.report import status, status_table
from launch import parsing

_WORKDIR = flags.DEFINE_string('workdir', None, 'Of a run, or of a sweep.')


def main(argv):
  if argv[1:]:
    parsing.stop(f'unexpected arguments: {" ".join(argv[1:])}')
  try:
    found = status.read(_WORKDIR.value)
  except (errors.UserError, *buckets.client_errors()) as e:
    parsing.stop(e)
  wide = None if sys.stdout.isatty() else 140
  console.Console(width=wide).print(status_table.tables(found))
  sys.exit(int(found.has_failed))


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
