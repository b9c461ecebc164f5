"""Endpoints: what they refuse, and that a secret is never quoted."""

import sys

import pytest

from erp_jax import core
from erp_jax.core import endpoint, errors


@pytest.mark.parametrize(
  'url',
  [
    'localhost:8000/v1',
    'ftp://host/v1',
    'http://',
    'http:///v1',
    'http://[::1/v1',
    'http://host:port/v1',
    'http://host:0/v1',
    'host',
  ],
)
def test_what_is_no_url_is_named(url):
  with pytest.raises(errors.UserError, match=r'must be http://HOST:PORT/v1'):
    endpoint.Endpoint(url=url)


@pytest.mark.parametrize(
  'url',
  [
    'http://user:hunter2@host/v1',
    'http://hunter2@host/v1',
    'https://host/v1?key=hunter2',
    'https://host/v1#hunter2',
  ],
)
def test_urls_with_secrets_are_refused_unquoted(url):
  with pytest.raises(errors.UserError, match='holds a user, a query') as caught:
    endpoint.Endpoint(url=url)
  assert 'hunter2' not in f'{caught.value}'


@pytest.mark.parametrize(
  'url, key_env, name',
  [
    ('https://api.openai.com/v1', '', 'OPENAI_API_KEY'),
    ('https://API.OpenAI.com/v1/', '', 'OPENAI_API_KEY'),
    ('https://api.openai.com/v1', 'MINE', 'MINE'),
    ('http://api.openai.com/v1', '', ''),
    ('https://api.openai.com.evil.net/v1', '', ''),
    ('https://evil.net/api.openai.com', '', ''),
    ('http://localhost:8000/v1', '', ''),
    ('http://localhost:8000/v1', 'MINE', 'MINE'),
  ],
)
def test_openais_key_goes_to_openai_alone(url, key_env, name):
  assert endpoint.Endpoint(url=url, key_env=key_env).key_name == name


@pytest.mark.parametrize('key', ['sk-hunter2', 'hunter2 ', '2hunter2'])
def test_a_key_where_its_variable_is_named_is_refused_unquoted(key):
  with pytest.raises(errors.UserError, match='key_env is not') as caught:
    endpoint.Endpoint(url='http://host/v1', key_env=key)
  assert 'hunter2' not in f'{caught.value}'


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'server': 'vlm'}, "server is 'vlm'; allowed: openai, vllm, sglang, lla"),
    ({'limit_name': 'n'}, 'limit_name is .* allowed: max_tokens, max_compl'),
    ({'server': 'vllm', 'url': ''}, 'url is empty, but other fields'),
    ({'revision': 'fp8', 'url': ''}, 'url is empty, but other fields'),
  ],
)
def test_config_mistakes(fields, message):
  with pytest.raises(errors.UserError, match=message):
    endpoint.Endpoint(**{'url': 'https://host/v1'} | fields)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'concurrency': 0}, 'concurrency must be >= 1, got 0'),
    ({'timeout_secs': 0.0}, 'timeout_secs must be > 0'),
    ({'timeout_secs': float('inf')}, 'timeout_secs must be > 0 and finite'),
    ({'patience_secs': -1.0}, 'patience_secs must be >= 0'),
    ({'patience_secs': float('inf')}, 'patience_secs is inf, but must be fin'),
    ({'tokens_per_minute': -1.0}, 'tokens_per_minute must be >= 0'),
    ({'requests_per_minute': float('nan')}, 'requests_per_minute must be >='),
  ],
)
def test_traffic_mistakes(fields, message):
  with pytest.raises(errors.UserError, match=message):
    endpoint.Traffic(**fields)


def test_settings_of_our_servers_leave_the_temperature_alone():
  """What each server would add by itself, against its documentation."""
  neutral = {'top_p': 1.0, 'top_k': -1, 'min_p': 0.0, 'repetition_penalty': 1.0}
  settings = {
    server: endpoint.Endpoint(url='http://h/v1', server=server).settings
    for server in endpoint.SETTINGS
  }
  assert settings == {
    'openai': {},
    'vllm': neutral,
    'sglang': neutral,
    'llama.cpp': {'samplers': ['temperature']},
  }


def test_without_the_extra_it_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'openai', None)
  monkeypatch.delitem(sys.modules, 'erp_jax.core.client', raising=False)
  monkeypatch.delattr(core, 'client', raising=False)
  with pytest.raises(errors.UserError, match=r"'erp_jax\[serve-arms\]'"):
    endpoint.client_module()
