"""Names of chips."""

import pytest

from erp_jax.core import chips, errors


@pytest.mark.parametrize(
  'spec, kind, count',
  [('v5e-16', 'v5e', 16), ('H100-8', 'H100', 8), ('H200', 'H200', 1)],
)
def test_a_kind_and_a_count(spec, kind, count):
  assert chips.parse(spec) == (kind, count)


@pytest.mark.parametrize(
  'spec, expected',
  [
    ('v7-16', "chip 'v7-16' is unknown; allowed: cpu, or KIND-COUNT"),
    ('', 'v5e, v4, v6e, v5p, H100, H200'),
    ('v5e-', "chip 'v5e-' names no count of chips: write v5e-1 or more"),
    ('v5e-0', 'names no count'),
    ('v5e-16x', 'names no count'),
    ('H100-8-8', 'names no count'),
  ],
)
def test_a_mistake_is_one_line_that_names_it(spec, expected):
  with pytest.raises(errors.UserError) as error:
    chips.parse(spec)
  assert expected in str(error.value) and '\n' not in str(error.value)


def test_rates_are_in_flops_and_bytes_a_second():
  """A TPU's float32 is six passes of bfloat16."""
  chip = chips.CHIPS['v5e']
  assert chip.flops['bfloat16'] == 197e12
  assert chip.flops['float32'] * 6 == chip.flops['bfloat16']
  assert chip.bytes == 819e9
