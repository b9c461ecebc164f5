"""Checkpoints on disk against transformers, and real SmolLM2 weights."""

import hashlib
import json
import logging
import os
import shutil

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from erp_jax.core import errors
from erp_jax.models import cache as cache_lib
from erp_jax.models import checkpoint, decoder, decoder_weights, params

torch.set_num_threads(1)  # Its spinning threads cost more than they give.

prefill = jax.jit(decoder.prefill, static_argnums=1)
extend = jax.jit(decoder.extend, static_argnums=1, donate_argnums=5)

TOKEN_PT = np.random.default_rng(0).integers(0, 97, (2, 20))


@pytest.fixture(scope='module', params=[False, True], ids=['untied', 'tied'])
def model(request):
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=97,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=request.param,
  )
  model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
  for name, value in model.named_parameters():
    value.normal_(1.0 if 'norm' in name else 0.0, 0.15)
  return model


@pytest.fixture(scope='module')
def folder(model, tmp_path_factory):
  path = tmp_path_factory.mktemp('whole')
  model.save_pretrained(path)
  return path


def _check_logits(model, cfg, weights):
  hidden_PTD, _ = prefill(weights, cfg, jnp.asarray(TOKEN_PT))
  want_PTV = model(torch.tensor(TOKEN_PT)).logits.numpy()
  got_PTV = decoder.logits(weights, cfg, hidden_PTD)
  np.testing.assert_allclose(got_PTV, want_PTV, rtol=0, atol=2e-5)


def test_saved_folder_loads_unchanged(model, folder, caplog):
  with caplog.at_level(logging.INFO, 'erp_jax'):
    cfg, weights, opened = checkpoint.load_decoder(str(folder), jnp.float32)
  num = model.num_parameters() / 1e6
  (line,) = caplog.messages
  assert line.startswith(f'Loaded {folder}: {num:.1f} M parameters in float32')
  assert cfg.tied == model.config.tie_word_embeddings
  assert opened.path == folder
  _check_logits(model, cfg, weights)


def test_sharded_folder_loads_the_same_weights(model, folder, tmp_path):
  model.save_pretrained(tmp_path, max_shard_size='100KB')
  assert len(list(tmp_path.glob('*.safetensors'))) > 2
  _, whole, _ = checkpoint.load_decoder(str(folder), jnp.float32)
  _, sharded, _ = checkpoint.load_decoder(str(tmp_path), jnp.float32)
  jax.tree.map(np.testing.assert_array_equal, whole, sharded)
  next(tmp_path.glob('model-00002*')).unlink()
  with pytest.raises(errors.UserError, match='model-00002.*cannot be read'):
    checkpoint.open_checkpoint(str(tmp_path))


def _write_gguf(path, model):
  """As llama.cpp's converter does: q and k rows permuted for its RoPE."""
  config = model.config
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_block_count(config.num_hidden_layers)
  writer.add_context_length(config.max_position_embeddings)
  writer.add_embedding_length(config.hidden_size)
  writer.add_feed_forward_length(config.intermediate_size)
  writer.add_head_count(config.num_attention_heads)
  writer.add_head_count_kv(config.num_key_value_heads)
  writer.add_layer_norm_rms_eps(config.rms_norm_eps)
  writer.add_rope_freq_base(10000.0)
  writer.add_token_list([f'<{i}>' for i in range(config.vocab_size)])
  names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
  for name, value in model.state_dict().items():
    tensor = value.numpy()
    if name == 'lm_head.weight' and config.tie_word_embeddings:
      continue
    if '.q_proj.' in name or '.k_proj.' in name:
      heads = tensor.shape[0] // 16
      tensor = tensor.reshape(heads, 2, 8, -1).swapaxes(1, 2)
      tensor = np.ascontiguousarray(tensor).reshape(value.shape)
    name = names.get_name(name, try_suffixes=('.weight',))
    writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def test_gguf_loads_the_weights_it_was_written_from(model, folder, tmp_path):
  path = tmp_path / 'model.gguf'
  _write_gguf(path, model)
  whole, weights, _ = checkpoint.load_decoder(str(folder), jnp.float32)
  cfg, found, opened = checkpoint.load_decoder(str(tmp_path), jnp.float32)
  assert opened.path == path and len(opened.revision) == 64
  assert (cfg.vocab_size, cfg.tied) == (97, whole.tied)
  jax.tree.map(np.testing.assert_array_equal, weights, found)
  _check_logits(model, cfg, found)
  data = path.read_bytes()
  for size, message in ((len(data) - 9, 'cut short: tensor'), (100, 'header')):
    path.write_bytes(data[:size])
    with pytest.raises(errors.UserError, match=message):
      checkpoint.open_checkpoint(str(path))
  path.write_bytes(b'GGML' + data[4:])
  with pytest.raises(errors.UserError, match="starts with b'GGML'"):
    checkpoint.open_checkpoint(str(path))
  path.write_bytes(b'')
  with pytest.raises(errors.UserError, match='model.gguf is empty: fetch'):
    checkpoint.open_checkpoint(str(path))


def test_gguf_tensors_of_other_types_are_named(tmp_path):
  path = tmp_path / 'model.gguf'
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_tensor('odd', np.zeros(32, np.int32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  opened = checkpoint.open_checkpoint(str(path))
  with pytest.raises(
    errors.UserError, match='model.gguf has tensor odd of .*I32'
  ):
    np.asarray(opened.tensors['odd'])
  data = path.read_bytes()
  at = data.index(b'odd') + 3 + 4 + 8  # After the name, its rank and its size.
  path.write_bytes(data[:at] + (999).to_bytes(4, 'little') + data[at + 4 :])
  with pytest.raises(errors.UserError, match='tensor odd of unknown type 999'):
    checkpoint.open_checkpoint(str(path))


def test_a_gguf_file_is_hashed_again_only_when_it_changed(tmp_path):
  path = tmp_path / 'model.gguf'
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_name('a')
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  first = checkpoint.open_checkpoint(str(path)).revision
  data, stat = path.read_bytes(), path.stat()
  assert first == hashlib.sha256(data).hexdigest()
  # The change that cannot be seen shows that the bytes are not read again.
  path.write_bytes(data[:-1] + b'b')
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
  assert checkpoint.open_checkpoint(str(path)).revision == first
  os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
  assert checkpoint.open_checkpoint(str(path)).revision != first


def test_revision_is_of_the_content_not_of_the_place(folder, tmp_path):
  first = checkpoint.open_checkpoint(str(folder)).revision
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)
  assert checkpoint.open_checkpoint(str(copy)).revision == first
  config = json.loads((copy / 'config.json').read_text())
  (copy / 'config.json').write_text(json.dumps({**config, 'note': 1}))
  second = checkpoint.open_checkpoint(str(copy)).revision
  (copy / 'model.safetensors').rename(copy / 'other.safetensors')
  third = checkpoint.open_checkpoint(str(copy)).revision
  assert len({first, second, third}) == 3


def test_revision_is_of_every_small_file(folder, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)

  def revision():
    return checkpoint.open_checkpoint(str(copy)).revision

  config = copy / 'generation_config.json'
  config.write_text('{"eos_token_id": 2}')
  seen = [revision()]
  config.write_text('{"eos_token_id": 3}')
  seen.append(revision())
  for name in (
    *('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'),
    *('modules.json', '1_Pooling/config.json', 'sentence_bert_config.json'),
    *('vocab.txt', 'tokenizer.model'),
  ):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text('1')
    seen.append(revision())
  (copy / 'vocab.txt').rename(copy / 'merges.txt')
  seen.append(revision())
  assert len(set(seen)) == len(seen)
  # When and by whom it was unpacked, and what nothing reads.
  for name in ('stamp.json', 'README.md'):
    (copy / name).write_text('1')
    assert revision() == seen[-1]


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ((), 'holds no weights'),
    (
      ('pytorch_model.bin',),
      r'weights only.* launch.convert --from=(\S+) --to=\1-safetensors and',
    ),
    (('a.gguf', 'b.gguf'), r'2 GGUF files \(a\.gguf, b\.gguf\): name one'),
    (('model.safetensors',), 'is not a checkpoint: a folder with config.json'),
    (('config.json', 'model.safetensors'), 'cannot be read'),
    (('config.json', 'a.safetensors', 'b.safetensors'), 'fetch the index'),
  ],
)
def test_unusable_folders_are_named(tmp_path, names, message):
  for name in names:
    (tmp_path / name).write_bytes(b'')
  with pytest.raises(errors.UserError, match=message):
    checkpoint.open_checkpoint(str(tmp_path))


def test_damaged_config_is_named(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'copy')
  (tmp_path / 'copy' / 'config.json').write_text('{"architectures":')
  with pytest.raises(errors.UserError, match='config.json is not valid JSON'):
    checkpoint.open_checkpoint(str(tmp_path / 'copy'))


def test_names_of_nothing_are_refused():
  with pytest.raises(errors.UserError, match='no folder or file here'):
    checkpoint.open_checkpoint('/nowhere/at/all')
  # The hub is offline in tests: one sentence, with what was tried.
  with pytest.raises(errors.UserError) as caught:
    checkpoint.open_checkpoint('org/name')
  message = str(caught.value)
  assert "'org/name'" in message and 'huggingface' in message
  assert 'package:' in message and '\n' not in message


# SmolLM2-135M-Instruct's own template (MODELS.md 2.6 of the design notes).
CHAT = (
  '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by '
  'Hugging Face<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n'
  '<|im_start|>assistant\n'
)
QUESTIONS = (
  'What is the capital of France?',
  'What is 2+2?',
  'Write a haiku about rain.',
  'List three prime numbers.',
  'Why is the sky blue?',
  'Translate "good morning" into Spanish.',
  'Write a Python function that reverses a list.',
  'Who wrote Hamlet?',
  'Give me a recipe for pancakes.',
  'What is 17 times 6?',
  'Explain photosynthesis to a child.',
  'Name a country in Africa.',
  'Is a tomato a fruit?',
  'Tell me a joke about cats.',
  'What does HTTP stand for?',
  'Suggest a name for a bakery.',
  'How many legs do four spiders have?',
  'Summarise the story of Cinderella in one sentence.',
  'What is the largest planet?',
  'Sort these: pear, apple, fig.',
)


@pytest.fixture(scope='module')
def smollm2(smollm2_dir):
  """Reference model, prompts' ids, and our config and weights."""
  file = next(smollm2_dir.glob('*.gguf')).name
  reference = transformers.AutoModelForCausalLM.from_pretrained(
    smollm2_dir, gguf_file=file, dtype=torch.float32
  )
  tokenizer = transformers.AutoTokenizer.from_pretrained(
    smollm2_dir, gguf_file=file
  )
  ids = [
    tokenizer(CHAT.format(question), add_special_tokens=False)['input_ids']
    for question in QUESTIONS
  ]
  cfg, weights, _ = checkpoint.load_decoder(str(smollm2_dir), jnp.float32)
  return reference.eval().requires_grad_(False), tokenizer, ids, cfg, weights


@pytest.mark.slow
def test_smollm2_logits_agree_with_transformers(smollm2):
  reference, tokenizer, ids, cfg, weights = smollm2
  assert params.count(decoder_weights.declare(cfg)) == 134_515_008
  assert cfg.vocab_size == 49152 == len(tokenizer)  # No id is out of its range.
  size = max(len(row) for row in ids[:4])
  token_PT = np.array([row + [2] * (size - len(row)) for row in ids[:4]])
  hidden_PTD, _ = prefill(weights, cfg, jnp.asarray(token_PT))
  logits_PTV = decoder.logits(weights, cfg, hidden_PTD)
  for got_TV, row in zip(logits_PTV, ids, strict=False):
    want_TV = reference(torch.tensor([row])).logits[0].numpy()
    np.testing.assert_allclose(got_TV[: len(row)], want_TV, rtol=0, atol=2e-4)


def _greedy(cfg, weights, ids, num_steps):
  """Greedy continuations [P, num_steps] by prefix and suffix cache."""
  len_P = np.array([len(row) for row in ids])
  token_PT = np.full((len(ids), len_P.max()), 2)
  for row, prompt in zip(token_PT, ids, strict=True):
    row[: len(prompt)] = prompt
  hidden_PTD, cache = prefill(weights, cfg, jnp.asarray(token_PT))
  prefix = cache_lib.as_prefix(cache, jnp.asarray(len_P), len_P.max())
  suffix = decoder.empty_cache(cfg, len(ids), 1, num_steps, jnp.float32)
  last_PD = hidden_PTD[np.arange(len(ids)), len_P - 1]
  head = jax.jit(decoder.logits, static_argnums=1)
  chosen = []
  for i in range(num_steps):
    chosen.append(jnp.argmax(head(weights, cfg, last_PD), axis=-1))
    seen_PKTS = jnp.broadcast_to(
      jnp.arange(num_steps) <= i, (len(ids), 1, 1, num_steps)
    )
    token_PKT = chosen[-1][:, None, None]
    position_PKT = jnp.asarray(len_P + i)[:, None, None]
    hidden_PKTD, suffix = extend(
      weights, cfg, token_PKT, position_PKT, prefix, suffix, i, seen_PKTS
    )
    last_PD = hidden_PKTD[:, 0, 0]
  return np.stack(chosen, axis=1)


@pytest.mark.slow
def test_smollm2_greedy_text_equals_transformers(smollm2):
  reference, tokenizer, ids, cfg, weights = smollm2
  padded = tokenizer.pad({'input_ids': ids}, padding_side='left')
  want = reference.generate(
    torch.tensor(padded['input_ids']),
    attention_mask=torch.tensor(padded['attention_mask']),
    max_new_tokens=32,
    do_sample=False,
    pad_token_id=2,
    eos_token_id=2,
  )[:, -32:].numpy()
  got = _greedy(cfg, weights, ids, want.shape[1])
  for got_T, want_T, question in zip(got, want, QUESTIONS, strict=True):
    ends = np.flatnonzero(want_T == 2)
    stop = ends[0] + 1 if ends.size else len(want_T)
    np.testing.assert_array_equal(got_T[:stop], want_T[:stop], question)
  assert tokenizer.decode(got[0][:8]).startswith(
    'The capital of France is Paris.<|im_end|>'
  )
