"""Exponents of made-up curves, their errors, and what is drawn of them."""

import math

import numpy as np
import pytest
from scipy import stats

from erp_jax.report import cells, growth

_SIZES = (1, 2, 4, 8, 16)


def _curve(secs, sizes=_SIZES, stage='fit', against='prompts'):
  return growth.Curve(stage, against, sizes, secs)


@pytest.mark.parametrize('exponent', [-0.5, 0.0, 1.0, 2.5])
def test_a_power_law_is_found(exponent):
  law = growth.fit(_curve([3 * n**exponent for n in _SIZES]))
  assert law.exponent == pytest.approx(exponent, abs=1e-12)
  assert law.error == pytest.approx(0, abs=1e-7)
  assert law.factor == pytest.approx(3)


def test_exponent_and_error_are_scipys():
  rng = np.random.default_rng(0)
  sizes = (5, 7, 11, 20, 50, 300)
  secs = [n**1.3 * math.exp(rng.normal(0, 0.2)) for n in sizes]
  want = stats.linregress(np.log(sizes), np.log(secs))
  law = growth.fit(_curve(secs, sizes))
  assert law.exponent == pytest.approx(want.slope)
  assert law.error == pytest.approx(want.stderr)
  assert math.log(law.factor) == pytest.approx(want.intercept)


def test_the_error_holds_the_exponent_as_often_as_it_says():
  rng = np.random.default_rng(1)
  quantile = stats.t.ppf(0.975, len(_SIZES) - 2)
  held = 0
  for _ in range(1000):
    secs = np.array(_SIZES) ** 0.8 * np.exp(rng.normal(0, 0.1, len(_SIZES)))
    law = growth.fit(_curve(secs))
    held += abs(law.exponent - 0.8) < quantile * law.error
  assert held / 1000 == pytest.approx(0.95, abs=0.03)


def test_two_sizes_have_no_error():
  law = growth.fit(_curve([1.0, 4.0], (10, 20)))
  assert law.exponent == pytest.approx(2) and math.isnan(law.error)


def test_tables():
  falls = _curve([2.0, 1.0], (1, 2), 'embed', 'devices')
  curves = [_curve([n / 4 for n in _SIZES]), falls]
  text = cells.markdown(growth.exponents(curves))
  assert '| fit | prompts (N) | 1 to 16 | 0.25 to 4 | 1.00 ± 0.00 |' in text
  assert '| embed | devices of one CPU | 1 to 2 | 2 to 1 | −1.00 |' in text
  rows = cells.csv_text(growth.points(curves)).splitlines()
  assert rows[0] == 'stage,against,size,seconds'
  assert rows[1] == 'fit,prompts,1.0,0.25' and len(rows) == 1 + 5 + 2


def test_a_figure_for_each_stage_and_a_panel_for_each_curve():
  curves = [
    _curve([1.0, 2.0], (1, 2), 'sample', against) for against in growth.LABELS
  ]
  drawn = growth.draw([*curves, _curve([1.0, 8.0], (1, 2))])
  assert list(drawn) == ['sample', 'fit']
  panels = [axes for axes in drawn['sample'].axes if axes.get_visible()]
  assert [axes.get_xlabel() for axes in panels] == [*growth.LABELS.values()]
  (panel,) = drawn['fit'].axes
  line, points = panel.get_lines()
  assert panel.get_title() == 'exponent 3.00'
  np.testing.assert_allclose(line.get_ydata(), [1, 8])
  assert list(points.get_ydata()) == [1.0, 8.0]
