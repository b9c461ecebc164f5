"""Checkpoints of the hub, in its cache on this machine."""

import pathlib
from collections.abc import Sequence

from erp_jax.data import hub


def download(name: str, patterns: Sequence[str]) -> pathlib.Path:
  """The folder of a checkpoint in the hub's cache, fetched if it is not there.

  `name` is 'org/name' or 'org/name@revision'; the folder's name is the commit.
  Raises UserError if it cannot be fetched.
  """
  return hub.download(
    hub.CHECKPOINT, name, patterns, ('original/*', 'onnx/*', 'openvino/*')
  )
