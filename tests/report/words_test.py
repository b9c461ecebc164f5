import math

import pytest

from erp_jax.report import words


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (0.12345, '0.123'),
    (-0.12345, '−0.123'),
    (-0.0001, '0.000'),
    (0.0, '0.000'),
    (math.nan, '–'),
  ],
)
def test_number(value, text):
  assert words.number(value) == text


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (0.0212, '+0.0212'),
    (-0.02, '−0.0200'),
    (0.00001, '0.0000'),
    (-0.00001, '0.0000'),
    (math.nan, '–'),
  ],
)
def test_difference(value, text):
  assert words.difference(value) == text


@pytest.mark.parametrize(
  ('value', 'text'),
  [
    (3.73e-05, '3.73·10⁻⁵'),
    (0.0349, '0.0349'),
    (14.04, '14'),
    (1234.5, '1234'),
    (2.5e11, '2.50·10¹¹'),
    (0.0, '0'),
    (math.nan, '–'),
  ],
)
def test_cost(value, text):
  assert words.cost(value) == text


def test_shares_below_zero_have_a_true_minus():
  assert words.share(-0.35) == '−35.0 %'
  assert words.share(-0.0001) == '0.0 %'
  assert words.share(float('nan')) == '–'
