"""A vendor's sampling settings, read from files as transformers writes them."""

import json
import logging
import pathlib

import pytest
import transformers

from erp_jax.core import errors
from erp_jax.models import checkpoint, generation_config


def _opened(path):
  return checkpoint.Checkpoint('some/model', pathlib.Path(path), 'r', {}, {})


def _read(folder, **values):
  (folder / 'generation_config.json').write_text(json.dumps(values))
  return generation_config.read(_opened(folder))


@pytest.mark.parametrize(
  'values',
  [
    {'do_sample': True, 'temperature': 0.6, 'top_p': 0.9},  # As Llama 3.1's.
    {'do_sample': True, 'temperature': 0.7, 'top_k': 20, 'top_p': 0.8},
    {'do_sample': True, 'top_k': 64, 'top_p': 0.95},  # As Gemma 3's.
  ],
)
def test_reads_what_transformers_wrote(tmp_path, values):
  written = transformers.GenerationConfig(eos_token_id=[4, 5], **values)
  written.save_pretrained(tmp_path)
  found = generation_config.read(_opened(tmp_path))
  assert found.temperature == values.get('temperature', 1.0)
  assert found.top_p == values.get('top_p', 1.0)
  # Transformers leaves its own default of 50 out where nothing was said.
  assert found.top_k == values.get('top_k', 0)
  assert not found.not_applied


def test_what_is_not_named_is_plain(tmp_path):
  plain = generation_config.Settings()
  assert _read(tmp_path, eos_token_id=1) == plain
  assert _read(tmp_path, temperature=None, top_k=None, top_p=None) == plain
  assert _read(tmp_path, temperature=2) == (
    generation_config.Settings(temperature=2.0)
  )


def test_do_sample_false_is_greedy(tmp_path):
  assert _read(tmp_path, do_sample=False, temperature=0.6).temperature == 0
  assert _read(tmp_path, do_sample=True, temperature=0.6).temperature == 0.6


def test_what_is_not_applied_is_said_and_kept(tmp_path, caplog):
  with caplog.at_level(logging.WARNING):
    found = _read(tmp_path, top_k=20, repetition_penalty=1.05, min_p=0.0)
  assert found.not_applied == {'repetition_penalty': 1.05}
  assert 'repetition_penalty 1.05 too, which is not applied' in caplog.text


@pytest.mark.parametrize(
  ('values', 'match'),
  [
    ({'temperature': -1}, 'has temperature -1, but it must be a number >= 0'),
    ({'temperature': 'hot'}, "has temperature 'hot'"),
    ({'temperature': True}, 'has temperature True'),
    ({'top_k': 0.5}, 'has top_k 0.5, but it must be a whole number >= 0'),
    ({'top_k': -1}, 'has top_k -1'),
    ({'top_p': 0}, r'has top_p 0, but it must be a number in \(0, 1\]'),
    ({'top_p': 1.5}, 'has top_p 1.5'),
  ],
)
def test_a_bad_value_is_named(tmp_path, values, match):
  with pytest.raises(errors.UserError, match=match):
    _read(tmp_path, **values)


def test_a_checkpoint_that_says_nothing_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="'some/model', which has no gen"):
    generation_config.read(_opened(tmp_path))
  with pytest.raises(errors.UserError, match='a GGUF file, which does not say'):
    generation_config.read(_opened(tmp_path / 'model.gguf'))
