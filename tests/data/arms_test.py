"""Arms: their checks, and noise that no two share."""

import pytest

from erp_jax.core import errors
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
