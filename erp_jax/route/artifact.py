"""A policy in a folder of two files: router.json and router.safetensors.

router.json says everything that a person wants to know, and names the digest of
itself and of the weights. Equal policies give equal bytes.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from erp_jax.core import compare, errors, store
from erp_jax.route import feature_map, ladder, posterior
from erp_jax.route import policy as policy_lib

SCHEMA = 'erp_jax.router'
VERSION = 1
FILES = _JSON, _WEIGHTS = 'router.json', 'router.safetensors'
# Fourier features of one embedding, by which a reader knows that it draws the
# same ones: NumPy may change its generators.
_CHECK = 'check'
_ATOL = 1e-6


@dataclasses.dataclass(frozen=True)
class Saved:
  """A policy, and what is recorded with it.

  Attributes:
    encoder: {'embed': config of the encoder, 'revision': of its checkpoint}.
    made_from: digests of what it was fitted on.
    versions: of the packages that made it.
  """

  policy: policy_lib.Policy
  encoder: Mapping[str, Any]
  made_from: Mapping[str, Any]
  versions: Mapping[str, str]


def save(folder: epath.PathLike, saved: Saved) -> None:
  """Writes the folder; router.json, which makes it complete, comes last.

  Raises ValueError for a policy with a number that is not finite.
  """
  tensors = _tensors(saved.policy)
  for name, array in tensors.items():
    if not np.isfinite(array).all():
      raise ValueError(f'{name} is not finite.')
  weights = safetensors.numpy.save(tensors)
  described = {
    'schema': SCHEMA,
    'version': VERSION,
    **_describe(saved.policy),
    'encoder': saved.encoder,
    'made_from': saved.made_from,
    'versions': saved.versions,
    'weights': hashlib.sha256(weights).hexdigest(),
  }
  folder = epath.Path(folder)
  (folder / _JSON).unlink(missing_ok=True)
  store.write_bytes(folder / _WEIGHTS, weights)
  store.write_json(
    folder / _JSON, {**described, 'digest': store.digest(described)}
  )


def load(folder: epath.PathLike) -> Saved:
  """What `save` wrote.

  Raises UserError for a folder that is missing, damaged or changed, of another
  schema, or with weights that are not finite.
  """
  folder = epath.Path(folder)
  described = _read_json(folder)
  weights = _read(folder / _WEIGHTS)
  if hashlib.sha256(weights).hexdigest() != described['weights']:
    raise _damaged(folder / _WEIGHTS, 'its checksum is another')
  try:
    tensors = safetensors.numpy.load(weights)
  except safetensors.SafetensorError as e:
    raise _damaged(folder / _WEIGHTS, str(e)) from e
  for name, array in tensors.items():
    if not np.isfinite(array).all():
      raise errors.UserError(
        f'{folder / _WEIGHTS} holds numbers in {name} that are not finite: '
        'fit and export the router again.'
      )
  return Saved(
    policy=_policy(described, tensors),
    encoder=described['encoder'],
    made_from=described['made_from'],
    versions=described['versions'],
  )


def check_encoder(saved: Saved, encoder: Mapping[str, Any]) -> None:
  """UserError naming what differs, unless embeddings are of this encoder.

  `encoder` is as in Saved. Where the checkpoint lies, how many tokens are a
  batch, and which library runs it do not matter: its revision does.
  """
  free = {'encoder', 'batch_tokens', 'backend'}
  found, wanted = (
    {
      'revision': made['revision'],
      **{k: v for k, v in made['embed'].items() if k not in free},
    }
    for made in (saved.encoder, encoder)
  )
  for where, old, new in compare.differences(found, wanted):
    raise errors.UserError(
      f'the router was fitted on embeddings with {where} = {old}, but these '
      f'have {new}: use the encoder {saved.encoder["embed"]["encoder"]!r} as '
      'it was, or fit a router on this one.'
    )


def _describe(policy: policy_lib.Policy) -> dict[str, Any]:
  """All that is not weights."""
  rungs = policy.ladder
  return {
    'policy': policy.name,
    'out_of_distribution': policy.out_of_distribution,
    'arms': [
      {'name': name, 'cost': cost, 'mean_reward': mean}
      for name, cost, mean in zip(
        policy.arms, policy.cost_M.tolist(), policy.mean_M.tolist(), strict=True
      )
    ],
    'best_arm': policy.arms[policy.best_arm],
    'static_mixture_costs': policy.static.cost_P.tolist(),
    'parts': [
      {
        **dataclasses.asdict(part.features),
        'floor': part.posterior.floor,
        'share': part.posterior.share,
        'limit': part.posterior.limit,
      }
      for part in policy.parts
    ],
    'path': {
      'num_exact': rungs.num_exact,
      'cost_gap': rungs.cost_gap,
      'reward_loss': rungs.reward_loss,
      # The last one's price is infinite.
      'prices': rungs.price_P[:-1].tolist(),
      'costs': rungs.cost_P.tolist(),
    },
  }


def _tensors(policy: policy_lib.Policy) -> dict[str, np.ndarray]:
  tensors = {'bias_M': policy.bias_M, 'margin_M': policy.margin_M}
  for i, part in enumerate(policy.parts):
    tensors |= {
      f'{i}.theta_EM': part.theta_EM,
      f'{i}.mean_E': part.posterior.mean_E,
      f'{i}.triangle_U': part.posterior.triangle_U,
      f'{i}.penalty_M': part.posterior.penalty_M,
      f'{i}.noise_M': part.posterior.noise_M,
    }
    if part.features.num_fourier:
      tensors[f'{i}.{_CHECK}'] = _features_of_ones(part.features)
  return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


def _features_of_ones(features: feature_map.FeatureMap) -> np.ndarray:
  return features.apply(np.ones((1, features.width)))[0]


def _policy(
  described: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> policy_lib.Policy:
  arms, rungs = described['arms'], described['path']
  return policy_lib.Policy(
    name=described['policy'],
    arms=tuple(arm['name'] for arm in arms),
    cost_M=np.array([arm['cost'] for arm in arms], np.float64),
    mean_M=np.array([arm['mean_reward'] for arm in arms], np.float64),
    bias_M=tensors['bias_M'],
    margin_M=tensors['margin_M'],
    parts=tuple(
      _part(entry, tensors, i) for i, entry in enumerate(described['parts'])
    ),
    ladder=ladder.Ladder(
      price_P=np.array([*rungs['prices'], np.inf]),
      cost_P=np.array(rungs['costs'], np.float64),
      num_exact=rungs['num_exact'],
      cost_gap=rungs['cost_gap'],
      reward_loss=rungs['reward_loss'],
    ),
    out_of_distribution=described['out_of_distribution'],
  )


def _part(
  entry: Mapping[str, Any], tensors: Mapping[str, np.ndarray], i: int
) -> policy_lib.Part:
  names = [f.name for f in dataclasses.fields(feature_map.FeatureMap)]
  features = feature_map.FeatureMap(**{name: entry[name] for name in names})
  if features.num_fourier and not np.allclose(
    _features_of_ones(features), tensors[f'{i}.{_CHECK}'], rtol=0, atol=_ATOL
  ):
    raise errors.UserError(
      'this NumPy draws other Fourier features from the same seed than the one '
      "that made the router (its router.json has 'versions'): install that "
      'one, or export the router again.'
    )
  return policy_lib.Part(
    features=features,
    theta_EM=tensors[f'{i}.theta_EM'],
    posterior=posterior.Posterior(
      mean_E=tensors[f'{i}.mean_E'],
      triangle_U=tensors[f'{i}.triangle_U'],
      floor=entry['floor'],
      penalty_M=tensors[f'{i}.penalty_M'],
      noise_M=tensors[f'{i}.noise_M'],
      share=entry['share'],
      limit=entry['limit'],
    ),
  )


def _read_json(folder: epath.Path) -> dict[str, Any]:
  """router.json, once it is known to be ours, of this version, and whole."""
  file = folder / _JSON
  _read(file)
  described = store.read_json(file, ('schema', 'version'))
  found = (described['schema'], described['version'])
  if found != (SCHEMA, VERSION):
    raise errors.UserError(
      f'{file} is of schema {found[0]!r}, version {found[1]!r}; this erp_jax '
      f'reads {SCHEMA!r}, version {VERSION}: export the router again with it, '
      'or install the version that wrote it.'
    )
  digest = described.pop('digest', '')
  if store.digest(described) != digest:
    raise _damaged(file, 'its digest is another')
  return described


def _read(file: epath.Path) -> bytes:
  if not file.exists():
    raise errors.UserError(
      f'{file} is not there: give the folder that launch.export_router wrote.'
    )
  return file.read_bytes()


def _damaged(file: epath.Path, reason: str) -> errors.UserError:
  return errors.UserError(
    f'{file} is damaged or was changed ({reason}): copy the folder again, or '
    'export the router again.'
  )
