"""Reward models of each architecture against torch, from text to reward."""

import copy
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors import torch as safetensors_torch

from erp_jax.core import errors
from erp_jax.data import prompts
from erp_jax.models import checkpoint, decoder
from erp_jax.score import conversations, rewards

torch.set_num_threads(1)  # Its spinning threads cost more than they give.

_TOLERANCE = 2e-5  # float32, rewards of a few units.
_GRM = 'GRM-Gemma-2B-rewardmodel-ft'
_PAD, _BOS = 0, 2
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


@pytest.fixture(scope='module')
def grm(saved, tmp_path_factory):
  """Gemma's torch model, and a copy of its folder under the name of GRM."""
  model, folder = saved('Gemma')
  copied = tmp_path_factory.mktemp('hub') / _GRM
  shutil.copytree(folder, copied)
  return model, copied


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
      for family in ('Gemma3Text', 'Qwen2', 'Qwen3', 'Qwen3Moe')
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
    assert conversations.known_bos(name) == 'doubled'
  name = 'Skywork/Skywork-Reward-Llama-3.1-8B'
  assert conversations.known_bos(name) == 'template'


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
  reward_id = json.loads((folder / 'config.json').read_text())[
    'reward_token_id'
  ]
  rows = [[*row, reward_id] for row in _ids(folder)]
  _check(_score(folder), model, rows)
  assert _read_as(folder)['convention']['end_ids'] == (reward_id,)
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
  rows = _ids(folder)
  config['reward_token_id'] = rows[0][-1]  # The template's newline.
  (tmp_path / 'a' / 'config.json').write_text(json.dumps(config))
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
  junk = np.random.default_rng(0).integers(
    0, cfg.vocab_size, (len(rows), 1, size)
  )
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
  tensors['lm_head.weight'] = torch.ones(264, 48)
  safetensors_torch.save_file(tensors, file)
  for got, want in zip(
    _score(tmp_path / 'a').rewards, _score(folder).rewards, strict=True
  ):
    np.testing.assert_array_equal(got, want)


def _value_head(folder, config):
  del config
  file = folder / 'model.safetensors'
  tensors = safetensors_torch.load_file(file)
  del tensors['score.weight']
  tensors['lm_head.weight'] = torch.ones(264, 48)
  for i in (0, 2):
    tensors[f'v_head.summary.{i}.weight'] = torch.ones(48, 48)
  safetensors_torch.save_file(tensors, file)


def _language_model(folder, config):
  transformers.LlamaForCausalLM(config).save_pretrained(folder)


def _three_labels(folder, config):
  config.num_labels = 3
  transformers.LlamaForSequenceClassification(config).save_pretrained(folder)


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
  model, folder = saved('Llama')
  shutil.copytree(folder, tmp_path / 'a')
  change(tmp_path / 'a', copy.deepcopy(model.config))
  with pytest.raises(errors.UserError, match=message):
    _score(tmp_path / 'a')


def test_what_cannot_be_read_is_refused(saved, deberta, tmp_path):
  _, folder = saved('Llama')
  plain = tmp_path / 'plain'
  shutil.copytree(folder, plain)
  template = plain / 'chat_template.jinja'
  template.write_text(template.read_text().replace('{{ bos_token }}', ''))
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
