import numpy as np
import pytest
from matplotlib import text as text_lib

from erp_jax.report import (
  evaluation,
  figures,
  frontier,
  labels,
  pairwise_figure,
  words,
)


@pytest.fixture
def replay(make_inputs):
  inputs = make_inputs()
  return evaluation.load(inputs.write() / 'replay', 'Records')


def _legend(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def test_frontier_draws_every_policy_with_labels(replay):
  figure = frontier.draw(frontier.from_evaluation(replay))
  (axes,) = figure.axes
  lines = {line.get_label(): line for line in axes.lines}
  for policy in ('erp', 'static_mixture', 'permuted', 'per_category'):
    line = lines[words.policy(policy, replay.names)]
    np.testing.assert_allclose(line.get_ydata(), np.linspace(0.3, 0.1, 101))
    np.testing.assert_allclose(line.get_xdata(), np.linspace(1, 9, 101))
    assert (line.get_linestyle() == '--') == (
      policy in ('permuted', 'per_category')
    )
  colours = {line.get_color() for line in lines.values()}
  assert len(colours) == 6  # Four lines, the random point, black points.
  points = {text.get_text(): text.xy for text in axes.texts}
  assert points['Always teacher'] == (9.0, pytest.approx(0.1))
  assert set(_legend(figure)) >= {'ERP router', 'Random arm'}
  assert 'parameters × tokens' in axes.get_xlabel()
  assert 'lower is better' in axes.get_ylabel()


def test_predicted_has_a_panel_per_arm_of_test_prompts(replay):
  figure = figures.predicted(replay)
  panels = [axes for axes in figure.axes if axes.get_visible()]
  assert [axes.get_title() for axes in panels] == ['plain', 'terse', 'teacher']
  table = replay.predictions
  rows = (table['split'] == 'test') & (table['arm'] == 'terse')
  shown = [line for line in panels[1].lines if line.get_marker() == 'o']
  drawn = np.concatenate([line.get_ydata() for line in shown])
  np.testing.assert_array_equal(np.sort(drawn), np.sort(table['reward'][rows]))
  for line in shown[:3]:
    for x, y in line.get_xydata():
      assert table['reward'][table['prediction'] == x] == y
  assert _legend(figure)[:3] == ['chat', 'code', 'math']
  assert all('predicted' in axes.get_xlabel() for axes in panels)


def test_wins_bars_add_up(replay):
  figure = figures.wins(replay)
  (axes,) = figure.axes
  tiles = {}
  for bar in axes.patches:
    middle = round(bar.get_y() + bar.get_height() / 2, 6)
    tiles.setdefault(middle, []).append((bar.get_x(), bar.get_width()))
  assert len(tiles) == 3 * 2
  for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
    shares = [1, 2, 3] if label.get_text().endswith('true') else [3, 2, 1]
    width = np.array(shares) * 100 / 6
    left = np.cumsum(width) - width
    np.testing.assert_allclose(tiles[round(y, 6)], np.stack([left, width], 1))
  labels = [tick.get_text() for tick in axes.get_yticklabels()]
  assert labels[:2] == ['chat, true', 'chat, predicted']
  assert _legend(figure) == ['plain', 'terse', 'teacher']


def test_names_are_taken_as_they_are():
  """No formula, and nothing that the font lacks: warnings are errors."""
  names = ['_a$x$b', '$\\nope$ 模型', 'é 🙂']
  both = [
    [np.array([0.0, 1.0])] * 2 + [np.array([name, name])] for name in names
  ]
  made = figures.scatter(
    {name: figures.Points(*x) for name, x in zip(names, both, strict=True)},
    names,
  )
  bars = figures.share_bars({n: [0.2] * 3 for n in names}, names, '$', 1)
  axes = bars.axes[0]
  axes.plot([10, 50], [1, 2])
  labels.place(
    [axes], dict(zip(names, [(10, 0), (30, 1), (50, 2)], strict=True))
  )
  for figure in (made, bars):
    assert figures.png(figure).startswith(b'\x89PNG')
  shown = {text.get_text() for text in bars.findobj(text_lib.Text)}
  expected = {'_a$x$b', '$\\nope$ U+6A21U+578B', 'é U+1F642'}
  assert expected <= shown
  assert expected <= {label.get_text() for label in axes.get_yticklabels()}
  assert expected <= {axes.get_title() for axes in made.axes}


def test_long_names_stay_inside_the_figure():
  long = 'an-owner/A-Model-With-A-Long-Name-3.1-405B-Instruct'
  names = [f'{long}-{i}' for i in range(5)]
  points = figures.Points(*[np.array([0.0, 1.0])] * 2, np.array(['c', 'd']))
  panels = dict.fromkeys(names, points)
  many = [f'category {i}' for i in range(40)]
  for figure in (
    figures.scatter(panels, ['c', 'd']),
    figures.scatter(panels, many),
    figures.share_bars({long: [0.2] * 5}, names, 'share', 1),
  ):
    figures.png(figure)
    inside = figure.bbox.padded(1)
    texts = [*figure.legends[0].get_texts(), *(a.title for a in figure.axes)]
    for box in [text.get_window_extent() for text in texts]:
      assert inside.containsx(box.x0) and inside.containsx(box.x1)
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(titles):
      assert not box.count_overlaps(titles[i + 1 :])
    if len(figure.axes) == 6:
      assert figure.axes[0].get_window_extent().height > 200


def test_names_of_any_length_leave_room_for_the_axes():
  """Matplotlib warns where none is left, and warnings are errors."""
  arms = {f'{"m" * 200}{i}': (i, i) for i in range(3)}
  points, pairs = (figures.new(figures.WIDTH, 4) for _ in range(2))
  axes = points.subplots()
  axes.plot([0, 2], [0, 2])
  labels.place([axes], arms)
  pair = pairwise_figure.wrap(' or '.join(list(arms)[:2]))
  pairs.subplots().set_yticks([0, 1], [pair, 'average'])
  for figure in (points, pairs):
    figures.png(figure)
    assert figure.axes[0].get_window_extent().width > 100
