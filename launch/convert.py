"""Torch .bin weights to safetensors; prints the sha256 of each file.

python -m launch.convert --from=FOLDER_OR_HUB_ID --to=FOLDER

Needs torch: pip install 'erp_jax[convert]'.
"""

import pathlib

from absl import app, flags
from rich import console

from erp_jax.core import errors
from erp_jax.models import convert
from launch import parsing

_FROM = flags.DEFINE_string(
  'from', None, 'Folder or hub id (org/name, org/name@revision).'
)
_TO = flags.DEFINE_string(
  'to', None, 'Folder to write; a restart goes on where it was.'
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  try:
    files = convert.convert(_FROM.value, pathlib.Path(_TO.value))
  except errors.UserError as e:
    parsing.stop(e)
  except KeyboardInterrupt:
    parsing.stop('stopped; the same command goes on where this one was.')
  out = console.Console(soft_wrap=True, highlight=False, markup=False)
  for path, checksum in files:
    out.print(f'{checksum}  {path}')  # As sha256sum does.


if __name__ == '__main__':
  flags.mark_flags_as_required(['from', 'to'])
  app.run(main)
