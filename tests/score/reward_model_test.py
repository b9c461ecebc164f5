"""Reward models of each architecture against torch, from text to reward."""

import copy
import functools
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import torch
import transformers
from etils import epath
from safetensors import torch as safetensors_torch
from tokenizers import decoders, models, pre_tokenizers, processors

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.models import checkpoint, decoder
from erp_jax.sample import stage as sample
from erp_jax.score import (
  bradley_terry,
  features,
  known,
  pairs,
  preference,
  preference_reward,
  rewards,
  stage,
  train_stage,
)

torch.set_num_threads(1)  # Its spinning threads cost more than they give.

_TOLERANCE = 2e-5  # float32, rewards of a few units.
_GRM = 'GRM-Gemma-2B-rewardmodel-ft'
_SPECIAL = ['<pad>', '<eos>', '<bos>', '<start_of_turn>', '<end_of_turn>']
_PAD, _BOS = 0, 2
_LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
_VOCAB = len(_SPECIAL) + len(_LETTERS) + 3
_REWARD_TOKEN = _VOCAB - 1
_CHAT = (
  "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] +"
  " '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)
_FIELDS = {
  'vocab_size': _VOCAB,
  'hidden_size': 48,
  'intermediate_size': 80,
  'num_hidden_layers': 2,
  'num_attention_heads': 6,
  'num_key_value_heads': 2,
  'head_dim': 16,
  'max_position_embeddings': 512,
  'rms_norm_eps': 1e-5,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 5000.0},
  'bos_token_id': _BOS,
  'eos_token_id': 1,
  'pad_token_id': _PAD,
  'num_labels': 1,
  'attn_implementation': 'eager',
}
_FAMILIES = {
  'Gemma': {'num_attention_heads': 4, 'num_key_value_heads': 1},
  'Gemma2': {'sliding_window': 30, 'attn_logit_softcapping': 2.0},
  'Gemma3Text': {'sliding_window': 30, 'query_pre_attn_scalar': 9},
  'Llama': {},
  'Qwen2': {},
  'Qwen3': {},
}
_PROMPTS = (
  prompts.Prompt('a', 'What is the capital of France?', 'chat'),
  prompts.Prompt('b', 'Write a line of verse about the sea at night.', 'chat'),
  prompts.Prompt('c', '2 + 2?', 'math'),
)
_TEXTS = (
  ['Paris.', 'The capital of France is Paris, I think.', ''],
  ['The sea is dark; the moon has gone to bed.\n'],
  ['4', 'Five, if two is odd.', 'It is 4.'],
)


def _ignore(n, positions=0):
  del n, positions


def _save_tokenizer(folder, template=_CHAT):
  """Bytes and Gemma's control tokens; it puts <bos> before every text."""
  vocab = [*_SPECIAL, *_LETTERS]
  core = tokenizers.Tokenizer(
    models.BPE({token: i for i, token in enumerate(vocab)}, [])
  )
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  core.add_special_tokens(_SPECIAL)
  core.post_processor = processors.TemplateProcessing(
    single='<bos> $A', special_tokens=[('<bos>', _BOS)]
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    bos_token='<bos>',
    eos_token='<eos>',
    pad_token='<pad>',
  )
  fast.chat_template = template
  fast.save_pretrained(folder)


def _model(family, kind='ForSequenceClassification', **changes):
  """A small torch model, every parameter random."""
  fields = copy.deepcopy({**_FIELDS, **_FAMILIES[family], **changes})
  config = getattr(transformers, f'{family}Config')(**fields)
  model = getattr(transformers, family + kind)(config)
  torch.manual_seed(0)
  model = model.eval().requires_grad_(False)
  for name, value in model.named_parameters():
    mean = 1.0 if 'norm' in name and 'Gemma' not in family else 0.0
    value.normal_(mean, 0.15)
  return model


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A function from a family to its torch model and the saved folder."""

  @functools.cache
  def save(family):
    folder = tmp_path_factory.mktemp('models') / family
    model = _model(family)
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return model, folder

  return save


@pytest.fixture(scope='module')
def grm(saved, tmp_path_factory):
  """Gemma's torch model, and a copy of its folder under the name of GRM."""
  model, folder = saved('Gemma')
  copied = tmp_path_factory.mktemp('hub') / _GRM
  shutil.copytree(folder, copied)
  return model, copied


@pytest.fixture(scope='module')
def internlm(saved, tmp_path_factory):
  """Llama's torch model, and its weights as internlm2-7b-reward has them."""
  model, llama = saved('Llama')
  folder = tmp_path_factory.mktemp('internlm')
  _save_tokenizer(folder)
  state = model.state_dict()
  G, W = _FIELDS['num_key_value_heads'], _FIELDS['head_dim']
  out = {
    'model.tok_embeddings.weight': state['model.embed_tokens.weight'],
    'model.norm.weight': state['model.norm.weight'],
    'v_head.weight': state['score.weight'],
  }
  for i in range(_FIELDS['num_hidden_layers']):
    ours, theirs = f'model.layers.{i}.', f'model.layers.{i}.'
    by_head = [
      state[f'{theirs}self_attn.{x}_proj.weight'].reshape(G, -1, W, 48)
      for x in 'qkv'
    ]
    out[f'{ours}attention.wqkv.weight'] = torch.cat(by_head, 1).reshape(-1, 48)
    for name, other in (
      ('attention.wo', 'self_attn.o_proj'),
      ('attention_norm', 'input_layernorm'),
      ('ffn_norm', 'post_attention_layernorm'),
      ('feed_forward.w1', 'mlp.gate_proj'),
      ('feed_forward.w3', 'mlp.up_proj'),
      ('feed_forward.w2', 'mlp.down_proj'),
    ):
      out[f'{ours}{name}.weight'] = state[f'{theirs}{other}.weight']
  safetensors_torch.save_file(
    {name: value.contiguous() for name, value in out.items()},
    folder / 'model.safetensors',
  )
  kept = (
    *('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers'),
    *('num_attention_heads', 'num_key_value_heads', 'head_dim'),
    *('max_position_embeddings', 'rms_norm_eps', 'bos_token_id'),
    *('eos_token_id', 'pad_token_id'),
  )
  config = {name: _FIELDS[name] for name in kept} | {
    'architectures': ['InternLM2ForRewardModel'],
    'auto_map': {'AutoModel': 'modeling_internlm2.InternLM2ForRewardModel'},
    'model_type': 'internlm2',
    'bias': False,
    'hidden_act': 'silu',
    'rope_theta': 5000.0,
    'rope_scaling': {'type': 'dynamic', 'factor': 2.0},
    'tie_word_embeddings': False,
    'reward_token_id': _REWARD_TOKEN,
  }
  (folder / 'config.json').write_text(json.dumps(config))
  return model, folder


def _score(folder, which=_PROMPTS, texts=_TEXTS, **fields):
  fields = {'dtype': 'float32', **fields}
  cfg = rewards.RewardConfig(kind='reward_model', model=str(folder), **fields)
  return rewards.scorer(cfg)(which, texts, _ignore)


def _read_as(folder, **fields):
  cfg = rewards.RewardConfig(kind='reward_model', model=str(folder), **fields)
  return rewards.identity(cfg)['read_as']


def _ids(folder, doubled=False):
  """Ids of every conversation, by transformers."""
  fast = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
  rows = []
  for prompt, responses in zip(_PROMPTS, _TEXTS, strict=True):
    for text in responses:
      conversation = [
        {'role': 'user', 'content': prompt.prompt},
        {'role': 'assistant', 'content': text},
      ]
      rendered = fast.apply_chat_template(conversation, tokenize=False)
      rows.append(fast(rendered, add_special_tokens=doubled)['input_ids'])
  return rows


def _torch_scores(model, rows, side):
  """Scores of one padded batch."""
  size = max(map(len, rows))
  token_BT = np.full((len(rows), size), _PAD)
  valid_BT = np.zeros((len(rows), size), int)
  for b, row in enumerate(rows):
    at = slice(len(row)) if side == 'right' else slice(size - len(row), size)
    token_BT[b, at], valid_BT[b, at] = row, 1
  out = model(torch.tensor(token_BT), attention_mask=torch.tensor(valid_BT))
  return out.logits[:, 0].numpy()


def _check(scored, model, rows):
  got = np.concatenate(scored.rewards)
  assert [len(reward_K) for reward_K in scored.rewards] == [3, 1, 3]
  assert got.dtype == np.float32
  for side in ('right', 'left'):
    want = _torch_scores(model, rows, side)
    assert want.std() > 0.05
    np.testing.assert_allclose(got, want, rtol=0, atol=_TOLERANCE)


@pytest.mark.parametrize(
  'family',
  [
    *('Llama', 'Gemma', 'Gemma2'),
    *(
      pytest.param(family, marks=pytest.mark.slow)
      for family in ('Gemma3Text', 'Qwen2', 'Qwen3')
    ),
  ],
)
def test_scores_equal_torchs_padded_batch(family, saved):
  model, folder = saved(family)
  scored = _score(folder)
  _check(scored, model, _ids(folder))
  assert scored.num_cut == 0


def test_grm_is_known_to_read_two_beginnings(grm, saved):
  model, folder = grm
  _check(_score(folder), model, _ids(folder, doubled=True))
  assert _ids(folder, doubled=True)[0][:3] == [_BOS, _BOS, 3]
  _check(_score(folder, bos='template'), model, _ids(folder))
  assert _read_as(folder)['convention']['bos'] == 'doubled'
  assert _read_as(saved('Gemma')[1])['convention']['bos'] == 'template'
  for name in ('Ray2333/' + _GRM, f'Ray2333/{_GRM}@0f3a', f'/models/{_GRM}/'):
    assert known.bos(name) == 'doubled'
  assert known.bos('Skywork/Skywork-Reward-Llama-3.1-8B') == 'template'


def test_what_is_too_long_loses_what_follows_the_beginning(grm):
  model, folder = grm
  rows = _ids(folder, doubled=True)
  limit = sorted(map(len, rows))[3]
  scored = _score(folder, max_tokens=limit)
  cut = [
    row if len(row) <= limit else [_BOS, _BOS, *row[2 - limit :]]
    for row in rows
  ]
  assert {len(row) for row in cut if len(row) != limit}
  _check(scored, model, cut)
  assert scored.num_cut == sum(len(row) > limit for row in rows) == 3


def test_internlm2_is_read_at_its_reward_token(internlm):
  model, folder = internlm
  rows = [[*row, _REWARD_TOKEN] for row in _ids(folder)]
  _check(_score(folder), model, rows)
  assert _read_as(folder)['convention']['end_ids'] == (_REWARD_TOKEN,)
  # Truncation keeps it too.
  limit = sorted(map(len, rows))[3]
  scored = _score(folder, max_tokens=limit)
  assert scored.num_cut == 3
  cut = [
    row if len(row) <= limit else [_BOS, *row[1 - limit :]] for row in rows
  ]
  _check(scored, model, cut)


def test_a_token_that_is_already_last_is_not_appended(internlm, tmp_path):
  model, folder = internlm
  shutil.copytree(folder, tmp_path / 'a')
  config = json.loads((folder / 'config.json').read_text())
  newline = len(_SPECIAL) + _LETTERS.index('Ċ')  # The template's last.
  config['reward_token_id'] = newline
  (tmp_path / 'a' / 'config.json').write_text(json.dumps(config))
  rows = _ids(folder)
  assert rows[0][-1] == newline
  _check(_score(tmp_path / 'a'), model, rows)
  # Without the field it is that of the published model, which is not here.
  del config['reward_token_id']
  (tmp_path / 'a' / 'config.json').write_text(json.dumps(config))
  with pytest.raises(errors.UserError, match='is 92527, but it has 264 tokens'):
    _read_as(tmp_path / 'a')


def test_sharing_a_prompt_equals_scoring_each_response_alone(saved):
  _, folder = saved('Llama')
  cfg = rewards.RewardConfig(
    kind='reward_model', model=str(folder), dtype='float32'
  )
  score = rewards.scorer(cfg)
  told = []
  tell = lambda n, positions: told.append(positions)
  together = np.concatenate(score(_PROMPTS, _TEXTS, tell).rewards)
  shared = sum(told)
  each = [
    (prompt, [text])
    for prompt, texts in zip(_PROMPTS, _TEXTS, strict=True)
    for text in texts
  ]
  told.clear()
  apart = score(*zip(*each, strict=True), tell).rewards
  np.testing.assert_allclose(np.concatenate(apart), together, rtol=0, atol=1e-5)
  # Apart, every token is read; together, what a prompt's rows share is once.
  rows = iter(_ids(folder))
  counts = []
  for texts in _TEXTS:
    of_prompt = [next(rows) for _ in texts]
    same = [len(set(ids)) == 1 for ids in zip(*of_prompt, strict=False)]
    num = [*same, False].index(False)
    num = min(num, min(map(len, of_prompt)) - 1)
    counts.append((sum(map(len, of_prompt)), num * (len(texts) - 1)))
  read, spared = np.sum(counts, axis=0)
  assert sum(told) == read
  assert shared == read - spared < read
  # In a batch of its own, too.
  (alone,) = score(*zip(each[3], strict=True), tell).rewards
  np.testing.assert_allclose(alone, together[3:4], rtol=0, atol=1e-5)


def test_padding_side_and_length_change_nothing(saved):
  _, folder = saved('Gemma2')  # It has windows.
  cfg, weights, _ = checkpoint.load_decoder(str(folder), jnp.float32)
  want = np.concatenate(_score(folder).rewards)
  rows = _ids(folder)

  @jax.jit
  def score(token_PKT, position_PKT, visible_PKTS):
    P, K, T = token_PKT.shape
    cache = decoder.empty_cache(cfg, P, K, T, jnp.float32)
    args = (token_PKT, position_PKT, None, cache, 0, visible_PKTS)
    hidden_PKTD, _ = decoder.extend(weights, cfg, *args)
    return decoder.score(weights, hidden_PKTD)[:, 0, :, 0]

  size = max(map(len, rows)) + 17
  junk = np.random.default_rng(0).integers(0, _VOCAB, (len(rows), 1, size))
  for left in (False, True):
    token_PKT, ends = junk.copy(), []
    start_P = np.array([(size - len(row)) * left for row in rows])
    for p, row in enumerate(rows):
      token_PKT[p, 0, start_P[p] : start_P[p] + len(row)] = row
      ends.append(start_P[p] + len(row) - 1)
    at_T = np.arange(size)
    position_PKT = (at_T - start_P[:, None])[:, None].clip(0)
    visible_PKTS = np.tri(size, dtype=bool) & (
      at_T >= start_P[:, None, None, None]
    )
    score_PT = score(token_PKT, position_PKT, visible_PKTS)
    got = np.asarray(score_PT)[np.arange(len(rows)), ends]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_int8_weights_give_near_scores(saved):
  _, folder = saved('Llama')
  exact = np.concatenate(_score(folder).rewards)
  got = np.concatenate(_score(folder, dtype='int8').rewards)
  assert got.dtype == np.float32
  worst = np.abs(got - exact).max() / np.abs(exact).max()
  assert 1e-4 < worst < 0.1
  assert _read_as(folder, dtype='int8')['dtype'] == 'int8'
  assert _read_as(folder)['dtype'] == 'bfloat16'


def test_a_stray_language_model_head_is_ignored(saved, tmp_path):
  _, folder = saved('Llama')
  shutil.copytree(folder, tmp_path / 'a')
  file = tmp_path / 'a' / 'model.safetensors'
  tensors = safetensors_torch.load_file(file)
  tensors['lm_head.weight'] = torch.ones(_VOCAB, 48)
  safetensors_torch.save_file(tensors, file)
  for got, want in zip(
    _score(tmp_path / 'a').rewards, _score(folder).rewards, strict=True
  ):
    np.testing.assert_array_equal(got, want)


def _break(folder, tmp_path, change):
  shutil.copytree(folder, tmp_path / 'a')
  change(tmp_path / 'a')
  return tmp_path / 'a'


def _value_head(folder):
  file = folder / 'model.safetensors'
  tensors = safetensors_torch.load_file(file)
  del tensors['score.weight']
  tensors['lm_head.weight'] = torch.ones(_VOCAB, 48)
  for i in (0, 2):
    tensors[f'v_head.summary.{i}.weight'] = torch.ones(48, 48)
  safetensors_torch.save_file(tensors, file)


def _language_model(folder):
  _model('Llama', 'ForCausalLM').save_pretrained(folder)


def _three_labels(folder):
  _model('Llama', num_labels=3).save_pretrained(folder)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (_value_head, r'holds v_head.summary.0.weight, .* rewardmodel-ft'),
    (_language_model, 'LlamaForCausalLM and has 0 scores.* relevance or judge'),
    (_three_labels, 'LlamaForSequenceClassification and has 3 scores'),
  ],
)
def test_checkpoints_without_one_score_are_named(
  change, message, saved, tmp_path
):
  folder = _break(saved('Llama')[1], tmp_path, change)
  with pytest.raises(errors.UserError, match=message):
    _score(folder)


def test_what_cannot_be_read_is_refused(saved, deberta, tmp_path):
  _, folder = saved('Llama')
  plain = _break(
    folder,
    tmp_path,
    lambda a: _save_tokenizer(a, _CHAT[len('{{ bos_token }}') :]),
  )
  for fields, message in (
    ({'model': plain, 'bos': 'doubled'}, 'writes no beginning of text'),
    ({'model': folder, 'max_tokens': 513}, 'is 513, .* the 512 positions'),
    ({'model': folder, 'max_tokens': 7}, 'max_tokens is 7, but must be from 8'),
    ({'model': folder, 'pair': 'joined'}, "pair is 'joined', but a decoder"),
    ({'model': deberta, 'bos': 'doubled'}, "bos is 'doubled', but Deberta"),
    ({'model': deberta, 'dtype': 'bfloat16'}, "needs 'float32'"),
    ({'model': 'package:smollm2-135m-instruct'}, 'a GGUF file, which has no'),
    ({'model': folder, 'kind': 'judge'}, "set rewards.NAME.kind='reward_model"),
  ):
    fields = {'kind': 'reward_model', **fields, 'model': str(fields['model'])}
    with pytest.raises(errors.UserError, match=message):
      rewards.scorer(rewards.RewardConfig(**fields))


@pytest.fixture(scope='module')
def deberta(tmp_path_factory):
  """The folder of a random DeBERTa reward model over letters."""
  folder = tmp_path_factory.mktemp('deberta')
  pieces = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', *'abcdefghijklmnopqrstuvwxyz▁']
  core = tokenizers.Tokenizer(
    models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3)
  )
  core.add_special_tokens(pieces[:4])
  core.pre_tokenizer = pre_tokenizers.Metaspace()
  core.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 1), ('[SEP]', 2)]
  )
  core.save(str(folder / 'tokenizer.json'))
  config = transformers.DebertaV2Config(
    vocab_size=len(pieces),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    relative_attention=True,
    position_buckets=8,
    share_att_key=True,
    pos_att_type=['p2c', 'c2p'],
    norm_rel_ebd='layer_norm',
    position_biased_input=False,
    num_labels=1,
  )
  torch.manual_seed(0)
  model = transformers.DebertaV2ForSequenceClassification(config)
  model.requires_grad_(False)
  for param in model.parameters():
    param.normal_(0, 0.5)
  model.save_pretrained(folder)
  return folder


@pytest.fixture(scope='module')
def trained(saved, tmp_path_factory):
  """A workdir in which a reward model was trained on a decoder's states."""
  path = tmp_path_factory.mktemp('trained')
  rows = [
    {'prompt': f'q{i}', 'chosen': f'yes {i}', 'rejected': f'no {i}'}
    for i in range(12)
  ]
  file = path / 'pairs.jsonl'
  file.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  workdir = workdir_lib.Workdir(epath.Path(path / 'run'), {'versions': {}})
  train_stage.run(
    workdir,
    train_stage.TrainRewardConfig(
      pairs=preference.PairsConfig(path=str(file)),
      features=features.FeatureConfig(model=str(saved('Llama')[1])),
      train=bradley_terry.TrainConfig(epochs=2),
    ),
  )
  return path / 'run'


def test_the_stage_scores_counts_and_records_how(
  saved, deberta, trained, tmp_path, caplog
):
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  arm = arms.Arm(model=str(saved('Qwen3')[1]))
  made = sample.artifact(workdir, 'x', arm, _PROMPTS, sample.SampleConfig())
  rows = [
    {'prompt_id': prompt.id, 'k': k, 'arm': 'x', 'text': text}
    for prompt, texts in zip(_PROMPTS, _TEXTS, strict=True)
    for k, text in enumerate(texts)
  ]
  with workdir.writer(made) as writer:
    writer.write_shard(0, pa.Table.from_pylist(rows))
    writer.finish()
  _, llama = saved('Llama')
  config = functools.partial(rewards.RewardConfig, kind='reward_model')
  cfgs = {
    'decoder': config(model=str(llama), dtype='float32', max_tokens=60),
    'pair': config(model=str(deberta), max_tokens=40),
    'trained': config(kind='preference', model=str(trained)),
  }
  with caplog.at_level(logging.WARNING, 'erp_jax'):
    stage.run(workdir, cfgs, {'x': arm}, _PROMPTS)
  texts = [prompt.prompt for prompt in _PROMPTS]
  pair_scorer = pairs.load(str(deberta), max_tokens=40)
  trained_scorer = preference_reward.load(trained)
  decoder_scored = _score(llama, max_tokens=60)
  want = {
    'decoder': decoder_scored.rewards,
    'pair': pair_scorer.score(texts, _TEXTS),
    'trained': trained_scorer.score(texts, _TEXTS),
  }
  num_cut = {
    'decoder': decoder_scored.num_cut,
    'pair': pair_scorer.num_cut,
    'trained': 0,
  }
  assert num_cut['decoder'] and num_cut['pair']
  for name in cfgs:
    folder = workdir.path / 'rewards' / name / 'x'
    table = store.read_table(folder)
    assert table['prompt_id'].to_pylist() == [row['prompt_id'] for row in rows]
    np.testing.assert_allclose(
      table['reward'], np.concatenate(want[name]), rtol=0, atol=1e-5
    )
    counts = store.read_manifest(folder)['counts']
    assert counts['truncated'] == num_cut[name] and counts['non_finite'] == 0
    warned = f'score {name}/x: {num_cut[name]} responses were read in part'
    assert any(warned in m for m in caplog.messages) == bool(num_cut[name])
  read = lambda name: store.read_manifest(
    workdir.path / 'rewards' / name / 'x'
  )['identity']['reward']
  convention = {'bos': 'template', 'end_ids': [], 'max_tokens': 60}
  assert read('decoder')['read_as'] == {
    'dtype': 'float32',
    'convention': convention,
  }
  assert read('pair')['read_as'] == {
    'dtype': 'float32',
    'pair': 'pair',
    'max_tokens': 40,
  }
  assert read('trained')['revision'] == preference_reward.revision(trained)
