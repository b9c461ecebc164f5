"""Rewards from servers: a judge like the one that runs here, vLLM's scores."""

import dataclasses
import math

import numpy as np
import pytest
from etils import epath
from scipy import stats

from erp_jax.core import endpoint, errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.sample import stage as sample
from erp_jax.score import rewards, stage
from tests import servers
from tests.score import answers


def _cfg(kind, server, model='m', **fields):
  url = getattr(server, 'url', server)
  return rewards.RewardConfig(
    kind=kind, model=model, endpoint=endpoint.Endpoint(url=url), **fields
  )


def _score(cfg, texts=answers.TEXTS):
  """Rewards and counts, with what progress was told."""
  told = []
  advance = lambda n, positions=0: told.append((n, positions))
  scored = rewards.scorer(cfg, 'far')(answers.PROMPTS, texts, advance)
  return scored, told


@pytest.mark.slow
def test_a_served_judge_is_the_judge_that_runs_here(llama):
  """On the same file: llama.cpp rounds activations to 8 bits, ours do not."""
  here = rewards.RewardConfig(
    kind='judge', model='package:smollm2-135m-instruct', dtype='float32'
  )
  ours, _ = _score(here)
  theirs, told = _score(_cfg('served_judge', llama(), 'smollm2'))
  assert theirs.counts == {'retries': 0, 'bounded': 0, 'neither': 0}
  assert sum(n for n, _ in told) == 7 and all(p > 20 for _, p in told)
  want, got = (np.concatenate(x.rewards) for x in (ours, theirs))
  np.testing.assert_allclose(got, want, atol=0.3)
  assert np.abs(got - want).mean() < 0.2  # By which requests meet in a batch.
  assert stats.spearmanr(got, want).statistic > 0.85
  assert np.ptp(want) > 1  # Else all would be within the tolerance.


def _listing(**logprobs):
  top = [{'token': t, 'logprob': p, 'bytes': None} for t, p in logprobs.items()]
  choice = {
    'message': {'content': 'Y'},
    'logprobs': {'content': [{'token': 'Y', 'top_logprobs': top}]},
  }
  return servers.completion(choices=[choice])


@pytest.mark.parametrize(
  'logprobs, reward, bounded',
  [
    ({'Yes': -0.5, 'No': -1.5, 'Maybe': -3.0}, 1.0, 0),
    ({'No': -0.5, 'Yes': -1.5}, -1.0, 0),
    ({'Yes': -0.5, 'Maybe': -3.0}, 2.5, 1),
    ({'No': -0.5, ' Yes': -0.7, 'yes': -3.0}, -2.5, 1),
    ({'Maybe': -0.5}, math.nan, 0),  # Counted as `neither`.
  ],
)
def test_a_judge_takes_the_difference_of_two_words(
  logprobs, reward, bounded, scripted
):
  server = scripted(lambda _: (200, _listing(**logprobs), {}))
  scored, _ = _score(_cfg('served_judge', server, question='Good? Yes or No.'))
  for got, texts in zip(scored.rewards, answers.TEXTS, strict=True):
    np.testing.assert_allclose(got, [reward] * len(texts))
  assert scored.counts['bounded'] == 7 * bounded
  assert scored.counts['neither'] == 7 * math.isnan(reward)
  asked = {
    request.body['messages'][0]['content'] for request in server.requests
  }
  assert asked == {
    f'Question: {prompt.prompt}\n\nAnswer: {text}\n\nGood? Yes or No.'
    for prompt, texts in zip(answers.PROMPTS, answers.TEXTS, strict=True)
    for text in texts
  }
  body = server.requests[0].body
  assert (body['max_tokens'], body['top_logprobs']) == (1, 20)
  assert body['temperature'] == 1.0 and body['logprobs'] is True


@pytest.mark.parametrize('server', [*endpoint.SETTINGS])
def test_a_judge_does_not_think_where_that_can_be_said(server, scripted):
  fake = scripted(lambda _: (200, _listing(Yes=-1.0, No=-2.0), {}))
  where = endpoint.Endpoint(url=fake.url, server=server)
  cfg = dataclasses.replace(_cfg('served_judge', fake), endpoint=where)
  _score(cfg)
  sent = fake.requests[0].body.get('chat_template_kwargs')
  assert sent == (None if server == 'openai' else {'enable_thinking': False})


def test_what_a_filter_refuses_has_no_reward(scripted):
  refused = 400, {'error': {'message': 'no', 'code': 'content_filter'}}, {}
  listed = 200, _listing(Yes=-1.0, No=-2.0), {}

  def answer(request):
    asked = request.body['messages'][0]['content']
    return refused if 'Berlin' in asked else listed

  scored, _ = _score(_cfg('served_judge', scripted(answer)))
  np.testing.assert_allclose(scored.rewards[0], [1, math.nan, 1, 1])


def test_a_judge_without_logprobs_ends_it(scripted):
  server = scripted(lambda _: (200, servers.completion('Yes'), {}))
  with pytest.raises(errors.UserError, match='lists no tokens with their logp'):
    _score(_cfg('served_judge', server))


def _known(prompt, text):
  return len(text) - len(prompt) / 8


def test_scores_of_pairs_by_vllms_format(scripted):
  """As documented there; the server may give them in any order."""

  def answer(request):
    body = request.body
    assert set(body) == {'model', 'text_1', 'text_2', 'use_activation'}
    data = [
      {'index': i, 'object': 'score', 'score': _known(body['text_1'], text)}
      for i, text in enumerate(body['text_2'])
    ]
    usage = {'prompt_tokens': 31, 'total_tokens': 31}
    answer = {'object': 'list', 'data': data[::-1], 'usage': usage}
    return 200, answer, {}

  server = scripted(answer)
  scored, told = _score(_cfg('served_score', server))
  for got, prompt, texts in zip(
    scored.rewards, answers.PROMPTS, answers.TEXTS, strict=True
  ):
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [_known(prompt.prompt, t) for t in texts])
  assert sorted(told) == [(3, 31), (4, 31)]
  assert {request.path for request in server.requests} == {'/score'}
  assert all(r.body['use_activation'] is False for r in server.requests)


def test_scores_of_conversations_by_vllms_format(scripted):
  def answer(request):
    body = request.body
    (user, assistant) = body['messages']
    assert (user['role'], assistant['role']) == ('user', 'assistant')
    assert body['truncate_prompt_tokens'] == 400
    value = _known(user['content'], assistant['content'])
    data = [{'index': 0, 'label': '0', 'probs': [value], 'num_classes': 1}]
    return 200, {'object': 'list', 'data': data, 'usage': {}}, {}

  server = scripted(answer)
  scored, _ = _score(
    _cfg('served_score', server, api='classify', max_tokens=400)
  )
  for got, prompt, texts in zip(
    scored.rewards, answers.PROMPTS, answers.TEXTS, strict=True
  ):
    np.testing.assert_allclose(got, [_known(prompt.prompt, t) for t in texts])
  assert {request.path for request in server.requests} == {'/classify'}


@pytest.mark.parametrize(
  'api, answer',
  [
    ('score', {'data': [{'index': i, 'score': None} for i in range(4)]}),
    ('classify', {'data': [{'index': 0, 'probs': [None]}]}),
  ],
)
def test_null_is_what_is_not_finite(api, answer, scripted):
  server = scripted(lambda _: (200, answer, {}))
  cfg = _cfg('served_score', server, api=api)
  scored = rewards.scorer(cfg)(
    answers.PROMPTS[:1], answers.TEXTS[:1], lambda *_, **__: None
  )
  assert len(scored.rewards[0]) == 4 and np.isnan(scored.rewards[0]).all()


@pytest.mark.parametrize(
  'api, answer, message',
  [
    ('score', {'data': []}, 'gave 0 scores of 4'),
    (
      'classify',
      {'data': [{'probs': [0.1, 0.9], 'num_classes': 2}]},
      'gives 2 classes',
    ),
  ],
)
def test_what_is_no_reward_model_ends_it(api, answer, message, scripted):
  server = scripted(lambda _: (200, answer, {}))
  with pytest.raises(errors.UserError, match=message):
    _score(_cfg('served_score', server, api=api))


@pytest.mark.parametrize('api', ['score', 'classify'])
def test_what_cannot_be_read_is_asked_again(api, scripted):
  good = {
    'score': {'data': [{'index': i, 'score': 1} for i in range(4)]},
    'classify': {'data': [{'index': 0, 'probs': [1.0]}]},
  }[api]
  server = scripted(
    lambda r: (200, good if r.number else {'detail': 'busy'}, {})
  )
  cfg = _cfg('served_score', server, api=api)
  scored = rewards.scorer(cfg)(
    answers.PROMPTS[:1], answers.TEXTS[:1], lambda *_, **__: None
  )
  np.testing.assert_allclose(scored.rewards[0], 1)
  assert scored.counts['retries'] == 1


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'kind': 'served_judge'}, 'endpoint.url is empty, but kind .served_judge'),
    ({'kind': 'judge', 'url': 'http://h/v1'}, "kind 'judge' does not read it"),
    ({'kind': 'judge', 'api': 'classify'}, "kind 'judge' does not read it"),
    ({'kind': 'served_judge', 'url': 'http://h/v1', 'dtype': 'int8'}, 'dtype'),
    ({'kind': 'served_score', 'url': 'http://h/v1', 'api': 'pool'}, 'api'),
    ({'kind': 'served_score', 'model': ''}, 'needs the name of a model'),
  ],
)
def test_config_mistakes(fields, message):
  fields = {'model': 'm'} | fields
  where = endpoint.Endpoint(url=fields.pop('url', ''))
  with pytest.raises(errors.UserError, match=message):
    rewards.RewardConfig(endpoint=where, **fields)


def test_only_served_kinds_have_more_in_their_identity():
  """Rewards made before there were servers stay valid."""
  old = {
    *('kind', 'model', 'dtype', 'max_responses', 'neutral_prompt', 'question'),
    *('max_tokens', 'pair', 'bos', 'batch_tokens', 'shard_prompts'),
  }
  fields = rewards.RewardConfig().fields()
  assert set(fields) == old == set(rewards.identity(rewards.RewardConfig()))
  judge = _cfg('served_judge', 'http://h/v1')
  assert set(rewards.identity(judge)) == old | {'revision'}
  thinker = dataclasses.replace(
    judge, endpoint=endpoint.Endpoint(url='http://h/v1', server='vllm')
  )
  assert set(rewards.identity(thinker)) == old | {'revision', 'endpoint'}
  scores = _cfg('served_score', 'http://h/v1')
  assert set(rewards.identity(scores)) == old | {'revision', 'api'}


@pytest.mark.parametrize('kind', rewards.SERVED)
def test_another_address_goes_on_and_another_revision_does_not(kind):
  judge = _cfg(kind, 'http://h/v1')
  moved = dataclasses.replace(
    judge,
    endpoint=endpoint.Endpoint(
      url='http://other:1/v1', traffic=endpoint.Traffic(concurrency=1)
    ),
  )
  assert rewards.identity(moved) == rewards.identity(judge)
  renewed = dataclasses.replace(
    judge, endpoint=endpoint.Endpoint(url='http://h/v1', revision='fp8')
  )
  assert rewards.identity(renewed) != rewards.identity(judge)


def test_a_server_of_another_kind_is_another_judge_if_it_is_asked_otherwise(
  scripted, tmp_path
):
  """What is asked, and what is refused, go together."""
  asked = [prompts.Prompt('p', 'Q?', 'chat')]

  def answer(request):
    if 'top_logprobs' in request.body:
      return 200, _listing(Yes=-1.0, No=-2.0), {}
    return 200, servers.completion('An answer.'), {}

  server = scripted(answer)
  arm = arms.Arm(model='m', endpoint=endpoint.Endpoint(url=server.url))
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  sample.run(workdir, {'a': arm}, asked, sample.SampleConfig(k=1))

  def judge(kind):
    cfg = rewards.RewardConfig(
      kind='served_judge',
      model='m',
      endpoint=endpoint.Endpoint(url=server.url, server=kind),
    )
    before = len(server.requests)
    stage.run(workdir, {'far': cfg}, {'a': arm}, asked)
    return [
      r.body.get('chat_template_kwargs') for r in server.requests[before:]
    ]

  assert judge('vllm') == [{'enable_thinking': False}]
  assert judge('sglang') == []  # It would be asked the same.
  with pytest.raises(
    errors.UserError, match=r'was made with reward\.endpoint = {"settings"'
  ):
    judge('openai')


def test_rewards_of_a_score_are_the_same_whatever_its_server_is():
  made = [
    rewards.RewardConfig(
      kind='served_score',
      model='m',
      endpoint=endpoint.Endpoint(url='http://h/v1', server=server),
    )
    for server in endpoint.SETTINGS
  ]
  assert all(x.fields() == made[0].fields() for x in made)


def test_an_arm_and_its_judge_on_servers_through_both_stages(
  scripted, tmp_path
):
  """Sampled, judged, resumed after a failure, and marked as self-scored."""
  asked = [prompts.Prompt(f'p{n}', f'Q{n}?', 'chat') for n in range(6)]

  def answer(request):
    if 'top_logprobs' not in request.body:
      return 200, servers.completion(f'An answer {len(judged)}.'), {}
    judged.append(request)
    if len(judged) > 5 and not passes:
      return 401, {}, {}
    return 200, _listing(Yes=-1.0, No=-2.0 - len(judged)), {}

  def thinks(request):
    return 200, _listing(Okay=-0.1), {}

  judged, passes = [], []
  server = scripted(answer)
  where = endpoint.Endpoint(
    url=server.url, traffic=endpoint.Traffic(concurrency=1)
  )
  arm = arms.Arm(model='m', endpoint=where)
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  cfg = sample.SampleConfig(k=2, max_new_tokens=8)
  sample.run(workdir, {'a': arm}, asked, cfg)
  judge = dataclasses.replace(
    _cfg('served_judge', server), endpoint=where, shard_prompts=2
  )
  deep = _cfg('served_judge', scripted(thinks), 'deep')
  with pytest.raises(
    errors.UserError, match=r"score deep/a: 'deep' lists neither Yes nor No"
  ):
    stage.run(workdir, {'deep': deep}, {'a': arm}, asked)
  with pytest.raises(errors.UserError, match=r'rewards\.far: .* with 401'):
    stage.run(workdir, {'far': judge}, {'a': arm}, asked)
  passes.append(True)
  stage.run(workdir, {'far': judge}, {'a': arm}, asked)
  folder = workdir.path / 'rewards' / 'far' / 'a'
  table = store.read_table(folder)
  # The first shard's four are of the first run, the others of the second.
  want = [1 + n for n in (1, 2, 3, 4, *range(7, 15))]
  np.testing.assert_allclose(table['reward'].to_numpy(), want)
  assert len(judged) == 14
  manifest = store.read_manifest(folder)
  assert manifest['info'] == {'self_scored': True}
  assert manifest['counts']['positions'] == 12 * 5
  # Responses that are drawn again are not those that were judged.
  for lost in (workdir.path / 'responses' / 'a').glob('part-*'):
    lost.unlink()
  sample.run(workdir, {'a': arm}, asked, cfg)
  with pytest.raises(errors.UserError, match='was made with responses = '):
    stage.run(workdir, {'far': judge}, {'a': arm}, asked)
