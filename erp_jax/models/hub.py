"""Checkpoints of the hub, in its cache on this machine."""

import pathlib
from collections.abc import Sequence

import huggingface_hub
from huggingface_hub import errors as hub_errors

from erp_jax.core import errors


def download(name: str, patterns: Sequence[str]) -> pathlib.Path:
  """The folder of a checkpoint in the hub's cache, fetched if it is not there.

  `name` is 'org/name' or 'org/name@revision'; the folder's name is the commit.
  Raises UserError if it cannot be fetched.
  """
  repo_id, _, revision = name.partition('@')
  try:
    folder = huggingface_hub.snapshot_download(
      repo_id,
      revision=revision or None,
      allow_patterns=list(patterns),
      ignore_patterns=['original/*', 'onnx/*', 'openvino/*'],
    )
  except hub_errors.GatedRepoError as error:
    endpoint = huggingface_hub.constants.ENDPOINT
    raise errors.UserError(
      f'checkpoint {name!r} is gated: accept its licence at '
      f'{endpoint}/{repo_id}, then set HF_TOKEN to a token of that account.'
    ) from error
  # OSError: offline, not found, no access, a short file, a full disk.
  # HTTPError: the hub's HTTP library, whichever it is, lost the connection.
  # RuntimeError: its other transport, hf_xet, did.
  except (
    OSError,
    RuntimeError,
    hub_errors.HTTPError,
    hub_errors.HFValidationError,
  ) as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise errors.UserError(
      f'checkpoint {name!r} is not a folder here, not in the hub cache, and '
      f'could not be downloaded from {huggingface_hub.constants.ENDPOINT} '
      f'({reason}): check the name, network and access (HF_TOKEN) and run '
      'again, which continues the download, or give a local folder or '
      "'package:smollm2-135m-instruct'."
    ) from error
  return pathlib.Path(folder)
