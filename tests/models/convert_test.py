"""What torch saved as .bin loads here after conversion, to the bit."""

import json
import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from erp_jax.core import errors
from erp_jax.models import checkpoint, convert, decoder_weights
from erp_jax.models import params as params_lib


def _model(tied: bool) -> transformers.LlamaForCausalLM:
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    tie_word_embeddings=tied,
  )
  return transformers.LlamaForCausalLM(config)


def _save(folder: pathlib.Path, model, num_shards: int = 1, **kwargs) -> dict:
  """A checkpoint of .bin files, as the hub's old ones; returns its tensors."""
  folder.mkdir()
  model.config.architectures = [type(model).__name__]
  model.config.save_pretrained(folder)
  (folder / 'tokenizer_config.json').write_text('{}')
  (folder / '1_Pooling').mkdir()
  (folder / '1_Pooling' / 'config.json').write_text('{"pooling_mode": "cls"}')
  state = dict(model.state_dict())
  if num_shards == 1:
    torch.save(state, folder / 'pytorch_model.bin', **kwargs)
    return state
  weight_map = {}
  for i in range(num_shards):
    name = f'pytorch_model-{i + 1:05d}-of-{num_shards:05d}.bin'
    part = dict(list(state.items())[i::num_shards])
    torch.save(part, folder / name, **kwargs)
    weight_map |= dict.fromkeys(part, name)
  index = {'metadata': {'total_size': 0}, 'weight_map': weight_map}
  (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
  return state


def _check_equal(folder: pathlib.Path, state: dict) -> None:
  found = {}
  for path in folder.glob('*.safetensors'):
    found |= safetensors.torch.load_file(path)
  assert found.keys() == state.keys()
  for name, tensor in state.items():
    assert found[name].dtype == tensor.dtype
    assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize('num_shards', [1, 3])
@pytest.mark.parametrize('tied', [True, False])
def test_converted_weights_load_and_equal_torch(tmp_path, tied, num_shards):
  source, target = tmp_path / 'from', tmp_path / 'to'
  state = _save(source, _model(tied), num_shards)
  files = convert.convert(str(source), target)
  assert len(files) == 2 * num_shards
  _check_equal(target, state)
  assert sorted(
    path.relative_to(target).as_posix() for path in target.rglob('*.json')
  ) == sorted(
    ['config.json', 'tokenizer_config.json', '1_Pooling/config.json']
    + (num_shards > 1) * ['model.safetensors.index.json']
  )
  cfg, values, _ = checkpoint.load_decoder(str(target), jnp.float32)
  assert cfg.tied == tied
  tree = decoder_weights.declare(cfg)
  for name, tensor in params_lib.to_tensors(tree, values):
    np.testing.assert_array_equal(tensor, state[name].numpy(), err_msg=name)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_narrow_dtypes_keep_their_bits(tmp_path, dtype):
  state = _save(tmp_path / 'from', _model(tied=False).to(dtype))
  convert.convert(str(tmp_path / 'from'), tmp_path / 'to')
  _check_equal(tmp_path / 'to', state)
  name = str(tmp_path / 'to')
  wide = checkpoint.load_decoder(name, jnp.float32)[1]
  expected = state['model.embed_tokens.weight'].float().numpy()
  np.testing.assert_array_equal(jax.device_get(wide['embed_VD']), expected)


def test_shared_and_strided_tensors_and_old_files(tmp_path):
  source, target = tmp_path / 'from', tmp_path / 'to'
  source.mkdir()
  (source / 'config.json').write_text('{}')
  whole = torch.arange(24.0).reshape(4, 6)
  state = {'a': whole, 'tied': whole, 'row': whole[1], 'turned': whole.T}
  torch.save(
    state, source / 'pytorch_model.bin', _use_new_zipfile_serialization=False
  )
  convert.convert(str(source), target)
  _check_equal(target, state)


class _Malicious:
  def __init__(self, trace: pathlib.Path):
    self._command = f'touch {trace}'

  def __reduce__(self):
    return os.system, (self._command,)


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_pickle_is_refused(tmp_path, zipped):
  source = tmp_path / 'from'
  _save(source, _model(tied=True))
  torch.save(
    {'weight': torch.ones(2), 'more': _Malicious(tmp_path / 'trace')},
    source / 'pytorch_model.bin',
    _use_new_zipfile_serialization=zipped,
  )
  with pytest.raises(errors.UserError, match='system, which is no tensor') as e:
    convert.convert(str(source), tmp_path / 'to')
  assert '\n' not in str(e.value)
  assert not (tmp_path / 'trace').exists()
  assert not list((tmp_path / 'to').iterdir())


@pytest.mark.parametrize(
  'data, expected',
  [
    (b'', 'ends too early'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'no file that torch'),
    (b'PK\x03\x04', 'cannot be read'),
  ],
)
def test_damaged_files_are_named(tmp_path, data, expected):
  source = tmp_path / 'from'
  _save(source, _model(tied=True))
  (source / 'pytorch_model.bin').write_bytes(data)
  with pytest.raises(errors.UserError, match=f'pytorch_model.bin.*{expected}'):
    convert.convert(str(source), tmp_path / 'to')


@pytest.mark.parametrize(
  'state, expected',
  [
    ([torch.ones(2)], 'a list, not named tensors'),
    ({'a': {'b': torch.ones(2)}}, "'a', which is no plain tensor"),
    ({'a': torch.ones(2).to_sparse()}, "'a', which is no plain tensor"),
  ],
)
def test_other_contents_are_refused(tmp_path, state, expected):
  torch.save(state, tmp_path / 'pytorch_model.bin')
  with pytest.raises(errors.UserError, match=expected):
    convert.convert(str(tmp_path), tmp_path / 'to')


def test_a_restart_keeps_finished_files_and_completes(tmp_path):
  source, target = tmp_path / 'from', tmp_path / 'to'
  state = _save(source, _model(tied=False), num_shards=3)
  last = source / 'pytorch_model-00003-of-00003.bin'
  data = last.read_bytes()
  last.write_bytes(data[: len(data) // 2])
  with pytest.raises(errors.UserError, match='00003-of-00003.bin cannot be'):
    convert.convert(str(source), target)
  with pytest.raises(errors.UserError, match='not a checkpoint'):
    checkpoint.open_checkpoint(str(target))
  half = target / '.tmp-model-00003-of-00003.safetensors'
  half.write_bytes(b'half')
  first = target / 'model-00001-of-00003.safetensors'
  written = first.stat().st_mtime_ns, first.stat().st_ino
  last.write_bytes(data)
  convert.convert(str(source), target)
  assert (first.stat().st_mtime_ns, first.stat().st_ino) == written
  assert not half.exists()
  _check_equal(target, state)
  checkpoint.load_decoder(str(target), jnp.float32)


def test_the_file_that_opens_a_checkpoint_comes_last(tmp_path):
  source, target = tmp_path / 'from', tmp_path / 'to'
  _save(source, _model(tied=True))
  (source / 'tokenizer_config.json').unlink()
  (source / 'tokenizer_config.json').symlink_to(tmp_path / 'lost')
  with pytest.raises(errors.UserError, match='tokenizer_config.json cannot be'):
    convert.convert(str(source), target)
  assert not (target / 'config.json').exists()


def test_a_target_with_other_weights_is_refused(tmp_path):
  source, target = tmp_path / 'from', tmp_path / 'to'
  _save(source, _model(tied=False))
  convert.convert(str(source), target)
  other = tmp_path / 'other'
  _save(other, _model(tied=True))
  with pytest.raises(errors.UserError, match='was not made from'):
    convert.convert(str(other), target)
  (target / 'model.safetensors').rename(target / 'more.safetensors')
  with pytest.raises(errors.UserError, match='more.safetensors is there'):
    convert.convert(str(source), target)


def test_sources_that_do_not_fit_their_index_are_refused(tmp_path):
  source = tmp_path / 'from'
  _save(source, _model(tied=False), num_shards=2)
  index = source / 'pytorch_model.bin.index.json'
  value = json.loads(index.read_text())
  value['weight_map']['lost.weight'] = 'pytorch_model-00001-of-00002.bin'
  index.write_text(json.dumps(value))
  with pytest.raises(errors.UserError, match='lost.weight in model-00001'):
    convert.convert(str(source), tmp_path / 'to')
  (source / 'pytorch_model-00002-of-00002.bin').unlink()
  with pytest.raises(errors.UserError, match='00002-of-00002.bin is missing'):
    convert.convert(str(source), tmp_path / 'to')
  index.write_text('{}')
  with pytest.raises(errors.UserError, match='it has no weight_map'):
    convert.convert(str(source), tmp_path / 'to')
  index.unlink()
  with pytest.raises(errors.UserError, match='neither pytorch_model.bin nor'):
    convert.convert(str(source), tmp_path / 'to')


def test_without_torch_the_extra_is_named(tmp_path, monkeypatch):
  _save(tmp_path / 'from', _model(tied=True))
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.UserError, match=r"'erp_jax\[convert\]'"):
    convert.convert(str(tmp_path / 'from'), tmp_path / 'to')
