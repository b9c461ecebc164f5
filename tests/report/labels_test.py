import numpy as np
import pytest
from matplotlib import figure as figure_lib

from erp_jax.report import labels


@pytest.fixture
def axes():
  figure = figure_lib.Figure((6, 4), layout='constrained')
  axes = figure.subplots()
  axes.set_xlim(0, 10)
  axes.set_ylim(0, 10)
  return axes


def _boxes(axes):
  """{name: the pixels of its letters}, without those of any leading line."""
  texts = [text for text in axes.texts if text.get_text()]
  return {text.get_text(): text.get_window_extent() for text in texts}


def test_names_cover_no_line_no_other_name_and_stay_inside(axes):
  x = np.linspace(0.2, 9.8, 300)
  for y in (5 + 0.8 * np.sin(3 * x), 5 - 0.06 * x, np.full(300, 9.2)):
    axes.plot(x, y)
  points = {
    'left': (0.2, 5.0),
    'its neighbour': (0.25, 5.1),
    'top right': (9.8, 9.9),
    'lower right': (9.8, 0.1),
  }
  labels.place([axes], points)
  boxes = _boxes(axes)
  assert set(boxes) == set(points)
  inside = axes.get_window_extent()
  for name, box in boxes.items():
    assert inside.x0 <= box.x0 < box.x1 <= inside.x1
    assert inside.y0 <= box.y0 < box.y1 <= inside.y1
    for line in axes.lines:
      assert (
        not line.get_path()
        .transformed(axes.transData)
        .intersects_bbox(box, filled=False)
      )
    others = [other for key, other in boxes.items() if key != name]
    assert not box.count_overlaps(others)
    at = axes.transData.transform(points[name])[0]
    assert (box.x0 > at) == (name in ('left', 'its neighbour'))
  far = [text for text in axes.texts if not text.get_text()]
  assert 1 <= len(far) <= 2  # Of the two whose place is crossed by lines.
  assert all(text.arrow_patch.get_visible() for text in far)


def test_a_free_place_is_beside_the_point(axes):
  labels.place([axes], {'alone': (2.0, 5.0)})
  middle = axes.transData.transform((2.0, 5.0))[1]
  box = _boxes(axes)['alone']
  assert (box.y0 + box.y1) / 2 == pytest.approx(middle, abs=3)
  assert len(axes.texts) == 1


def test_only_panels_that_show_a_point_name_it(axes):
  labels.place([axes], {'above': (5.0, 12.0), 'shown': (5.0, 4.0)})
  assert set(_boxes(axes)) == {'shown'}


def test_with_no_free_place_the_name_is_just_above(axes):
  for y in np.linspace(0, 10, 60):
    axes.plot([0, 10], [y, y])
  labels.place([axes], {'crossed': (2.0, 5.0)})
  box = _boxes(axes)['crossed']
  middle = axes.transData.transform((2.0, 5.0))[1]
  assert 0 < box.y0 - middle < 20


def test_names_of_one_place_do_not_cover_each_other(axes):
  labels.place([axes], dict.fromkeys(('one', 'two', 'three'), (2.0, 5.0)))
  boxes = list(_boxes(axes).values())
  assert len(boxes) == 3
  assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # Itself.
