"""Arms that are served: what is asked, what is kept, what is refused."""

import dataclasses
import logging
import time

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from scipy import stats

from erp_jax.core import endpoint, errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.models import checkpoint, decoder, tokenizer
from erp_jax.sample import served, stage
from tests import servers

_PROMPTS = tuple(
  prompts.Prompt(f'p{n}', f'What is {n} plus {n}?', 'math') for n in range(5)
)
_CFG = stage.SampleConfig(k=3, max_new_tokens=8, shard_prompts=2)


def _arm(asked, model='m', system_prompt='', thinking='default', **fields):
  """An arm on the server `asked`; `fields` are of its endpoint."""
  return arms.Arm(
    model=model,
    system_prompt=system_prompt,
    thinking=thinking,
    endpoint=endpoint.Endpoint(url=asked.url, **fields),
  )


def _workdir(path):
  return workdir_lib.Workdir(epath.Path(path), {'versions': {}})


def _run(path, arm, cfg=_CFG, name='big'):
  """Samples the arm, and returns its rows and manifest."""
  workdir = _workdir(path)
  stage.run(workdir, {name: arm}, _PROMPTS, cfg)
  folder = workdir.path / 'responses' / name
  return store.read_table(folder).to_pylist(), store.read_manifest(folder)


def _say_k(server_requests, request):
  """Which response to its prompt it is, by the order of arrival."""
  same = lambda r: r.body['messages'] == request.body['messages']
  return sum(map(same, server_requests[: request.number]))


def test_each_response_is_a_row_with_what_the_server_says(scripted, tmp_path):
  def answer(request):
    asked = request.body['messages'][-1]['content']
    n = int(asked.split()[2])
    usage = {'prompt_tokens': 10 + n, 'completion_tokens': 1 + n}
    return 200, servers.completion(f'{2 * n}', usage=usage), {}

  server = scripted(answer)
  rows, manifest = _run(tmp_path, _arm(server, system_prompt='Be short.'))
  assert rows == [
    {
      'prompt_id': f'p{n}',
      'k': k,
      'arm': 'big',
      'text': f'{2 * n}',
      'num_tokens': 1 + n,
      'prompt_tokens': 10 + n,
      'finish_reason': 'stop',
    }
    for n in range(5)
    for k in range(3)
  ]
  assert manifest['counts'] == {
    'tokens': 3 * (1 + 2 + 3 + 4 + 5),
    'prompt_tokens': 3 * (10 + 11 + 12 + 13 + 14),
    'usd': 0.0,
    'answered_as m-1': 15,
    **dict.fromkeys(
      ('retries', 'content_filter', 'empty', 'other_end', 'missing_usage'), 0
    ),
  }
  assert manifest['info'] == {
    'served': {'url': server.url, 'models': [], 'answered_as': ['m-1']}
  }
  bodies = sorted(
    (request.body for request in server.requests),
    key=lambda body: body['messages'][-1]['content'],
  )
  assert {request.path for request in server.requests} == {
    '/v1/chat/completions'
  }
  seeds = [body.pop('seed') for body in bodies]
  assert len(set(seeds)) == 15 and all(0 <= seed < 2**31 for seed in seeds)
  assert bodies[0] == {
    'model': 'm',
    'temperature': 1.0,
    'max_tokens': 8,
    'messages': [
      {'role': 'system', 'content': 'Be short.'},
      {'role': 'user', 'content': 'What is 0 plus 0?'},
    ],
  }


def test_seeds_are_named_by_what_they_draw(scripted, tmp_path):
  """They differ by arm and seed, and are the same in another order."""

  def seeds(folder, name='big', cfg=_CFG, **fields):
    server = scripted(lambda _: (200, servers.completion(), {}))
    _run(tmp_path / folder, _arm(server, **fields), cfg, name)
    return {
      request.body['seed']: request.body['messages'][-1]['content']
      for request in server.requests
    }

  first = seeds('a')
  more = dataclasses.replace(_CFG, shard_prompts=5)
  assert seeds('b', cfg=more) == first
  for i, other in enumerate(
    (
      seeds('c', name='other'),
      seeds('d', cfg=dataclasses.replace(_CFG, seed=1)),
      seeds('e', system_prompt='s'),
      seeds('f', revision='fp8'),
    )
  ):
    assert not set(other) & set(first), i
  wider = seeds('g', cfg=dataclasses.replace(_CFG, k=5))
  assert set(first) < set(wider)


@pytest.mark.parametrize('server', [*endpoint.SETTINGS])
def test_settings_and_switches_are_those_of_the_server(
  server, scripted, tmp_path
):
  fake = scripted(lambda _: (200, servers.completion(), {}))
  thinking = 'default' if server == 'openai' else 'off'
  limit = 'max_completion_tokens'
  arm = _arm(fake, server=server, thinking=thinking, limit_name=limit)
  _run(tmp_path, arm)
  body = fake.requests[0].body
  assert body.pop(limit) == 8 and 'max_tokens' not in body
  for name in ('seed', 'messages', 'model', 'temperature'):
    del body[name]
  switch = {'chat_template_kwargs': {'enable_thinking': False}}
  assert body == arm.endpoint.settings | (switch if server != 'openai' else {})


def test_what_went_wrong_is_kept_counted_and_told(scripted, tmp_path, caplog):
  """Three responses of each prompt, by prompt: one fault in each first."""
  filtered = {
    'index': 0,
    'finish_reason': 'content_filter',
    'message': {'role': 'assistant', 'content': None},
  }
  odd = filtered | {'finish_reason': 'tool_calls'}
  faults = {
    0: {'choices': [filtered]},
    1: {'choices': []},
    2: {'usage': None},
    3: {'choices': [odd]},
    4: {'usage': {'prompt_tokens': 5, 'completion_tokens': 8, 'cost': 0.25}},
  }

  def answer(request):
    n = int(request.body['messages'][-1]['content'].split()[2])
    is_first = _say_k(server.requests, request) == 0
    return 200, servers.completion(**(faults[n] if is_first else {})), {}

  server = scripted(answer)
  arm = _arm(server, traffic=endpoint.Traffic(concurrency=1))
  with caplog.at_level(logging.INFO, 'erp_jax'):
    rows, manifest = _run(tmp_path, arm)
  assert [(r['prompt_id'], r['k']) for r in rows] == [
    (f'p{n}', k) for n in range(5) for k in range(3)
  ]
  firsts = [row for row in rows if row['k'] == 0]
  assert [row['finish_reason'] for row in firsts] == [
    'content_filter',
    'empty',
    'stop',
    'tool_calls',
    'stop',
  ]
  assert [row['text'] for row in firsts] == ['', '', 'Hi.', '', 'Hi.']
  assert [row['num_tokens'] for row in firsts] == [2, 2, None, 2, 8]
  counts = manifest['counts']
  assert counts['usd'] == 0.25 and counts['tokens'] == 13 * 2 + 8
  for name in ('content_filter', 'empty', 'other_end', 'missing_usage'):
    assert counts[name] == 1
  told = '\n'.join(caplog.messages)
  for words in (
    '1 responses were stopped by a content filter',
    '1 responses hold no choice',
    '1 responses do not say how many tokens',
    '1 responses ended neither by a stop nor at the limit',
    '0.25 USD by its own count',
  ):
    assert words in told


@pytest.mark.parametrize(
  'end, message, text',
  [
    ('stop', {'content': 'Hi.'}, 'Hi.'),
    ('stop', {'content': None, 'refusal': 'No.'}, 'No.'),
    (
      'stop',
      {'content': 'Hi.', 'reasoning_content': 'Hm.'},
      '<think>\nHm.\n</think>\n\nHi.',
    ),
    (
      'length',
      {'content': 'H', 'reasoning': 'Hm.'},
      '<think>\nHm.\n</think>\n\nH',
    ),
    ('length', {'content': '', 'reasoning': 'Hm'}, '<think>\nHm'),
    ('stop', {'content': '', 'reasoning': 'Hm.'}, '<think>\nHm.\n</think>\n\n'),
    ('length', {'content': '<think>\nHm'}, '<think>\nHm'),
  ],
)
def test_thinking_is_written_as_a_model_writes_it(end, message, text):
  choice = {'finish_reason': end, 'message': message}
  reply = served.read_reply(servers.completion(choices=[choice]))
  assert (reply.text, reply.finish_reason) == (text, end)


@pytest.mark.parametrize(
  'answer',
  [
    'text',
    {},
    {'error': {'message': 'upstream'}},
    {'choices': None},
    {'choices': [], 'error': {'code': 502}},
    {'choices': [{'error': {'code': 502}, 'message': {'content': 'H'}}]},
    *(
      {'choices': [{'finish_reason': end, 'message': {'content': 'H'}}]}
      for end in ('error', 'abort', 'insufficient_system_resource')
    ),
    {'choices': [{'message': {'content': [{'type': 'text'}]}}]},
  ],
)
def test_what_is_no_completion_is_asked_again(answer):
  with pytest.raises(endpoint.UnreadableError):
    served.read_reply(answer)


def test_a_prompt_that_a_filter_refuses_is_rows_without_a_text(
  scripted, tmp_path
):
  def answer(request):
    if request.body['messages'][-1]['content'] == _PROMPTS[1].prompt:
      return 400, {'error': {'message': 'no', 'code': 'content_filter'}}, {}
    return 200, servers.completion(), {}

  rows, manifest = _run(tmp_path, _arm(scripted(answer)))
  refused = [row for row in rows if row['finish_reason'] == 'content_filter']
  assert [(row['prompt_id'], row['text']) for row in refused] == [
    ('p1', '')
  ] * 3
  assert {(row['num_tokens'], row['prompt_tokens']) for row in refused} == {
    (0, 0)
  }
  assert len(rows) == 15 and manifest['counts']['content_filter'] == 3


@pytest.mark.parametrize('k', [1, 30])
def test_a_prompt_that_always_times_out_ends_it_by_name(k, scripted, tmp_path):
  """Whether the server answers others meanwhile, or there are none left."""

  def answer(request):
    if is_slow and 'What is 3 ' in request.body['messages'][-1]['content']:
      return 504, {'error': {'message': 'upstream timed out'}}, {}
    time.sleep(0.05)
    return 200, servers.completion(), {}

  is_slow = [True]
  traffic = endpoint.Traffic(concurrency=2, patience_secs=0.5)
  arm = _arm(scripted(answer), traffic=traffic)
  cfg = dataclasses.replace(_CFG, k=k)
  with pytest.raises(errors.UserError) as e:
    _run(tmp_path, arm, cfg)
  line = f'{e.value}'
  assert line.startswith(f'arms.big: {arm.endpoint.url} '), line
  assert "prompt 'p3'" in line and '504, upstream timed out' in line
  assert 'lower sample.max_new_tokens in another --workdir' in line
  folder = tmp_path / 'responses' / 'big'
  kept = {p.name: p.stat().st_mtime_ns for p in folder.glob('part-*')}
  assert len(kept) == 2  # A shard, and its record.
  is_slow.clear()
  rows, _ = _run(tmp_path, arm, cfg)
  assert len(rows) == 5 * k
  assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}


def test_a_limit_that_a_server_ignores_ends_it(scripted, tmp_path):
  usage = {'prompt_tokens': 5, 'completion_tokens': 9}
  server = scripted(lambda _: (200, servers.completion(usage=usage), {}))
  with pytest.raises(errors.UserError, match='9 tokens, more than sample.max'):
    _run(tmp_path, _arm(server))


def test_another_server_or_model_than_the_config_says_is_refused(
  scripted, tmp_path
):
  reply = lambda _: (200, servers.completion(), {})
  vllm = scripted(reply, [{'id': 'm', 'owned_by': 'vllm'}])
  with pytest.raises(errors.UserError, match="is 'openai', but .* is vllm"):
    _run(tmp_path, _arm(vllm))
  with pytest.raises(errors.UserError, match="model is 'n', but .* serves m:"):
    _run(tmp_path, _arm(vllm, 'n', server='vllm'))
  _run(tmp_path / 'vllm', _arm(vllm, server='vllm'))
  hosted = scripted(reply, [{'id': 'm', 'owned_by': 'system'}])
  _run(tmp_path / 'hosted', _arm(hosted, 'n'))


def test_the_vendors_settings_are_refused_before_anything(scripted, tmp_path):
  server = scripted(lambda _: (200, servers.completion(), {}))
  cfg = dataclasses.replace(_CFG, generation='vendor')
  with pytest.raises(errors.UserError, match="arm 'big' is served elsewhere"):
    _run(tmp_path, _arm(server), cfg)
  assert not server.requests


def test_another_address_goes_on_and_another_revision_does_not(
  scripted, tmp_path
):
  def dies(request):
    if request.number >= 2 * 3:
      return 401, {}, {}
    return 200, servers.completion('first', model='old'), {}

  # What the shards of the first run were answered by is not forgotten.
  first = scripted(dies)
  traffic = endpoint.Traffic(concurrency=1)
  with pytest.raises(errors.UserError, match='401'):
    _run(tmp_path, _arm(first, traffic=traffic))
  second = scripted(lambda _: (200, servers.completion('second'), {}))
  engine = dataclasses.replace(_CFG.engine, slots=8)
  cfg = dataclasses.replace(_CFG, engine=engine, dtype='float32')
  rows, manifest = _run(tmp_path, _arm(second, key_env='OTHER'), cfg)
  assert [row['text'] for row in rows] == ['first'] * 6 + ['second'] * 9
  assert len(second.requests) == 9
  assert manifest['info']['served']['answered_as'] == ['m-1', 'old']
  for change in (
    {'revision': 'fp8'},
    {'server': 'vllm'},
    {'system_prompt': 's'},
    {'model': 'n'},
  ):
    with pytest.raises(errors.UserError, match='was made with'):
      _run(tmp_path, _arm(second, **change))


def test_finished_responses_need_no_server(scripted, tmp_path):
  server = scripted(lambda _: (200, servers.completion(), {}))
  arm = _arm(server)
  rows, _ = _run(tmp_path, arm)
  server.close()
  assert _run(tmp_path, arm)[0] == rows


def test_identities_of_checkpoints_are_as_before_there_were_servers(
  smollm2_dir,
):
  """The digest is that of the commit before, c514a4f4."""
  arm = arms.Arm(model='package:smollm2-135m-instruct', system_prompt='Hi.')
  made = stage.artifact(
    _workdir('/w'), 'a', arm, _PROMPTS, stage.SampleConfig()
  )
  assert made.digest == (
    '57346831a522a60301cca1c2c08210c1b2b3ed377618840a72fcef9e0dc16f4c'
  )


@pytest.mark.slow
def test_first_tokens_have_the_frequencies_of_our_own_logits(llama, tmp_path):
  """Chi-square over the likeliest first tokens, of 300 requests at T = 1.

  llama.cpp rounds activations to 8 bits before it multiplies by the Q4_1
  weights, so its logits are not ours to the bit.
  """
  asked = prompts.Prompt('a', 'Say a colour.', 'chat')
  cfg = stage.SampleConfig(k=300, max_new_tokens=1)
  arm = _arm(llama(), 'smollm2', server='llama.cpp')
  workdir = _workdir(tmp_path)
  stage.run(workdir, {'a': arm}, [asked], cfg)
  rows = store.read_table(workdir.path / 'responses' / 'a').to_pylist()
  model_cfg, params, ckpt = checkpoint.load_decoder(
    'package:smollm2-135m-instruct', jnp.dtype('float32')
  )
  tokens = tokenizer.load_tokenizer(ckpt.path)
  ids = tokens.render_ids(asked.prompt)
  assert {row['prompt_tokens'] for row in rows} == {len(ids)}
  assert {row['num_tokens'] for row in rows} == {1}
  hidden_BTD, _ = decoder.prefill(params, model_cfg, jnp.array([ids]))
  logits_V = decoder.logits(params, model_cfg, hidden_BTD[0, -1])
  p_V = np.exp(np.asarray(logits_V, np.float64))
  p_V /= p_V.sum()
  likeliest = np.argsort(-p_V)[:12]
  texts = [tokens.decode([i]) for i in likeliest]
  assert len(set(texts)) == 12
  found = np.array([sum(r['text'] == text for r in rows) for text in texts])
  found = np.append(found, len(rows) - found.sum())
  expected = np.append(p_V[likeliest], 1 - p_V[likeliest].sum()) * len(rows)
  assert (expected > 2).all(), expected
  assert stats.chisquare(found, expected).pvalue > 1e-3, (found, expected)
