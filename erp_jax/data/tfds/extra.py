"""The package of the extra `data`, for those who may not have it."""

import types

from erp_jax.core import errors


def module() -> types.ModuleType:
  """`erp_jax.data.tfds.built`; UserError if the extra is not installed."""
  try:
    from erp_jax.data.tfds import built
  except ImportError as e:
    raise errors.UserError(
      f'tensorflow_datasets is not installed ({e}): pip install '
      "'erp_jax[data]', or give the prompts as files."
    ) from e
  return built
