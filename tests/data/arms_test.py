"""Arms: their checks, and noise that no two share."""

import pytest

from erp_jax.core import endpoint, errors
from erp_jax.data import arms


def test_no_two_arms_share_noise():
  names = {
    arms.Arm(model=model, system_prompt=system, thinking=thinking).noise_name(
      name
    )
    for model in ('m', 'n')
    for system in ('', 's')
    for thinking in arms.THINKING
    for name in ('a', 'b')
  }
  assert len(names) == 24


def test_the_cost_of_an_arm_is_not_in_its_noise():
  cheap, dear = (arms.Arm(model='m', nominal_b=b) for b in (1.0, 9.0))
  assert cheap.noise_name('a') == dear.noise_name('a')


def test_the_switch_for_thinking_changes_nothing_at_its_default():
  """Responses made before there was a switch stay valid, and their noise."""
  arm = arms.Arm(model='m', system_prompt='s')
  assert arm.identity() == {'model': 'm', 'system_prompt': 's'}
  assert arm.noise_name('a') == (
    'b68d0092f2ebf8b471b3140e22d9dab243972895036ae659bb5d00f624bb85f6'
  )
  assert arms.Arm(model='m', thinking='off').identity() == {
    'model': 'm', 'system_prompt': '', 'thinking': 'off',
  }  # fmt: skip


def _served(model='m', **fields):
  where = endpoint.Endpoint(**{'url': 'http://h/v1', 'server': 'vllm'} | fields)
  return arms.Arm(model=model, endpoint=where)


def test_what_is_served_is_another_arm_than_the_checkpoint_of_its_name():
  names = {
    arm.noise_name('a')
    for arm in (
      arms.Arm(model='m'),
      _served(),
      _served(revision='fp8'),
      _served(server='llama.cpp'),
      _served(model='n'),
    )
  }
  assert len(names) == 5


@pytest.mark.parametrize(
  'fields',
  [
    {'url': 'https://other:1/v1'},
    {'key_env': 'MY_KEY'},
    {'limit_name': 'max_completion_tokens'},
    {'server': 'sglang'},  # It is sent the same.
    {'traffic': endpoint.Traffic(concurrency=1, patience_secs=1.0)},
  ],
)
def test_where_and_how_fast_is_not_what_is_served(fields):
  assert _served(**fields).identity() == _served().identity()
  assert _served(**fields).noise_name('a') == _served().noise_name('a')


def test_a_hosted_api_has_no_switch_for_thinking():
  where = endpoint.Endpoint(url='https://h/v1')
  with pytest.raises(errors.UserError, match="kind 'openai' has no such switc"):
    arms.Arm(model='m', thinking='off', endpoint=where)


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'model': 'm', 'nominal_b': -1.0},
    {'model': 'm', 'usd_per_mtok_prompt': float('inf')},
    {'model': 'm', 'thinking': 'no'},
  ],
)
def test_mistakes(fields):
  with pytest.raises(errors.UserError, match=r'arms\.NAME\.'):
    arms.Arm(**fields)
