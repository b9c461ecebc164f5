"""Command lines: mistakes in a config end in one line that names them."""

import pathlib
import sys
from typing import NoReturn

import ml_collections
from absl import app, flags

from erp_jax.core import config, errors

_CONFIG = '--config='
_FIELD = '--config.'


def parse(argv: list[str]) -> list[str]:
  """absl's parser, after the config's own errors and unknown fields."""
  # '--config FILE' is '--config=FILE'.
  pairs = zip(argv, argv[1:], strict=False)
  paths = [a.removeprefix(_CONFIG) for a in argv if a.startswith(_CONFIG)]
  paths += [b for a, b in pairs if a == _CONFIG.rstrip('=')]
  for path in paths:
    if not pathlib.Path(path.split(':')[0]).is_file():
      stop(f'--config={path}: there is no such file; see configs/.')
    try:
      values = flags.FLAGS['config'].parser.parse(path)
    except errors.UserError as e:  # ml_collections puts its traceback in front.
      stop(f'--config={path}: {str(e).strip().splitlines()[-1]}')
    if not isinstance(values, ml_collections.ConfigDict):
      stop(f'--config={path}: get_config() must return a ConfigDict.')
    for arg in argv:
      if arg.startswith(_FIELD):
        _check_field(values, arg.removeprefix(_FIELD).split('=')[0])
  return app.parse_flags_with_usage(argv)


def stop(message: object) -> NoReturn:
  """Ends the program with one line."""
  sys.exit(f'{sys.argv[0]}: error: {message}')


def _check_field(values: ml_collections.ConfigDict, dotted: str) -> None:
  """Stops if the config has no field of that dotted name."""
  node, path = values, 'config'
  for name in dotted.split('.'):
    field = name.split('[')[0]
    if isinstance(node, ml_collections.ConfigDict) and field not in node:
      stop(f'{path}.{field} is not a field; {config.did_you_mean(field, node)}')
    node, path = getattr(node, field, None), f'{path}.{field}'
