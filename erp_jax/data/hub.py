"""Repositories of the hub, in its cache on this machine."""

import pathlib
from collections.abc import Sequence

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from erp_jax.core import errors

CHECKPOINT, DATA_SET = 'checkpoint', 'data set'

_TYPES = {CHECKPOINT: 'model', DATA_SET: 'dataset'}
_FOLDERS = {CHECKPOINT: '', DATA_SET: 'datasets/'}
_INSTEAD = {
  CHECKPOINT: "a local folder or 'package:smollm2-135m-instruct'",
  DATA_SET: 'a local file or folder',
}


def download(
  kind: str, name: str, patterns: Sequence[str], ignored: Sequence[str] = ()
) -> pathlib.Path:
  """The folder of a repository in the hub's cache, fetched if it is not there.

  `kind` is CHECKPOINT or DATA_SET, `name` 'org/name' or 'org/name@revision';
  the folder's name is the commit. Of its files, those that match one of the
  patterns and none of the ignored ones.
  Raises UserError if it cannot be fetched, and for a data set in the cache of
  which nobody knows whether all of these files are there.
  """
  repo_id, _, revision = name.partition('@')
  endpoint = constants.ENDPOINT
  try:
    folder = pathlib.Path(
      huggingface_hub.snapshot_download(
        repo_id,
        repo_type=_TYPES[kind],
        revision=revision or None,
        allow_patterns=list(patterns),
        ignore_patterns=list(ignored),
      )
    )
    if kind == DATA_SET:  # A checkpoint's files name each other.
      huggingface_hub.get_cached_repo_tree(
        repo_id, repo_type=_TYPES[kind], revision=folder.name
      )
  except hub_errors.GatedRepoError as error:
    raise errors.UserError(
      f'{kind} {name!r} is gated: accept its licence at '
      f'{endpoint}/{_FOLDERS[kind]}{repo_id}, then set HF_TOKEN to a token of '
      'that account.'
    ) from error
  # The hub was not reached, and a library before 2.4 filled the cache.
  except hub_errors.CachedRepoTreeNotFoundError as error:
    raise errors.UserError(
      f'{kind} {name!r} is in the hub cache without a list of its files, and '
      f'{endpoint} was not reached: there may be more that match '
      f'{" or ".join(patterns)}; run once where it is, or give '
      f'{_INSTEAD[kind]}.'
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
    raise errors.UserError(
      f'{kind} {name!r} is not a folder here, not whole in the hub cache, '
      f'and could not be downloaded from {endpoint} ({errors.said(error)}): '
      'check the name, network and access (HF_TOKEN) and run again, which '
      f'continues the download, or give {_INSTEAD[kind]}.'
    ) from error
  return folder
