"""A vendor's way of sampling against the plain one, from file to manifest."""

import dataclasses
import json
import shutil

import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.sample import engine
from erp_jax.sample import stage as sample

_PLAIN = sample.SampleConfig(
  k=4,
  max_new_tokens=8,
  dtype='float32',
  engine=engine.EngineConfig(slots=8, prompt_buckets=(128,)),
)
_VENDOR = dataclasses.replace(_PLAIN, generation='vendor')


@pytest.fixture(scope='module')
def asked(tiny):
  return prompts.load(prompts.PromptConfig(path=str(tiny.prompts)))[:2]


def _arm(tiny, folder, **values):
  """The tiny decoder with these in its generation_config.json."""
  shutil.copytree(tiny.decoder, folder)
  file = folder / 'generation_config.json'
  file.write_text(json.dumps(json.loads(file.read_text()) | values))
  return arms.Arm(model=str(folder))


def _run(path, arm, asked, cfg):
  """(texts, manifest) of one arm."""
  workdir = workdir_lib.Workdir(epath.Path(path), {'versions': {}})
  sample.run(workdir, {'a': arm}, asked, cfg)
  folder = workdir.path / 'responses' / 'a'
  table = store.read_table(folder).to_pydict()
  return table['text'], store.read_manifest(folder)


def test_vendor_settings_are_read_used_and_kept(tiny, asked, tmp_path):
  values = {'do_sample': True, 'temperature': 0.7, 'top_k': 20, 'top_p': 0.8}
  arm = _arm(tiny, tmp_path / 'm', **values)
  plain, made = _run(tmp_path / 'plain', arm, asked, _PLAIN)
  assert 'generation' not in made['info']
  vendor, made = _run(tmp_path / 'vendor', arm, asked, _VENDOR)
  assert vendor != plain
  assert made['identity']['sample']['generation'] == 'vendor'
  assert made['info']['generation'] == {
    'temperature': 0.7, 'top_k': 20, 'top_p': 0.8, 'not_applied': {},
  }  # fmt: skip


@pytest.mark.parametrize(
  ('values', 'same'),
  [
    ({}, True),  # A file that names nothing.
    ({'do_sample': True, 'temperature': 1.0, 'top_p': 1.0}, True),
    ({'do_sample': True, 'temperature': 0.5}, False),
    ({'do_sample': True, 'top_k': 3}, False),
    ({'do_sample': True, 'top_p': 0.4}, False),
  ],
)
def test_each_value_matters_alone(tiny, asked, tmp_path, values, same):
  """One and the same model and noise: what differs is the setting."""
  arm = _arm(tiny, tmp_path / 'm', **values)
  plain, _ = _run(tmp_path / 'plain', arm, asked, _PLAIN)
  vendor, _ = _run(tmp_path / 'vendor', arm, asked, _VENDOR)
  assert (vendor == plain) == same


def test_one_id_left_is_greedy(tiny, asked, tmp_path):
  arm = _arm(tiny, tmp_path / 'm', do_sample=True, top_k=1)
  vendor, _ = _run(tmp_path / 'vendor', arm, asked, _VENDOR)
  greedy = dataclasses.replace(_PLAIN, temperature=0.0)
  assert vendor == _run(tmp_path / 'greedy', arm, asked, greedy)[0]


def test_the_plain_identity_has_no_such_field(tiny, asked, tmp_path):
  arm = arms.Arm(model=str(tiny.decoder))
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  identity = sample.artifact(workdir, 'a', arm, asked, _PLAIN).identity
  assert set(identity['sample']) == {
    *('k', 'temperature', 'max_new_tokens', 'seed', 'dtype'),
    *('shard_prompts', 'engine'),
  }
  other = sample.artifact(workdir, 'a', arm, asked, _VENDOR).identity
  assert other['sample'] == identity['sample'] | {'generation': 'vendor'}


def test_an_arm_that_says_nothing_is_refused_before_any_is_sampled(
  tiny, asked, tmp_path
):
  made = {
    'first': arms.Arm(model=str(tiny.decoder)),
    'second': _arm(tiny, tmp_path / 'm'),
  }
  (tmp_path / 'm' / 'generation_config.json').unlink()
  workdir = workdir_lib.Workdir(epath.Path(tmp_path / 'run'), {'versions': {}})
  with pytest.raises(errors.UserError, match='has no generation_config.json'):
    sample.run(workdir, made, asked, _VENDOR)
  assert not (tmp_path / 'run' / 'responses').exists()


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    ({'generation': 'hf'}, "generation is 'hf', but must be plain or vendor"),
    (
      {'generation': 'vendor', 'temperature': 0.5},
      'temperature is 0.5, but with sample.generation vendor',
    ),
  ],
)
def test_bad_config(fields, match):
  with pytest.raises(errors.UserError, match=match):
    sample.SampleConfig(**fields)
