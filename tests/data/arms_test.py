"""Arms: their checks, and noise that no two share."""

import pytest

from erp_jax.core import errors
from erp_jax.data import arms


def test_no_two_arms_share_noise():
  names = {
    arms.Arm(model=model, system_prompt=system).noise_name(name)
    for model in ('m', 'n')
    for system in ('', 's')
    for name in ('a', 'b')
  }
  assert len(names) == 8


def test_the_cost_of_an_arm_is_not_in_its_noise():
  cheap, dear = (arms.Arm(model='m', nominal_b=b) for b in (1.0, 9.0))
  assert cheap.noise_name('a') == dear.noise_name('a')


@pytest.mark.parametrize('fields', [{}, {'model': 'm', 'nominal_b': -1.0}])
def test_mistakes(fields):
  with pytest.raises(errors.UserError, match=r'arms\.NAME\.'):
    arms.Arm(**fields)
