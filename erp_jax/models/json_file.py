"""The JSON files of checkpoints."""

import json
import pathlib
from typing import Any

from erp_jax.core import errors


def read(path: pathlib.Path, kind: type = dict) -> Any:
  """The value of a file, which must be of this kind.

  Raises UserError if the file is missing, is not JSON or holds another kind.
  """
  try:
    value = json.loads(path.read_bytes())
  except OSError as error:
    raise errors.UserError(
      f'{path} cannot be read ({error.strerror}): fetch it again.'
    ) from error
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{path} is not valid JSON ({error}): fetch it again.'
    ) from error
  if not isinstance(value, kind):
    raise errors.UserError(
      f'{path} is not valid: it holds a {type(value).__name__}, but must hold '
      f'a {kind.__name__}; fetch it again.'
    )
  return value
