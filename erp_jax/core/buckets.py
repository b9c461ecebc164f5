"""Object stores: what they need, and writes that outlive a bad minute."""

import importlib.util
import logging
import os
import sys
import time

import fsspec.config
from etils import epath

from erp_jax.core import errors

_log = logging.getLogger(__name__)

_CLIENTS = {'gs': ('gcsfs', "'erp_jax[gcs]'"), 's3': ('s3fs', 's3fs')}
# Between tries. The client of gs:// itself tries each for half a minute.
_WAIT_SECS = (1.0, 5.0, 15.0)
# Of requests that failed, beside OSError. They are loaded with their client.
_RAISED = (
  ('gcsfs.retry', 'HttpError'),
  ('aiohttp', 'ClientError'),
  ('google.auth.exceptions', 'GoogleAuthError'),
)
_PASSING = (408, 429, *range(500, 505))  # Status codes of HTTP.


def is_bucket(path: epath.PathLike) -> bool:
  """Whether it is a URL of an object store, not a folder."""
  return '://' in os.fspath(path)


def check_client(path: epath.PathLike) -> None:
  """UserError unless the package that reads such a bucket is installed.

  Called before a process uses the bucket: its client then remembers no
  listing, which would hide what others write, and says nothing by itself.
  """
  scheme, found, _ = os.fspath(path).partition('://')
  if not found:
    return
  if scheme not in _CLIENTS:
    raise errors.UserError(
      f'{path}: {scheme}:// is not a kind of bucket that is known; allowed: a '
      f'folder, {", ".join(f"{name}://" for name in _CLIENTS)}.'
    )
  package, install = _CLIENTS[scheme]
  if importlib.util.find_spec(package) is None:
    raise errors.UserError(
      f'{path} needs {package}, which is not installed: pip install {install}.'
    )
  logging.getLogger(package).setLevel(logging.CRITICAL)
  fsspec.config.conf.setdefault(scheme, {})['use_listings_cache'] = False


def client_errors() -> tuple[type[Exception], ...]:
  """What clients raise for a request that failed, that is no OSError."""
  return tuple(
    getattr(sys.modules[module], name)
    for module, name in _RAISED
    if module in sys.modules
  )


def put(path: epath.PathLike, data: bytes) -> None:
  """Writes a whole object, and tries again while the bucket fails.

  Raises UserError after some tries, and at once where a try more is of no use.
  """
  path = epath.Path(path)
  for wait in (*_WAIT_SECS, 0.0):
    try:
      path.write_bytes(data)
      return
    except (OSError, *client_errors()) as e:
      said = errors.said(e)
      if not wait or not _may_pass(e):
        raise errors.UserError(
          f'cannot write {path} ({len(data)} bytes): {said}; see to the bucket '
          'and your access to it, then start the same command again: finished '
          'shards are kept.'
        ) from e
      _log.warning('cannot write %s (%s): again in %g s', path, said, wait)
      time.sleep(wait)


def _may_pass(e: Exception) -> bool:
  """Whether a failed request may succeed when it is sent again."""
  if isinstance(e, FileNotFoundError | PermissionError):
    return False
  if f'{e}'.startswith('Forbidden'):  # An OSError without a number.
    return False
  code = getattr(e, 'code', None)
  return not isinstance(code, int) or code in _PASSING
