"""A router on disk: small, the same bytes each time, and refused if spoilt."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from erp_jax.core import errors, store
from erp_jax.probe import ridge
from erp_jax.route import artifact, feature_map, policy, posterior

_ENCODER = {
  'embed': {'encoder': 'org/gte', 'max_tokens': 512, 'batch_tokens': 1024},
  'revision': 'abc',
}


def _saved(num=120, width=10, num_arms=3, num_fourier=0, num_test=300):
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(num, width))
  reward_NM = emb_NE @ rng.normal(size=(width, num_arms)) / np.sqrt(width)
  reward_NM += rng.normal(size=reward_NM.shape)
  cfg = ridge.RidgeConfig(selection='leave_one_out', betas=(0.1, 1.0, 10.0))
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  parts = [policy.ridge_part(probe, emb_NE, reward_NM, cfg, 0.99)]
  if num_fourier:
    features = feature_map.FeatureMap(width=width, num_fourier=num_fourier)
    x_NE = features.apply(emb_NE)
    raw = ridge.RidgeConfig(embedding='raw', intercept=False)
    fitted = ridge.fit(x_NE, reward_NM, raw)
    fit = posterior.fit(
      *(x_NE, reward_NM, ridge.predict(fitted, x_NE)),
      *(fitted.beta_M, False, 0.99),
    )
    parts.append(
      policy.Part(features=features, theta_EM=fitted.theta_EM, posterior=fit)
    )
  made = policy.calibrate(
    name=policy.ERP_LOO,
    arms=[f'arm {m}' for m in range(num_arms)],
    cost_M=np.array([8.0, 70.0, 9.0, 27.0, 7.0])[:num_arms],
    mean_M=reward_NM.mean(axis=0),
    bias_M=probe.bias_M,
    parts=parts,
    emb_NE=rng.normal(size=(num_test, width)),
  )
  return artifact.Saved(made, _ENCODER, {'prompts': 'd'}, {'numpy': '2.0'})


@pytest.fixture
def folder(tmp_path):
  artifact.save(tmp_path, _saved())
  return tmp_path


@pytest.mark.parametrize('num_fourier', [0, 16])
def test_what_is_loaded_decides_alike(tmp_path, num_fourier):
  saved = _saved(num_fourier=num_fourier)
  artifact.save(tmp_path, saved)
  assert {file.name for file in tmp_path.iterdir()} == {
    *('router.json', 'router.safetensors')
  }
  loaded = artifact.load(tmp_path)
  assert (loaded.encoder, loaded.made_from, loaded.versions) == (
    *(_ENCODER, {'prompts': 'd'}, {'numpy': '2.0'}),
  )
  emb_NE = np.random.default_rng(1).normal(size=(500, 10))
  for price in ({'budget': 0.4}, {'lam': 0.01}):
    expected = saved.policy.decide(emb_NE, **price)
    found = loaded.policy.decide(emb_NE, **price)
    for field in dataclasses.fields(policy.Decision):
      np.testing.assert_array_equal(
        getattr(found, field.name), getattr(expected, field.name)
      )
    assert 0 < len(set(found.choice_N)) <= 3
  again = tmp_path / 'again'
  artifact.save(again, loaded)
  for name in ('router.json', 'router.safetensors'):
    assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('num', [2000, 20_000])
def test_five_megabytes_whatever_the_number_of_prompts(tmp_path, num):
  saved = _saved(num, 1024, 5, num_test=num)
  assert saved.policy.ladder.num_exact > 2000
  artifact.save(tmp_path, saved)
  size = sum(file.stat().st_size for file in tmp_path.iterdir())
  # The triangle is 1024 x 1025 / 2 floats; nothing else grows so.
  assert 2.1e6 < size < 2.3e6
  assert len(saved.policy.ladder.cost_P) <= 1000
  loaded = artifact.load(tmp_path).policy
  emb_NE = np.random.default_rng(1).normal(size=(20, 1024))
  found_NM = loaded.decide(emb_NE, lam=0.0).std_NM
  if num == 20_000:
    return
  expected_NM = _std_by_inverse(saved.policy, emb_NE)
  np.testing.assert_allclose(found_NM, expected_NM, rtol=1e-4)


def _std_by_inverse(made, emb_NE):
  """The same data again, each arm's own float64 inverse."""
  rng = np.random.default_rng(0)
  x_NE = rng.normal(size=(2000, 1024))
  x_NE /= np.linalg.norm(x_NE, axis=1, keepdims=True)
  new_NE = emb_NE / np.linalg.norm(emb_NE, axis=1, keepdims=True)
  new_NE -= x_NE.mean(axis=0)
  x_NE -= x_NE.mean(axis=0)
  fit = made.parts[0].posterior
  std_NM = np.empty((len(emb_NE), 5))
  for m, penalty in enumerate(fit.penalty_M):
    inverse = np.linalg.inv(x_NE.T @ x_NE + penalty * np.eye(1024))
    leverage_N = ((new_NE @ inverse) * new_NE).sum(axis=1) + 1 / 2000
    std_NM[:, m] = np.sqrt(fit.noise_M[m] * leverage_N)
  return std_NM


def test_the_same_bytes_in_another_process(folder, tmp_path):
  program = (
    'import importlib.util, sys\n'
    'spec = importlib.util.spec_from_file_location("t", sys.argv[1])\n'
    't = importlib.util.module_from_spec(spec)\n'
    'spec.loader.exec_module(t)\n'
    't.artifact.save(sys.argv[2], t._saved())\n'
  )
  other = tmp_path / 'other'
  for _ in range(2):  # Hashes of strings are seeded anew.
    subprocess.run(
      [sys.executable, '-c', program, __file__, str(other)], check=True
    )
    for name in ('router.json', 'router.safetensors'):
      assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_loading_needs_no_jax(folder):
  program = (
    'import sys\n'
    'import numpy as np\n'
    'import erp_jax.route\n'
    'from erp_jax.route import artifact\n'
    'loaded = artifact.load(sys.argv[1]).policy\n'
    'assert isinstance(loaded, erp_jax.route.Policy)\n'
    'loaded.decide(np.ones((2, 10)), budget=0.5)\n'
    'heavy = {"jax", "flax", "orbax", "transformers", "tokenizers", "torch"}\n'
    'sys.stdout.write(" ".join(heavy & set(sys.modules)))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, str(folder)],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert done.stdout == ''


def _rewrite(folder, change):
  """router.json changed by someone who also mends its digest."""
  file = folder / 'router.json'
  described = json.loads(file.read_text())
  del described['digest']
  change(described)
  described['digest'] = store.digest(described)
  store.write_json(file, described)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('version', 2, "'erp_jax.router', version 2; this erp_jax reads"),
    ('schema', 'other', "of schema 'other'"),
    ('weights', '0' * 64, 'safetensors is damaged .* checksum is another'),
  ],
)
def test_another_schema_or_weights(folder, field, value, message):
  _rewrite(folder, lambda described: described.update({field: value}))
  with pytest.raises(errors.UserError, match=message):
    artifact.load(folder)


def test_another_version_is_named_before_anything_else(folder):
  """Even if its fields are none that we know."""
  store.write_json(
    folder / 'router.json', {'schema': 'erp_jax.router', 'version': 7}
  )
  with pytest.raises(errors.UserError, match='version 7'):
    artifact.load(folder)


def test_a_changed_number(folder):
  file = folder / 'router.json'
  text = file.read_text()
  assert '"cost": 70.0' in text
  file.write_text(text.replace('"cost": 70.0', '"cost": 7.0'))
  with pytest.raises(errors.UserError, match='json is damaged or was changed'):
    artifact.load(folder)


@pytest.mark.parametrize('name', ['router.json', 'router.safetensors'])
def test_a_damaged_or_missing_file(folder, name):
  file = folder / name
  data = file.read_bytes()
  for spoilt in (data[:-100], data[:500] + b'\xff' + data[501:], b''):
    file.write_bytes(spoilt)
    with pytest.raises(errors.UserError, match=name):
      artifact.load(folder)
  file.unlink()
  with pytest.raises(errors.UserError, match=f'{name} is not there'):
    artifact.load(folder)


def test_weights_that_are_not_finite(folder, tmp_path):
  saved = _saved()
  theta_EM = saved.policy.parts[0].theta_EM.copy()
  theta_EM[3, 1] = np.nan
  part = dataclasses.replace(saved.policy.parts[0], theta_EM=theta_EM)
  spoilt = dataclasses.replace(saved.policy, parts=(part,))
  with pytest.raises(ValueError, match='0.theta_EM is not finite'):
    artifact.save(tmp_path / 'new', dataclasses.replace(saved, policy=spoilt))
  weights = folder / 'router.safetensors'
  tensors = safetensors.numpy.load_file(weights)
  tensors['0.theta_EM'] = theta_EM
  data = safetensors.numpy.save(tensors)
  weights.write_bytes(data)
  _rewrite(
    folder,
    lambda described: described.update(weights=store.sha256(weights)),
  )
  with pytest.raises(errors.UserError, match='0.theta_EM that are not finite'):
    artifact.load(folder)


def test_other_fourier_features_from_the_seed(tmp_path):
  artifact.save(tmp_path, _saved(num_fourier=16))
  _rewrite(tmp_path, lambda described: described['parts'][1].update(seed=5))
  with pytest.raises(errors.UserError, match='draws other Fourier features'):
    artifact.load(tmp_path)


def test_an_encoder_is_known_by_its_revision_and_settings():
  saved = _saved()
  moved = {
    'embed': _ENCODER['embed'] | {'encoder': '/here', 'batch_tokens': 64},
    'revision': 'abc',
  }
  artifact.check_encoder(saved, moved)
  for other, message in (
    (moved | {'revision': 'xyz'}, 'revision = "abc", but these have "xyz"'),
    (
      moved | {'embed': moved['embed'] | {'max_tokens': 256}},
      'max_tokens = 512, but these have 256',
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      artifact.check_encoder(saved, other)
