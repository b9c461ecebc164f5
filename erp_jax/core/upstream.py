"""What an artefact is made from, as its identity names that."""

from etils import epath

from erp_jax.core import endpoint, errors, store


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


def check_current(rewards: epath.PathLike, responses: epath.PathLike) -> None:
  """UserError unless an arm's rewards are of the responses that are there.

  By manifests: no text is read. Rewards that were made elsewhere name no
  responses, and may have none here.
  """
  made_of = store.read_manifest(rewards)['identity'].get('responses')
  if made_of is not None and made_of != digest(responses):
    raise errors.UserError(
      f'{rewards} was made with other responses than {responses} holds: delete '
      f'{rewards}, then run launch.score and what follows it.'
    )
