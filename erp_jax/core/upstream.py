"""What an artefact is made from, as its identity names that."""

from etils import epath

from erp_jax.core import endpoint, store


def digest(path: epath.PathLike) -> str:
  """Names the content of a complete artefact.

  It is the digest of its identity; with those of its shards where a server
  answered, which seldom repeats an answer.
  """
  manifest = store.read_manifest(path)
  identity = manifest['identity']
  made_by = identity.get('reward') or identity.get('arm') or {}
  if not endpoint.is_served(made_by.get('revision')):
    return manifest['digest']
  checksums = {name: x['sha256'] for name, x in manifest['shards'].items()}
  return store.digest([manifest['digest'], checksums])
