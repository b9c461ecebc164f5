"""Reads all files of a run again: what is whole, damaged, missing or extra.

python -m launch.verify --workdir=runs/mine

Exits with 1 unless every artefact is whole. Reads a folder or a bucket, and
changes nothing. What is missing is made again by its stage; what is damaged,
once the file that is named, and the record beside it, are deleted.
"""

import collections
import sys

import jax
from absl import app, flags
from absl import logging as absl_logging
from rich import console

from erp_jax.core import audit, buckets, errors
from erp_jax.route import artifact
from launch import parsing

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder or bucket of a run, or of many.'
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  # The run may be going on, and has the accelerator.
  jax.config.update('jax_platforms', 'cpu')
  absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax names every file.
  out = console.Console(soft_wrap=True, highlight=False, markup=False)
  counts = collections.Counter()
  # Routers have no manifest, but know their own checksums.
  checks = dict.fromkeys(artifact.FILES, artifact.load)
  try:
    for found in audit.audit(_WORKDIR.value, checks):
      counts[found.state] += 1
      out.print(f'{found.state:<10}  {found.path}  ({found.detail})')
  except (errors.UserError, *buckets.client_errors()) as e:
    parsing.stop(e)
  out.print(', '.join(f'{counts[state]} {state}' for state in sorted(counts)))
  sys.exit(any(counts[state] for state in audit.WRONG))


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  app.run(main)
